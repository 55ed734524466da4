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

import re

import pytest
from sources import ROOT, SOURCES


@pytest.mark.linter
def test_every_source_file_has_the_licence_header():
    header = (ROOT / 'setup.py').read_text().split('\n\n')[0]
    assert 'Licensed under the Apache License, Version 2.0' in header
    pattern = re.compile(r'(#!.*\n)?' + re.sub(r'20\d\d', r'20\\d\\d', re.escape(header)) + '\n')
    files = [ROOT / 'setup.py', *(f for s in SOURCES for f in (ROOT / s).rglob('*.py'))]
    bad = [str(f.relative_to(ROOT)) for f in files if not pattern.match(f.read_text())]
    assert not bad, f'without the header that setup.py has: {bad}'


@pytest.mark.linter
def test_ament_copyright():
    main = pytest.importorskip('ament_copyright.main', reason='part of a ROS distribution').main
    assert main(argv=SOURCES) == 0
