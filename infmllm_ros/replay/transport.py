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

"""Room for raw images between processes, where the middleware is Fast DDS."""

from __future__ import annotations

import os
from pathlib import Path
import sys


def share(path: str) -> Path:
    """Return a file of the package, in a source checkout or an installed share folder."""
    here = Path(__file__).resolve().parents[2] / path
    if here.exists():
        return here
    try:
        from ament_index_python import get_package_share_directory
        return Path(get_package_share_directory('infmllm_ros')) / path
    except (ImportError, LookupError, OSError):  # installed by pip, AMENT_PREFIX_PATH not set
        return Path(sys.prefix) / 'share' / 'infmllm_ros' / path


def make_room() -> None:
    """
    Name the profile for large images to Fast DDS, unless the user named one.

    A publisher needs it, before `rclpy.init`: images larger than its default shared memory of
    512 KiB do not reach best-effort subscribers at all.
    """
    names = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
    old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')  # the others warn of it
    if not any(os.environ.get(name) for name in names):
        os.environ[names[old]] = str(share('config/fastdds_large_images.xml'))
