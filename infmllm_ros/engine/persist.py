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

"""A memory as a file: the un-rotated keys, the values, the ledgers, and what the session knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
import hashlib
import json
import os
from pathlib import Path
import tempfile
from typing import Any, TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file
import torch

from .answer import Frame
from .errors import MemoryFileError
from .layouts import LAYOUTS
from .models.packed import SAMPLE
from .policies import make_policy
from .positions import FRAME, NO_FRAME

if TYPE_CHECKING:
    from .models import StreamingModel
    from .session import StreamingSession

FORMAT = 3
FILTER = 'filter.'      # before the names of cameras: their last frames' features
NOTE = 'note.'          # before the names of what users of a session save along with it
COUNTERS = ('frames_seen', 'frames_skipped', 'evictions', 'answers', '_chunks', '_first_stamp')


def fingerprint(model: StreamingModel) -> str:
    """Tell models apart: a digest of the text config and of a few values of every weight."""
    digest = hashlib.sha256(model.config.get_text_config(decoder=True).to_json_string().encode())
    for name, weight in model.model.named_parameters():
        digest.update(name.encode())
        digest.update(_sample(weight))
    return digest.hexdigest()


def _sample(weight: torch.Tensor) -> bytes:
    """Read a few values: of a packed or split weight those of its parts here, if any are here."""
    if hasattr(weight, '__tensor_flatten__'):
        parts = (getattr(weight, name) for name in weight.__tensor_flatten__()[0])
        return b''.join(_sample(part) for part in parts if isinstance(part, torch.Tensor))
    if weight.is_meta:      # off-loaded
        return b''
    if weight.is_mkldnn:    # packed: to unpack it takes a second a gigabyte
        weight = weight.sample
    return weight.flatten()[:SAMPLE].float().cpu().numpy().tobytes()


def save(session: StreamingSession, path: Path, notes: Mapping[str, bytes]) -> None:
    """Write into a temporary folder beside `path`, then rename: no torn file takes its name."""
    tensors = _views(session)
    for camera, features in session.filter.last.items():
        tensors[f'{FILTER}{camera}'] = features
    for name, note in notes.items():
        tensors[f'{NOTE}{name}'] = torch.from_numpy(np.frombuffer(note, np.uint8).copy())
    tensors = {key: t.contiguous().cpu() for key, t in tensors.items()}
    header = json.dumps({
        'format': FORMAT, 'model': fingerprint(session.model), 'policy': _policy(session),
        'settings': asdict(session.settings),
        'counters': {name: getattr(session, name) for name in COUNTERS},
        'seen': session.cache.seen, 'evicted': session.cache.evicted,
        'frames': [list(vars(frame).values()) for frame in session.frames.values()],
        'newest': session.newest.ordinal if session.newest else None})
    # a folder, as safetensors has temporary files of its own beside the one that it writes
    with tempfile.TemporaryDirectory('.part', path.name, path.parent) as folder:
        name = os.path.join(folder, path.name)
        save_file(tensors, name, {'infmllm': header, 'digest': _digest(header, tensors)})
        _flush(name)
        os.replace(name, path)
        _flush(path.parent)     # the new name itself


def _views(session: StreamingSession) -> dict[str, torch.Tensor]:
    """Name all that the cache holds, as it is written to a file: views of it."""
    views = {}
    for number, slots in enumerate(session.cache.ledgers):
        views[f'slots.{number}.meta'] = slots.meta[:, :, :slots.count]
        views[f'slots.{number}.state'] = slots.state[:, :, :slots.count]
    for number, layer in session.cache.own.items():
        views |= {f'layers.{number}.{name}': t for name, t in layer.tensors().items()}
    return views


def _policy(session: StreamingSession) -> dict[str, Any]:
    return {'name': session.policy.name, **asdict(session.policy)}


def _flush(path: str | Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(header: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Sum up all that a file says: one flipped bit, anywhere, changes it."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f'{name} {tensor.dtype} {list(tensor.shape)}'.encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(cls: type[StreamingSession], path: Path, model: StreamingModel) -> StreamingSession:
    """
    Make a session of a file.

    Raises
    ------
    MemoryFileError
        Naming what is wrong with the file.
    """
    header, tensors = _read(path, model)
    with _whole(path):
        session = cls(model, make_policy(**header['policy']), **header['settings'])
        _fill(session, header, tensors)
    return session


def restore(session: StreamingSession, path: Path) -> dict[str, bytes]:
    """
    Put the memory of a file in the place of a session's; return the notes saved with it.

    Raises
    ------
    MemoryFileError
        Naming what is wrong with the file, or differs in it; the session is as it was.
    """
    header, tensors = _read(path, session.model)
    with _whole(path):
        _compare(session, header, path)
        held = max((tensors[f'slots.{number}.meta'].shape[-1]
                    for number in range(len(session.cache.slots))), default=0)
        if held > session.plan.budget:
            raise MemoryFileError(
                f'{path} holds {held} tokens, this memory may keep {session.plan.budget}: raise '
                'its budget')
        _fill(session, header, tensors)
        return {key.removeprefix(NOTE): tensor.numpy().tobytes()
                for key, tensor in tensors.items() if key.startswith(NOTE)}


def _compare(session: StreamingSession, header: dict[str, Any], path: Path) -> None:
    """
    Refuse a memory that another policy chose, that began with another prompt, or lies otherwise.

    One chosen under a smaller budget, as when that was lowered for lack of memory, may grow here.
    """
    own, saved = (
        {**policy, 'system_prompt': settings['system_prompt'],
         'layout': settings.get('layout', 'fast')}
        for policy, settings in ((_policy(session), asdict(session.settings)),
                                 (header['policy'], header['settings'])))
    own = json.loads(json.dumps(own))       # as it comes from a file: tuples are lists
    budgets = own['budget'], saved.get('budget')
    if all(isinstance(budget, int) for budget in budgets) and budgets[1] <= budgets[0]:
        saved['budget'] = own['budget']
    kinds = [LAYOUTS.get(part['layout']) for part in (own, saved)]
    if all(kinds) and kinds[0].quantised == kinds[1].quantised:     # in a file they are the same
        saved['layout'] = own['layout']
    for field in ['name', *sorted(own.keys() | saved.keys())]:
        if own.get(field) != saved.get(field):
            what = 'policy' if field == 'name' else field
            raise MemoryFileError(
                f'{path} was saved with {what} {saved.get(field)!r}, but this memory has '
                f'{own.get(field)!r}: set the same, or start an empty memory')


def _read(path: Path, model: StreamingModel) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a file that is whole and of this model; MemoryFileError if it is not."""
    with _whole(path):
        with safe_open(path, 'pt') as file:
            text, digest = file.metadata()['infmllm'], file.metadata().get('digest')
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        header = json.loads(text)
        if header['format'] != FORMAT:
            raise MemoryFileError(
                f'{path} has format {header["format"]}, this version reads {FORMAT}')
        if digest != _digest(text, tensors):
            raise MemoryFileError(
                f'{path} is not what was saved, its digest differs: it is damaged, take another')
        if header['model'] != fingerprint(model):
            raise MemoryFileError(
                f'{path} was saved with another model than {model.spec.name}: load that one')
    return header, tensors


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Make one kind of error, with the file's name, of all that reading one can raise."""
    try:
        yield
    except (MemoryFileError, torch.OutOfMemoryError):
        raise
    except FileNotFoundError as error:
        raise MemoryFileError(f'{path} does not exist: save a memory there first') from error
    except Exception as error:      # whatever a forged header may lead to
        why = ' '.join(str(error).split())[:200]
        raise MemoryFileError(f'{path} is not a whole saved memory ({why})') from error


