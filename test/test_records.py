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

"""The records of a replay: read back as written, whole lines kept, digests of what repeats."""

from infmllm_ros.replay.records import Answer, End, finished, Frame, Journal, read, Run
import pytest

FRAME = Frame(0, 1_700_000_000_000_000_001, 'front', 'seen')
ANSWER = Answer('1', 'ahead', False, 5, 4, '', 'What?', '', 'a "béc"\n', 'OK', '', 'stop', 2,
                False, [], -1, [], None, None, [[4, 'front', .25]])


def write(path, seconds=1., text='front', end=True):
    journal = Journal(path)
    for record in (Run('bag', 'offline', 'm', 'saddle', 192, [''], measured={'started': seconds}),
                   Frame(0, 1, text, 'seen', measured={'ms': seconds}), FRAME, ANSWER):
        journal.write(record)
    if end:
        journal.write(End({'seen': 2}, 1, 0, 0, measured={'seconds': seconds}))
    journal.close()
    return list(read(path))


def test_records_read_back_as_they_were_written(tmp_path):
    records = write(tmp_path / 'run.jsonl')
    assert records[2:4] == [FRAME, ANSWER] and list(read(tmp_path)) == records
    assert finished(records) and records[0].measured == {'started': 1.}


def test_the_digest_is_of_all_but_what_was_measured(tmp_path):
    one, other, third = (write(tmp_path / name, *rest)[-1].digest for name, *rest in (
        ('a', 1.), ('b', 2.), ('c', 1., 'left')))
    assert one == other != third and len(one) == 64


def test_a_run_that_broke_off_keeps_its_whole_lines(tmp_path):
    path = tmp_path / 'run.jsonl'
    records = write(path, end=False)
    assert not finished(records)
    path.write_bytes(path.read_bytes()[:-7])
    assert list(read(path)) == records[:-1]


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / 'run.jsonl'
    write(path)
    lines = path.read_text().splitlines()
    for wrong in ('{', '[]', '{"type":"frame"}', '{"type":"film"}', '{"type":"record"}'):
        path.write_text('\n'.join([*lines[:2], wrong, *lines[2:]]) + '\n')
        with pytest.raises(ValueError, match='line 3: not a record'):
            list(read(path))
