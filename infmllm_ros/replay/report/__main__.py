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

"""Write the reports of runs: ``python -m infmllm_ros.replay.report OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
import sys

from infmllm_ros.replay.report import write


def main(argv: Iterable[str] | None = None) -> int:
    """Write reports; 0 if all could be written, 2 if not."""
    parser = argparse.ArgumentParser(prog='python -m infmllm_ros.replay.report',
                                     description='Write report.html beside the records of runs.')
    parser.add_argument('folder', nargs='+', type=Path, help='where a replay wrote run.jsonl')
    parser.add_argument('--title', help='default: the name of what was replayed')
    arguments = parser.parse_args(argv)
    try:
        for folder in arguments.folder:
            print(write(folder, arguments.title))
    except (OSError, ValueError) as error:
        print(f'report: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
