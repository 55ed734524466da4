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
What is kept of a replay: a line of JSON for each thing that happened, in the order of its time.

A line has a `type`, which is the name of one of the classes below in lower case, and its fields.
What depends on the machine and not on the bag, the model and the questions stands under
`measured`, in every line: two replays are the same when all else is, which `digest` sums up.
Times are those of the source [ns], unless they stand under `measured`. Nothing here knows ROS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
import hashlib
import json
from pathlib import Path
from typing import Any

FILE = 'run.jsonl'
SEEN, SKIPPED, DROPPED, SIMILAR, BAD, FAILED, SENT = FATES = (
    'seen', 'skipped', 'dropped', 'similar', 'bad', 'failed', 'sent')
"""
What becomes of a frame, in the words of the node: observed by the model; kept out by the policy as
a duplicate; replaced by a newer one before max_frame_rate let it in; kept out by its camera's
gate; not an image that can be read; one at which the model failed. Or sent to a node, which does
not tell of each.
"""


@dataclass
class Record:
    """One line; `measured` holds what another run on another machine would not repeat."""

    measured: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def line(self) -> str:
        """Write as JSON."""
        return ''.join(self.parts())

    def parts(self) -> tuple[str, str]:
        """Write the line in two: what another run would repeat, and the rest, to its end."""
        fields = {'type': type(self).__name__.lower(), **asdict(self)}
        measured = fields.pop('measured')
        return _json(fields)[:-1], f',"measured":{_json(measured)}}}' if measured else '}'


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(',', ':'), allow_nan=False)


@dataclass
class Run(Record):
    """
    The first line: what is replayed, and with what.

    Parameters
    ----------
    source : str
        Name of the bag, the video or the folder.
    mode : str
        'offline' or 'live'.
    model : str
        Name of the checkpoint, as given; '' where a running node has not told.
    policy : str
    budget : int
        [tokens]
    cameras : list of str
        [''] for one without a name.
    parameters : dict
        Those of the node that differ from the defaults, by name.
    questions : str
        Name of the file with the questions; '' if there is none.
    measured
        'started' (ISO 8601), 'versions' (of this package, torch, transformers), 'device'.
    """

    source: str
    mode: str
    model: str
    policy: str
    budget: int
    cameras: list[str]
    parameters: dict[str, Any] = field(default_factory=dict)
    questions: str = ''


@dataclass
class Frame(Record):
    """A frame that came out of the source, its place there counted from 0 over all cameras."""

    number: int
    stamp_ns: int
    camera: str
    fate: str
    reason: str = ''  # why it is bad, or failed


@dataclass
class Stats(Record):
    """
    The memory after a frame (offline), or as the node published it (live).

    Parameters
    ----------
    stamp_ns : int
        Of the newest frame that the model has seen.
    tokens, budget, tokens_seen, tokens_evicted, frames_seen, frames_retained, kv_bytes
        As in infmllm_msgs/CacheStats.
    measured
        'vision_ms', 'prefill_ms', 'evict_ms', 'process_bytes'; live also 'frames_dropped',
        'frame_age_ms'.
    """

    stamp_ns: int
    tokens: int
    budget: int
    tokens_seen: int
    tokens_evicted: int
    frames_seen: int
    frames_retained: int
    kv_bytes: int


@dataclass
class Memory(Record):
    """
    What is left of each frame at one moment, oldest first; some two hundred of these in a run.

    Parameters
    ----------
    stamp_ns : int
        Of the newest frame that the model has seen.
    held : list of [stamp_ns, camera, tokens]
        Tokens averaged over the groups that choose for themselves.
    """

    stamp_ns: int
    held: list[list[Any]]


@dataclass
class Told(Record):
    """A text that was put into the memory."""

    stamp_ns: int
    text: str


@dataclass
class Answer(Record):
    """
    The end of a question, or of one turn of a watch.

    Parameters
    ----------
    id : str
        Of the question; unique in the run.
    name : str
        Of the entry in the file of questions, which may ask more than once; of the watch.
    watch : bool
    asked_ns : int
        When it was asked.
    stamp_ns : int
        Of the newest frame that the answer saw; 0 = none.
    camera : str
        That it was about; '' = all.
    question, context, text, status, message, finish_reason, tokens, valid
        As in infmllm_msgs/Answer; the status by name, as 'OK'.
    choices : list of str
    choice : int
        -1 = free text.
    probabilities : list of float
        Rounded to 1e-6.
    expected : str or None
        The right answer, where the file of questions has one.
    right : bool or None
        Whether the answer is right; None where nothing is expected.
    evidence : list of [stamp_ns, camera, weight]
        Best first; weights rounded to 1e-6.
    measured
        'time_to_first_token', 'latency' [s].
    """

    id: str  # noqa: A003
    name: str
    watch: bool
    asked_ns: int
    stamp_ns: int
    camera: str
    question: str
    context: str
    text: str
    status: str
    message: str
    finish_reason: str
    tokens: int
    valid: bool
    choices: list[str]
    choice: int
    probabilities: list[float]
    expected: str | None
    right: bool | None
    evidence: list[list[Any]]


@dataclass
class Event(Record):
    """A change that a watch has seen; fields as in infmllm_msgs/WatchEvent."""

    stamp_ns: int
    name: str
    previous: int
    choice: int
    previous_text: str
    text: str
    probability: float


@dataclass
class Problem(Record):
    """Something that went wrong and was survived: the end of a torn bag, a failed question..."""

    stamp_ns: int
    text: str


@dataclass
class End(Record):
    """
    The last line; a run without it was broken off.

    Parameters
    ----------
    frames : dict of str to int
        How many of each fate.
    answers, judged, right : int
        Of questions; watches are not counted.
    problem : str
        Why the run ended before its source did; '' if it did not.
    digest : str
        Of all lines before.
    measured
        'seconds', 'frames_per_second', 'speed' (source time over real time).
    """

    frames: dict[str, int]
    answers: int
    judged: int
    right: int
    problem: str = ''
    digest: str = ''


INTERRUPTED = 'interrupted'  # the problem of a run that a person ended
KINDS: dict[str, type[Record]] = {kind.__name__.lower(): kind for kind in Record.__subclasses__()}


class Journal:
    """
    Writes records to a file as they come: what was written stays, whatever comes after.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open('w', encoding='utf-8', buffering=1)
        self._hash = hashlib.sha256()

    def write(self, record: Record) -> None:
        """Append a record; the end gets the digest of all before it."""
        if isinstance(record, End):
            record.digest = self._hash.hexdigest()
        same, rest = record.parts()
        self._hash.update(f'{same}}}\n'.encode())
        self._file.write(f'{same}{rest}\n')

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> Iterator[Record]:
    """
    Read the records of a file, or of the folder that it lies in.

    Raises
    ------
    ValueError
        A line that is no record, with its number. The last may be torn: it is left out.
    """
    path = path / FILE if path.is_dir() else path
    with path.open(encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if not line.endswith('\n'):
                return
            try:
                fields = json.loads(line)
                record = KINDS[fields.pop('type')](**fields)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f'{path}, line {number}: not a record of a replay ({error}): '
                                 'replay again') from None
            yield record


def finished(records: Iterable[Record]) -> bool:
    """Say whether a run came to its end."""
    return any(isinstance(last, End) for last in deque(records, maxlen=1))