def _fill(session: StreamingSession, header: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Copy what was read into the session: all of it, or, if something is amiss, nothing."""
    cache = session.cache
    frames = {frame[0]: Frame(*frame) for frame in header['frames']}
    counters = {name: header['counters'][name] for name in COUNTERS}
    seen, evicted, newest = (header[name] for name in ('seen', 'evicted', 'newest'))
    _check(frames, counters, seen, evicted, newest, tensors)
    last = {key.removeprefix(FILTER): features.to(session.model.device)
            for key, features in tensors.items() if key.startswith(FILTER)}
    before = [slots.count for slots in cache.ledgers]
    for number, slots in enumerate(cache.ledgers):
        slots.count = tensors[f'slots.{number}.meta'].shape[-1]
    views = _views(session)
    for name, view in views.items():
        if tensors[name].shape != view.shape:
            for slots, count in zip(cache.ledgers, before, strict=True):
                slots.count = count
            raise ValueError(f'{name} is {list(tensors[name].shape)}, not {list(view.shape)}')
    for name, view in views.items():
        view.copy_(tensors[name])
    cache.seen, cache.evicted = seen, evicted
    cache.restored()
    session.filter.last = last
    session.frames, session.newest = frames, frames.get(newest)
    for name, value in counters.items():
        setattr(session, name, value)


def _check(frames: dict[int, Frame], counters: dict[str, Any], seen: Any, evicted: Any,
           newest: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Refuse, as ValueError, numbers and frames that no session writes."""
    numbers = {**counters, 'seen': seen, 'evicted': evicted}
    if numbers['_first_stamp'] is None:
        del numbers['_first_stamp']
    for name, number in numbers.items():
        least = -2 ** 63 if name == '_first_stamp' else 0
        if type(number) is not int or not least <= number < 2 ** 63:
            raise ValueError(f'{name} is {number!r}')
    for frame in frames.values():
        if [type(part) for part in vars(frame).values()] != [int, int, str]:
            raise ValueError(f'a frame is {frame}')
    held = {number for name, ledger in tensors.items() if name.endswith('.meta')
            for number in ledger[FRAME].unique().tolist()} - {NO_FRAME}
    if not held | ({newest} - {None}) <= frames.keys():
        raise ValueError('it holds frames that it does not name')
