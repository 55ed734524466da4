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
A small byte-level Llama, trained on the spot: what `perplexity.py` streams a book through.

The model is Hugging Face's own `LlamaForCausalLM`, written as an ordinary folder, so that the
engine loads it like any other checkpoint. Its tokens are bytes: token id = byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import json
import math
from pathlib import Path
from time import process_time

import numpy as np
from tokenizers import decoders, pre_tokenizers, Tokenizer
from tokenizers.models import BPE
import torch
import transformers

SHAPE = {
    'hidden_size': 192,
    'intermediate_size': 512,
    'num_hidden_layers': 3,
    'num_attention_heads': 6,
    'num_key_value_heads': 2,
}
CONTEXT = 1024              # positions the model may be asked for
LENGTH, BATCH = 768, 4      # bytes of a training example, examples of a step
PEAK, WARM_UP = 3e-3, 100   # learning rate, and steps until it is reached
EVERY = 100                 # steps between two checkpoints


def split(text: bytes, passages: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Hold passages out of a text, evenly spread over it, each from the start of a line.

    Parameters
    ----------
    text : bytes
    passages, size : int
        How many are held out, and the bytes of each.

    Returns
    -------
    tuple of torch.Tensor
        The bytes to train on, uint8 [n], and those held out, uint8 [passages, size].

    Raises
    ------
    ValueError
        If the text is shorter than eight times what is to be held out.
    """
    if len(text) < 8 * passages * size:
        raise ValueError(f'the text has {len(text)} bytes, needs {8 * passages * size} to hold '
                         f'{passages} passages of {size} out: give more files to --text')
    whole = np.frombuffer(text, np.uint8)
    stays, held = np.ones(len(whole), bool), []
    for number in range(passages):
        start = (2 * number + 1) * len(whole) // (2 * passages) - size
        line = text.find(b'\n', start, start + size)
        start = start if line < 0 else line + 1
        held.append(whole[start:start + size])
        stays[start:start + size] = False
    return torch.from_numpy(whole[stays]), torch.from_numpy(np.stack(held))


def shuffle(windows: int, passages: int, seed: int) -> np.ndarray:
    """
    Order the passages of each window: int64 [windows, passages].

    The first half of the passages stays in the first half of every window, so that at least
    `passages` // 2 others lie between a passage and its return.
    """
    draw, half = np.random.default_rng(seed), passages // 2
    return np.stack([
        np.concatenate((draw.permutation(half), half + draw.permutation(passages - half)))
        for _ in range(windows)])


def write(folder: Path, seed: int = 0, **changes: int) -> Path:
    """
    Write an untrained model as a Hugging Face folder.

    Parameters
    ----------
    folder : Path
        Made if missing.
    seed : int
        Of the weights.
    **changes
        Fields of the config that replace those of `SHAPE`.

    Returns
    -------
    Path
        The folder.
    """
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]   # how GPT-2 spells bytes
    hidden = [byte for byte in range(256) if byte not in shown]
    spelling = {chr(byte): byte for byte in shown}
    spelling |= {chr(256 + place): byte for place, byte in enumerate(hidden)}
    backend = Tokenizer(BPE(spelling, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    config = transformers.LlamaConfig(**{
        'vocab_size': 256, 'max_position_embeddings': CONTEXT, 'bos_token_id': None,
        'eos_token_id': None, **SHAPE, **changes})
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def rate(step: int, steps: int) -> float:
    """Give the learning rate of a step: a linear rise, then half a cosine down to a twentieth."""
    rise = min(1.0, (step + 1) / WARM_UP)
    return PEAK * rise * (0.525 + 0.475 * math.cos(math.pi * step / steps))


def train(folder: Path, ids: torch.Tensor, steps: int, seed: int = 0,
          say: Callable[[str], None] = print) -> dict:
    """
    Train a model, or go on where an interrupted training stood.

    Parameters
    ----------
    folder : Path
        Where the finished model is written; ``training.pt`` beside it holds the last checkpoint.
    ids : torch.Tensor
        uint8 [n]: the text.
    steps : int
        Of `BATCH` examples, each `LENGTH` bytes from a random place.
    seed : int
        Of weights and examples; each step draws from its own generator, so a resumed training
        sees what an uninterrupted one would.
    say : callable
        Takes lines of progress.

    Returns
    -------
    dict
        What was trained: parameters, steps, tokens, seconds of processor time, last loss.
    """
    done, checkpoint = folder / 'training.json', folder / 'training.pt'
    if done.is_file():
        return json.loads(done.read_text())
    write(folder, seed)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    first, spent, smooth = 0, 0.0, None
    if checkpoint.is_file():
        kept = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(kept['model'])
        optimizer.load_state_dict(kept['optimizer'])
        first, spent, smooth = kept['step'], kept['seconds'], kept['loss']
    began = process_time() - spent
    for step in range(first, steps):
        optimizer.param_groups[0]['lr'] = rate(step, steps)
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        start = torch.randint(len(ids) - LENGTH, (BATCH, 1), generator=draw)
        batch = ids[start + torch.arange(LENGTH)].long()
        with torch.autocast('cpu', torch.bfloat16):
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if (step + 1) % EVERY == 0:
            say(f'step {step + 1} of {steps}: {smooth:.4f} nats a byte, '
                f'{process_time() - began:.0f} s of processor time')
            torch.save({'model': model.state_dict(), 'optimizer': optimizer.state_dict(),
                        'step': step + 1, 'seconds': process_time() - began, 'loss': smooth},
                       checkpoint)
    model.eval().save_pretrained(folder)
    report = {
        'parameters': model.num_parameters(), 'shape': SHAPE, 'context': CONTEXT, 'seed': seed,
        'steps': steps, 'batch': BATCH, 'length': LENGTH, 'tokens': steps * BATCH * LENGTH,
        'seconds': round(process_time() - began), 'nats_a_byte': round(smooth, 4)}
    done.write_text(json.dumps(report, indent=2) + '\n')
    return report


def read(files: Sequence[str | Path]) -> bytes:
    """Read text files, one after the other."""
    return b''.join(Path(file).read_bytes() for file in files)
