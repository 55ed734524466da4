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

"""What a model is fed, written down chunk by chunk for references to replay; and what it says."""

from __future__ import annotations

from infmllm_ros.engine.plain import closes
import numpy as np
from references import Token
import torch
from zoo import words


class Tape:
    """
    Record every chunk that reaches a model's embedding layer; a context manager.

    Attributes
    ----------
    chunks : list of list of Token
        One list a forward pass, vision features in the place of their placeholders.
    """

    def __init__(self, streaming):
        self.chunks: list[list[Token]] = []
        self._streaming = streaming
        self._frames = 0
        self._pending: list[Token] = []

    def __enter__(self):
        """Listen to the embedding layer and to the vision encoder."""
        embedding = self._streaming.model.get_input_embeddings()
        self._hook = embedding.register_forward_hook(self._fed)
        self._kind = type(self._streaming.adapter)
        self._see = self._kind.see
        self._kind.see = self._spy()
        return self

    def __exit__(self, *_):
        """Leave the model as it was."""
        self._hook.remove()
        self._kind.see = self._see

    def take(self) -> list[list[Token]]:
        """Return the chunks since the last time, and forget them."""
        chunks, self.chunks = self.chunks, []
        return chunks

    def _spy(self):
        def see(adapter, *args, **kwargs):
            chunks = self._see(adapter, *args, **kwargs)
            self._pending = [
                token for number, chunk in enumerate(chunks, self._frames)
                for token in frame_tokens(self._streaming, chunk, number)]
            self._frames += len(chunks)
            return chunks
        return see

    def _fed(self, _module, args, output):
        ids = args[0]
        if ids.ndim != 2:  # a model looks up its own placeholder
            return
        ids = ids[0].tolist()
        tokens = self._pending[:len(ids)]
        # Gemma 4 looks up padding in the place of vision tokens
        if len(tokens) == len(ids) and all(
                token.grid or token.word == i for token, i in zip(tokens, ids)):
            self._pending = self._pending[len(ids):]
        else:
            tokens = [Token(i, embed) for i, embed in zip(ids, output[0].float().numpy())]
        self.chunks.append(tokens)


def embed(streaming, ids) -> np.ndarray:
    """Look up the embeddings of `ids`, float32 [n, hidden]."""
    with torch.no_grad():
        return streaming.model.get_input_embeddings()(torch.as_tensor(ids)).float().numpy()


def text_tokens(streaming, ids) -> list[Token]:
    """Turn ids of text into reference tokens."""
    return [Token(int(i), vector) for i, vector in zip(ids, embed(streaming, ids))]


def frame_tokens(streaming, chunk, frame: int) -> list[Token]:
    """Turn the chunk of one frame into reference tokens."""
    ids = chunk.ids.tolist()
    vectors = list(embed(streaming, torch.tensor(
        [0 if _inside(chunk.spans, at) else i for at, i in enumerate(ids)])))
    grids = [None] * len(ids)
    pooled = next(iter(chunk.features.values())).pooler_output
    if not isinstance(pooled, torch.Tensor):
        pooled = torch.cat(list(pooled))
    rows = iter(pooled.float().reshape(-1, pooled.shape[-1]).cpu().numpy())
    for span in chunk.spans:
        for at in range(span.rows * span.cols):
            grids[span.start + at] = (at // span.cols, at % span.cols, span.rows, span.cols)
            vectors[span.start + at] = next(rows)
    assert next(rows, None) is None, 'features without a place'
    return [Token(i, vector, frame, grid, at in chunk.markers)
            for at, (i, vector, grid) in enumerate(zip(ids, vectors, grids))]


def same_prediction(target, oracle, seed: int = 0) -> None:
    """Let a session and a reference that hold the same tokens read on; both predict the same."""
    ids = words(target.model, 9, seed)
    oracle.feed(text_tokens(target.model, ids))
    assert np.abs(target.logits(ids).numpy() - oracle.logits).max() < 2e-4


def _inside(spans, at: int) -> bool:
    return any(span.start <= at < span.start + span.rows * span.cols for span in spans)


@torch.no_grad()
def generate_plainly(plain, inputs, count: int, stops: list[int], most: int) -> list[int]:
    """Let Hugging Face generate greedily; the new ids."""
    inputs = dict(inputs)
    if closes(inputs):  # the newline would stand between stream and answer
        ids = inputs['input_ids'][:, :count]
        features = plain.model.get_video_features(
            inputs['pixel_values_videos'], return_dict=True).pooler_output[0, :-1]
        embeds = plain.get_input_embeddings()(ids)
        embeds[ids == plain.config.video_token_id] = features
        inputs, count = {'inputs_embeds': embeds}, 0
    return plain.generate(
        **inputs, max_new_tokens=most, do_sample=False, eos_token_id=stops)[0, count:].tolist()


class says:  # noqa: N801
    """Make a model utter given tokens, whatever it thinks; a context manager."""

    def __init__(self, model, tokens):
        self.head = model.model.get_output_embeddings()
        self.tokens = list(tokens)

    def __enter__(self):
        """Put the next token on top of every last row of logits."""
        self.hook = self.head.register_forward_hook(self.bend)

    def __exit__(self, *_):
        """Let the model think again."""
        self.hook.remove()

    def bend(self, _module, _args, logits):
        """Raise the next token's logit."""
        if self.tokens:
            logits = logits.clone()
            logits[..., -1, self.tokens.pop(0)] = 1e4
        return logits
