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
Passes as CUDA graphs: what Python launched kernel by kernel, the GPU repeats at one word.

A layer is some forty short kernels, and Python needs longer to launch them than a GPU to run them:
a token of an answer waits for Python, not for the weights. A graph is a recording of them, with
the addresses that they read and write, so what differs from pass to pass must be numbers in
tensors: that is `fixed`. A shape of pass is computed plainly until it has come `SIGHTINGS` times,
so that what comes once costs nothing. A recording must then repeat what was computed plainly, or
that shape is never recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TYPE_CHECKING

import torch
from torch.utils import _pytree as pytree

from .attention import Pass
from .fixed import can_be_fixed, fixed, FixedPass, places

if TYPE_CHECKING:
    from .session import StreamingSession

SIGHTINGS = 3       # of a shape, from which it is recorded
MOST = 16           # recordings of a kind: each takes part of a second, and some memory
CLOSE = 0.02        # of the largest number: how far a recording may be from what it repeats


class Recorder(Protocol):
    """Records what a function launches."""

    def warm(self, call: Callable[[], Any]) -> Any:
        """Call it as it will be recorded; refuse what cannot be."""

    def record(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Give what repeats it, and its outcome, whose tensors each repetition fills."""


class CudaRecorder:
    """Records on one GPU; recordings share its pool of memory, so none may run beside another."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.pool = device, torch.cuda.graph_pool_handle()

    def warm(self, call: Callable[[], Any]) -> Any:
        """Call it on a stream of its own, where nothing may wait for the GPU."""
        work, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        before = torch.cuda.get_sync_debug_mode()
        side.wait_stream(work)
        torch.cuda.set_sync_debug_mode('error')
        try:
            with torch.cuda.stream(side):
                return call()
        finally:
            torch.cuda.set_sync_debug_mode(before)
            work.wait_stream(side)

    def record(self, call: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Capture a CUDA graph; other threads may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode='thread_local'):
            out = call()
        return graph.replay, out


def records(device: torch.device) -> bool:
    """Tell whether anything can be recorded on a device."""
    return device.type == 'cuda'


recorder: Callable[[torch.device], Recorder] = CudaRecorder


class Recording:
    """
    One function of tensors, recorded.

    Parameters
    ----------
    recorder : Recorder
    function : Callable
        Of one argument.
    inputs : Any
        That argument: lists and dicts with tensors in them. The recording has copies of these.
    restore : Callable
        Takes back what a call changes beside its outcome.

    Attributes
    ----------
    out : Any
        Its outcome; the next repetition overwrites it.

    Raises
    ------
    RuntimeError
        If it does not repeat what the function computes.
    """

    def __init__(self, recorder: Recorder, function: Callable[[Any], Any], inputs: Any,
                 restore: Callable[[], None]) -> None:
        inputs = pytree.tree_map_only(torch.Tensor, torch.clone, inputs)
        self._inputs, call = _tensors(inputs), partial(function, inputs)
        expected = [part.clone() for part in _tensors(recorder.warm(call))]
        restore()
        self._replay, self.out = recorder.record(call)
        self._replay()
        for found, right in zip(_tensors(self.out), expected, strict=True):
            # a frame that comes to NaN is not the recording's fault
            found, right = (part.float().nan_to_num() for part in (found, right))
            off, size = (part.abs().max().item() for part in (found - right, right))
            if not off <= CLOSE * size:
                raise RuntimeError(f'it is off by {off:.1e} from what it repeats, of {size:.1e}')

    def repeat(self, inputs: Any) -> Any:
        """Compute the outcome for other inputs of the same shapes."""
        for mine, given in zip(self._inputs, _tensors(inputs), strict=True):
            mine.copy_(given)
        self._replay()
        return self.out


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [part for part in pytree.tree_leaves(tree) if isinstance(part, torch.Tensor)]


class Album:
    """
    The recordings of one kind of work.

    Attributes
    ----------
    recordings : dict of Hashable to Recording
        By what was said of them and the shapes of their inputs.
    refused : dict of Hashable to str
        What could not be recorded, and why.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.recordings: dict[Hashable, Recording] = {}
        self.refused: dict[Hashable, str] = {}
        self._sightings: Counter[Hashable] = Counter()

    def play(self, what: Hashable, function: Callable[[Any], Any], inputs: Any,
             plainly: Callable[[], Any], restore: Callable[[], Callable[[], None]]) -> Any:
        """
        Compute a function of tensors, by a recording where there is or can be one.

        Parameters
        ----------
        what : Hashable
            All that it depends on beside tensors.
        function, inputs
            See :class:`Recording`.
        plainly : Callable
            Computes the same otherwise.
        restore : Callable
            Called before a recording is made: notes what it will change, and gives what puts that
            back.
        """
        what = what, *((part.shape, part.dtype) for part in _tensors(inputs))
        if what in self.recordings:
            return self.recordings[what].repeat(inputs)
        if what in self.refused or len(self.recordings) + len(self.refused) == MOST:
            return plainly()
        self._sightings[what] += 1
        if self._sightings[what] < SIGHTINGS:
            return plainly()
        undo = restore()
        try:
            recording = Recording(self.recorder, function, inputs, undo)
        except Exception as error:  # noqa: B902 whatever a model, a kernel or a driver may raise
            undo()
            reason = str(error).strip().partition('\n')[0]
            self.refused[what] = f'{type(error).__name__}: {reason}'
            return plainly()
        self.recordings[what] = recording
        return recording.out


class Graphs:
    """
    The recordings of a session: passes through its decoder, and looks of its vision tower.

    Parameters
    ----------
    session : StreamingSession
    """

    def __init__(self, session: StreamingSession) -> None:
        self.cache, self.decoder = session.cache, session.model.model.get_decoder()
        self.passes, self.looks = (Album(recorder(self.cache.device)) for _ in range(2))

    @classmethod
    def of(cls, session: StreamingSession) -> Graphs | None:
        """Make those of a session, if its passes can be recorded."""
        return cls(session) if records(session.cache.device) and can_be_fixed(
            session.cache) else None

    def look(self, function: Callable[[Any], Any], pixels: Any, sizes: Hashable) -> Any:
        """Run the vision tower on frames of so many tokens; the outcome is the caller's own."""
        out = self.looks.play(
            sizes, function, pixels, partial(function, pixels), lambda: lambda: None)
        return pytree.tree_map_only(torch.Tensor, torch.clone, out)

    def _forward(self, plainly: Callable[..., Any], *args: Any, stream: Pass, **given: Any) -> Any:
        cache, plainly = self.cache, partial(plainly, *args)
        as_is = partial(plainly, stream=stream, **given)
        if args or not FixedPass.suits(stream, cache.ledgers[0].pending):
            return as_is()
        cache.clean()

        def run(inputs: dict[str, Any]) -> Any:
            again = FixedPass(cache, inputs['rows'], stream.evidence, ahead=inputs['ahead'],
                              near=stream.far is not stream.ahead)
            with fixed(cache, inputs['places']):
                return plainly(stream=again, **inputs['given'])

        inputs = {'given': given, 'places': places(cache), 'rows': stream.rows,
                  'ahead': stream.ahead}
        return self.passes.play(stream.evidence, run, inputs, as_is, cache.remember)


@contextmanager
def recorded(graphs: Graphs | None) -> Iterator[None]:
    """Let the decoder's passes be recorded and repeated, if there are graphs."""
    if graphs is None:
        yield
        return
    decoder = graphs.decoder
    own = decoder.__dict__.get('forward')       # accelerate's, for one
    decoder.forward = partial(graphs._forward, decoder.forward)
    try:
        yield
    finally:
        del decoder.forward
        if own is not None:
            decoder.forward = own
