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
"""What the package must not do with files that others made."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'infmllm_ros'
FILES = sorted(PACKAGE.rglob('*.py'))
# modules and calls that run what a file says
MODULES = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'marshal', 'shelve'}
CALLS = {'eval', 'exec', 'compile', 'torch.load', 'torch.jit.load', 'torch.hub.load', 'yaml.load',
         'torch.hub.load_state_dict_from_url', 'yaml.full_load',
         'yaml.unsafe_load', 'os.system', 'os.popen'}


def findings(source: str) -> list[str]:
    """List what a file does that it must not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split('.')[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            whole = [f'{node.module}.{alias.name}' for alias in node.names]
            found += [name for name in whole if name.split('.')[0] in MODULES or name in CALLS]
        elif isinstance(node, ast.keyword):
            # whoever wants it may hand it to load_model; the package never does
            given = {'trust_remote_code', 'allow_pickle', 'shell'} & {node.arg}
            safe = isinstance(node.value, ast.Constant) and node.value.value is False
            found += [] if safe else list(given)
            if node.arg == 'weights_only' and getattr(node.value, 'value', None) is not True:
                found.append('weights_only')
        elif isinstance(node, ast.Constant) and node.value == 'trust_remote_code':
            found.append(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            found.append(ast.unparse(node.func))
    return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_is_run(path):
    assert not findings(path.read_text())


@pytest.mark.parametrize('source', [
    'import pickle', 'from pickle import loads', 'from torch import load', 'torch.load(x)',
    'torch.load(x, weights_only=False)', 'yaml.load(x)', 'np.load(x, allow_pickle=True)',
    'eval(x)', 'm.from_pretrained(x, trust_remote_code=True)', "f(**{'trust_remote_code': 1})"])
def test_what_is_looked_for_is_found(source):
    assert findings(source)
