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

"""
Run one search led by coverage: inputs that reach new code are kept and changed further.

``pip install atheris``, which nothing else here needs, then in the environment of the tests:
``python test/guided.py test/test_fuzz_images.py::test_any_raw_image -max_total_time=600``.
What follows the test are options of libFuzzer, https://llvm.org/docs/LibFuzzer.html. A test that
takes fixtures of pytest cannot be run so.
"""

from __future__ import annotations

from collections.abc import Callable
import importlib.util
from pathlib import Path
import random
import sys
import tempfile
from typing import Any

import atheris

CODE = ['infmllm_ros', 'PIL', 'rosbags', 'yaml']  # whose branches are watched


def search(test: str) -> Callable[[bytes], None]:
    """Import a test, ``file::name``, and what it tests with its branches watched."""
    file, _, name = test.partition('::')
    for folder in (Path(__file__).parent, Path(file).parent, Path(__file__).with_name('engine')):
        sys.path.insert(0, str(folder.absolute()))
    with atheris.instrument_imports(include=CODE):
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return counted(getattr(module, name).hypothesis.fuzz_one_input)


def counted(run: Callable[[bytes], Any]) -> Callable[[bytes], None]:
    """Tell how many cases there were: a run that ends while hypothesis still draws is none."""
    from cases import tried
    told = 0

    def one(data: bytes) -> None:
        nonlocal told
        run(data)
        if sum(tried.values()) >= told + 500:
            told = sum(tried.values())
            print(f'{told} cases')
    return one


def seeds(folder: Path, count: int = 200, size: int = 2048) -> str:
    """Write bytes that are long enough for hypothesis to draw from: libFuzzer begins short."""
    for number in range(count):
        (folder / f'{number}').write_bytes(random.Random(number).randbytes(size))
    return str(folder)


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(
            [sys.argv[0], '-len_control=0', *sys.argv[2:], seeds(Path(folder))],
            search(sys.argv[1]))
        atheris.Fuzz()
