# Copyright 2026 The infmllm_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Start the node: ``python -m infmllm_ros.node`` or ``ros2 run infmllm_ros infmllm_node``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
import importlib
import os
from pathlib import Path
import signal
import sys
import threading
import traceback
from typing import Any

from infmllm_ros.node.option import ParameterError
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
import yaml

GRACE = 3.0  # [s] how long the worker may take to stop when the process is told to end


def wrong_file(arguments: list[str]) -> str:
    """Say in one line what is wrong with the parameter files on the command line, if anything."""
    pairs = zip(arguments, arguments[1:])
    for file in (value for flag, value in pairs if flag == '--params-file'):
        try:
            yaml.safe_load(Path(file).read_text())
        except yaml.YAMLError as error:
            return (f'parameter file {file} is no valid YAML: {" ".join(str(error).split())}: '
                    'correct it there')
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, 'strerror', None) or 'it is no text'
            return (f'parameter file {file} cannot be read: {reason}: check the path, or start '
                    "from the package's config/infmllm.yaml")
    return ''


def _import_node() -> Any:
    """Import torch and all else beside the main thread, as it takes seconds; None on a signal."""
    job = ThreadPoolExecutor(1).submit(importlib.import_module, 'infmllm_ros.node.node')
    while rclpy.ok():
        if wait([job], timeout=0.05).done:
            return job.result()
    return None


def spin(executor: Any, ok: Callable[[], bool] = rclpy.ok) -> None:
    """Run callbacks until the context ends; one that raises is reported and ends nothing."""
    while ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:
            if ok():  # else a callback has met the end of the context
                logger = get_logger('infmllm')
                logger.error(f'callback failed: {type(error).__name__}: {error}')
                logger.debug(traceback.format_exc())


def _run() -> int:
    """Run the node until the process is told to end; returns the exit code."""
    module = _import_node()
    if module is None:
        return 0
    try:
        node = module.InfmllmNode()
    except ParameterError as error:
        get_logger('infmllm').fatal(str(error))
        return 1
    except Exception:
        if rclpy.ok():  # else a signal came meanwhile
            raise
        return 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spin(executor)
    node.close(GRACE)
    node.destroy_node()
    return node.exit_code


def run(arguments: list[str]) -> int:
    """
    Run the node with command line arguments.

    Returns
    -------
    int
        Exit code: 0 after SIGINT or SIGTERM; 1 when a parameter file or a parameter is wrong; 75
        when the model hangs and watchdog_action is exit.
    """
    # No KeyboardInterrupt in the middle of anything: rclpy's own handler, which calls this one,
    # ends the context for either signal, and all waiting is done in steps that look at that.
    early = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: early.set())
    problem = wrong_file(arguments)
    if problem:
        print(f'infmllm: {problem}', file=sys.stderr)
        return 1
    try:
        rclpy.init(args=arguments)
    except Exception as error:
        print(f'infmllm: {" ".join(str(error).split())}', file=sys.stderr)
        return 1
    try:
        return 0 if early.is_set() else _run()
    finally:
        rclpy.try_shutdown()


def main() -> None:
    """Run the node as the whole process."""
    try:
        code = run(sys.argv)
    except Exception:
        traceback.print_exc()
        code = 1
    # Not sys.exit: a forward pass or an import that still runs cannot be interrupted, and taking
    # torch down takes seconds on a busy machine. Of ROS nothing is left.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == '__main__':
    main()
