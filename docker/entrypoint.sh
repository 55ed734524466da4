#!/bin/bash
# The distribution, then the environment on top of it.
set -e
source /opt/ros/jazzy/setup.bash
source /opt/infmllm_ros/.venv/bin/activate
export AMENT_PREFIX_PATH=$VIRTUAL_ENV:$AMENT_PREFIX_PATH LD_LIBRARY_PATH=$VIRTUAL_ENV/lib:$LD_LIBRARY_PATH
exec "$@"
