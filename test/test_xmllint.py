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

from pathlib import Path
import shutil
from xml.etree import ElementTree

from catkin_pkg.package import parse_package
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ['package.xml', 'infmllm_msgs/package.xml']
PROFILES = [f'config/{file.name}' for file in ROOT.glob('config/*.xml')]


@pytest.mark.linter
@pytest.mark.parametrize('file', PACKAGES + PROFILES)
def test_xml_is_well_formed(file):
    ElementTree.parse(ROOT / file)


@pytest.mark.linter
@pytest.mark.parametrize('file', PACKAGES)
def test_package_xml_is_valid(file):
    warnings = []
    parse_package(str(ROOT / file), warnings=warnings)  # raises InvalidPackage
    assert not warnings


@pytest.mark.linter
def test_ament_xmllint():
    main = pytest.importorskip('ament_xmllint.main', reason='part of a ROS distribution').main
    if shutil.which('xmllint') is None:
        pytest.skip('xmllint is not installed (libxml2-utils)')
    assert main(argv=PACKAGES + PROFILES) == 0
