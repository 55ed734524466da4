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

"""The page of troubleshooting has every reason that the node gives, and no others."""

import ast
from collections.abc import Iterator
from pathlib import Path
import re

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs/troubleshooting.md'
# who says why nothing happens; a reason is a text with a remedy behind a colon
# docs/parameters.md and SECURITY.md are about these
ELSEWHERE = {'option.py', 'options.py', 'parameters.py', 'parameters_page.py', 'access.py'}
FILES = [ROOT / 'infmllm_ros/navigation/guide.py', *(
    file for file in sorted((ROOT / 'infmllm_ros/node').glob('*.py'))
    if file.name not in ELSEWHERE)]
NOTES = {'model ready on ... (...) in ... s'}
REMEDY = re.compile(r'^(.*?): [a-z].* |^(publishers: .*?): ', re.S)


def texts(tree: ast.AST) -> Iterator[str]:
    """List every text in a program but docstrings and what is only logged as a note."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner |= {id(word) for node in ast.walk(tree) if isinstance(node, ast.Call)
              and getattr(node.func, 'attr', '') == 'info' for word in node.args}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(value) for value in node.values}
            if id(node) in inner:
                continue
            yield ''.join(value.value if isinstance(value, ast.Constant) else '...'
                          for value in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) \
                and id(node) not in inner:
            yield node.value


def reasons() -> set[str]:
    """Collect what stands before the remedy of each reason."""
    found = set()
    for file in FILES:
        for text in texts(ast.parse(file.read_text())):
            match = REMEDY.match(re.sub(r'^(watch )?\.\.\.: ', '', text))
            if match and len(text) > 30:
                found.add((match[1] or match[2] or '').strip())
    return found - NOTES - {''}


def quoted() -> set[str]:
    """Collect the reasons that the page quotes: the first cells of its tables."""
    cells = re.findall(r'^\| `([^`]*)` \|', PAGE.read_text(), re.M)
    assert len(cells) == len(set(cells)), 'a reason is on the page twice'
    return set(cells)


def test_the_page_has_every_reason_and_no_other():
    known, page = reasons(), quoted() - statuses() - titles()
    assert len(known) > 30
    assert known - page == set(), 'the node says these, the page does not'
    assert page - known == set(), 'the page has these, the node does not say them'


def statuses() -> set[str]:
    """Read the names of an answer's statuses from the message."""
    message = (ROOT / 'infmllm_msgs/msg/Answer.msg').read_text()
    return set(re.findall(r'^uint8 ([A-Z_]+)=', message, re.M))


def test_the_page_has_every_status_of_an_answer():
    assert statuses() - {'OK'} <= quoted()


def titles() -> set[str]:
    """Read the names of the statuses on `/diagnostics` from the code."""
    sources = ''.join(file.read_text() for file in FILES)
    found = {*re.findall(r"\bstatus\(\s*'([a-z ]+)'", sources),
             *re.findall(r"titles_of\('([a-z ]+)'", sources)}
    assert {'node', 'image input', 'frame rate', 'time', 'watches', 'worker'} <= found
    return found


def test_the_page_names_every_status_of_the_diagnostics():
    assert titles() <= quoted()
