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

from dataclasses import asdict
import hashlib
import json
import os
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING

from safetensors import safe_open, SafetensorError
from safetensors.torch import save_file
import torch

from .answer import Frame
from .errors import EngineError, MemoryFileError
from .policies import make_policy

if TYPE_CHECKING:
    from .models import StreamingModel
    from .session import StreamingSession

FORMAT = 2
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
    return weight.flatten()[:8].float().cpu().numpy().tobytes()


def save(session: StreamingSession, path: Path) -> None:
    """Write to a temporary file beside `path`, then rename: a torn file never takes its name."""
    tensors = {}
    for number, slots in enumerate(session.cache.ledgers):
        tensors[f'slots.{number}.meta'] = slots.meta[:, :, :slots.count]
        tensors[f'slots.{number}.state'] = slots.state[:, :, :slots.count]
    for number, layer in session.cache.own.items():
        tensors |= {f'layers.{number}.{name}': t for name, t in layer.tensors().items()}
    for camera, features in session.filter.last.items():
        tensors[f'filter.{camera}'] = features
    header = {
        'format': FORMAT, 'model': fingerprint(session.model),
        'policy': {'name': session.policy.name, **asdict(session.policy)},
        'settings': asdict(session.settings),
        'counters': {name: getattr(session, name) for name in COUNTERS},
        'seen': session.cache.seen, 'evicted': session.cache.evicted,
        'frames': [list(vars(frame).values()) for frame in session.frames.values()],
        'newest': session.newest.ordinal if session.newest else None}
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix='.part')
    os.close(handle)
    try:
        save_file({key: t.contiguous().cpu() for key, t in tensors.items()}, name,
                  {'infmllm': json.dumps(header)})
        with open(name, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(cls: type[StreamingSession], path: Path, model: StreamingModel) -> StreamingSession:
    """
    Read a memory.

    Raises
    ------
    MemoryFileError
        Naming what is wrong with the file.
    """
    try:
        with safe_open(path, 'pt') as file:
            header = json.loads(file.metadata()['infmllm'])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        if header['format'] != FORMAT:
            raise MemoryFileError(
                f'{path} has format {header["format"]}, this version reads {FORMAT}')
        if header['model'] != fingerprint(model):
            raise MemoryFileError(
                f'{path} was saved with another model than {model.spec.name}: load that one')
        session = cls(model, make_policy(**header['policy']), **header['settings'])
        _fill(session, header, tensors)
    except MemoryFileError:
        raise
    except (OSError, SafetensorError, EngineError, KeyError, TypeError, ValueError,
            RuntimeError) as error:
        raise MemoryFileError(f'{path} is not a whole saved memory ({error})') from error
    return session


def _fill(session: StreamingSession, header: dict, tensors: dict[str, torch.Tensor]) -> None:
    cache = session.cache
    for number, slots in enumerate(cache.ledgers):
        meta = tensors[f'slots.{number}.meta']
        slots.count = meta.shape[-1]
        slots.meta[:, :, :slots.count] = meta
        slots.state[:, :, :slots.count] = tensors[f'slots.{number}.state']
    for number, layer in cache.own.items():
        for name, held in layer.tensors().items():
            held.copy_(tensors[f'layers.{number}.{name}'])
    cache.seen, cache.evicted = header['seen'], header['evicted']
    cache.restored()
    session.filter.last = {key.removeprefix('filter.'): features.to(session.model.device)
                           for key, features in tensors.items() if key.startswith('filter.')}
    for name, value in header['counters'].items():
        setattr(session, name, value)
    session.frames = {frame[0]: Frame(*frame) for frame in header['frames']}
    session.newest = session.frames.get(header['newest'])
