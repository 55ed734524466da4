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

"""From a folder or a hub name to a model: first what needs no weights, then the weights."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.distributed import DistributedConfig

from .base import Adapter
from .examine import examine
from .gemma import Gemma4
from .lfm2_vl import Lfm2VL
from .lfm3_vl import Lfm3VL
from .minicpm_v import MiniCPMV
from .packed import pack
from .qwen_vl import Qwen3VL, QwenVL
from .smolvlm import Idefics3, SmolVLM
from .source import first_line, quiet, Source, spoken
from .square import Gemma3, InternVL, LlavaOnevision
from .text import Text
from ..errors import ModelError
from ..layers import layer_specs
from ..parallel import check_heads, entrance
from ..rope import RopeMap

ADAPTERS: dict[str, type[Adapter]] = {
    model_type: adapter
    for adapter in (        # Text first: some of its families see, too, and have an adapter
        Text, LlavaOnevision, QwenVL, Qwen3VL, SmolVLM, Idefics3, InternVL, Gemma3, Lfm2VL, Lfm3VL,
        MiniCPMV, Gemma4)
    for model_type in adapter.model_types
}
# Options of transformers that say where weights go.
PLACES = ('device_map', 'distributed_config')


@dataclass(eq=False)
class ModelSpec:
    """
    All that is known of a model without its weights.

    Attributes
    ----------
    name : str
        As the user gave it.
    source : str
        Folder that it is read from: the one given, or one in the hub's cache.
    config : transformers.PreTrainedConfig
        Of the whole model.
    tokenizer : transformers.PreTrainedTokenizerBase
        With the chat template of the checkpoint.
    adapter : Adapter
        The family's way from frames and prompts to tokens.
    """

    name: str
    source: str
    config: Any
    tokenizer: Any
    adapter: Adapter

    @property
    def context_limit(self) -> int:
        """Positions that the language model was trained for, and rotates alone."""
        text = self.config.get_text_config(decoder=True)
        rope = getattr(text, 'rope_parameters', None) or {}
        if 'llama_4_scaling_beta' in rope:      # Ministral 3 stretches queries beyond this length
            return rope['original_max_position_embeddings']
        return text.max_position_embeddings

    @property
    def auto(self) -> type:
        """Give the class of transformers that loads it."""
        return (transformers.AutoModelForImageTextToText if self.adapter.sees
                else transformers.AutoModelForCausalLM)

    def count_parameters(self) -> int:
        """Count the weights, tied ones once."""
        with torch.device('meta'), quiet():     # the shapes alone
            model = self.auto.from_config(deepcopy(self.config))
        return sum(weight.numel() for weight in model.parameters())


@dataclass(eq=False)
class StreamingModel:
    """
    A loaded model, ready for sessions.

    Attributes
    ----------
    spec : ModelSpec
        What it was loaded from.
    model : transformers.PreTrainedModel
        The unmodified Hugging Face model, in evaluation mode, without gradients; on some CPUs
        with packed weights, see `load_model`.
    device : torch.device
        Where it takes tokens in; its layers may lie on others.
    dtype : torch.dtype
        Of the weights.
    rope : RopeMap or None
        Rotations of its layers, found by the first session.
    """

    spec: ModelSpec
    model: Any
    device: torch.device
    dtype: torch.dtype
    rope: RopeMap | None = None

    @property
    def tokenizer(self) -> Any:
        """Give the checkpoint's tokenizer."""
        return self.spec.tokenizer

    @property
    def adapter(self) -> Adapter:
        """Give the family's way from frames and prompts to tokens."""
        return self.spec.adapter

    @property
    def config(self) -> Any:
        """Give the config of the whole model."""
        return self.spec.config


def inspect_model(name: str | Path, *, tokens_per_frame: int | None = None) -> ModelSpec:
    """
    Read a checkpoint's config, tokenizer and image settings, not its weights.

    Parameters
    ----------
    name : str or path
        A folder in Hugging Face format, read offline, or a name on the Hugging Face hub.
    tokens_per_frame : int, optional
        The most vision tokens a frame may take, where the family lets one choose.

    Returns
    -------
    ModelSpec
        For `load_model`, and for checking a budget before the weights are loaded.

    Raises
    ------
    ModelError
        Unknown folder or name, a family or attention that cannot be streamed (see `examine`), no
        tokenizer, impossible tokens_per_frame.
    """
    source = Source(name)
    with source.errors_as_model_error('read the settings of'):
        config, adapter_class = _family(source)
        tokenizer = source.tokenizer(sees=adapter_class.sees)
        adapter = adapter_class(
            config,
            tokenizer,
            source.image_settings() if adapter_class.sees else {},
            source.stop_ids(config),
            tokens_per_frame,
        )
    return ModelSpec(str(name), str(source.folder), config, tokenizer, adapter)


def _family(source: Source) -> tuple[Any, type[Adapter]]:
    """Read the config and find the adapter; ModelError if there is none, or `examine` refuses."""
    config = source.config(ADAPTERS)
    adapter, text = ADAPTERS[config.model_type], config.get_text_config(decoder=True)
    try:
        if not adapter.sees and text is not config:
            raise ModelError('nothing here prepares what it reads beside text')
        examine(text, adapter.spatial)
    except ModelError as error:
        raise source.unsupported(config.model_type, ADAPTERS, f' ({error})') from error
    return config, adapter


def load_model(
    name_or_spec: str | Path | ModelSpec,
    device: str | torch.device = 'auto',
    dtype: str | torch.dtype = 'auto',
    tokens_per_frame: int | None = None,
    progress: Callable[[str], None] | None = None,
    packed: bool = True,
    **options: Any,
) -> StreamingModel:
    """
    Load a model's weights.

    Parameters
    ----------
    name_or_spec : str, path or ModelSpec
        A folder, a hub name, or what `inspect_model` gave.
    device : str or torch.device
        'auto': the GPU if there is one.
    dtype : str or torch.dtype
        'auto': the checkpoint's, see `pick_dtype`.
    tokens_per_frame : int, optional
        As for `inspect_model`; not used with a ModelSpec, which has it already.
    progress : callable, optional
        Called with one line of text when a step begins, and for each tenth of the weights.
    packed : bool
        Whether a CPU's weights may be laid out for its speed, see `pack`; the model then computes
        as ever, but cannot be trained, copied, moved or saved.
    options
        Handed to ``from_pretrained`` of transformers: ``device_map`` (layers over several
        devices), ``tp_plan='auto'`` or ``distributed_config`` (heads over the processes of
        torchrun), ``quantization_config`` (bitsandbytes, torchao and others, where they are
        installed). Each needs the package accelerate, and places the weights instead of `device`.

    Returns
    -------
    StreamingModel
        In evaluation mode, without gradients.

    Raises
    ------
    ModelError
        As `inspect_model`, and for missing or broken weights, an unknown device or dtype, a
        model that the device cannot hold, and one that cannot be split over processes.
    """
    say = progress or (lambda line: None)
    spec = name_or_spec
    if not isinstance(spec, ModelSpec):
        say(f'reading config and tokenizer of {spec}')
        spec = inspect_model(spec, tokens_per_frame=tokens_per_frame)
    device = pick_device(device)
    dtype = pick_dtype(spec.config, dtype, device)
    source = Source(spec.name)
    say(f'loading weights of {spec.name} as {str(dtype).removeprefix("torch.")} onto {device}')
    source.fetch_weights()
    if options.get('quantization_config') or getattr(spec.config, 'quantization_config', None):
        options.setdefault('device_map', {'': device})      # quantised weights cannot be moved
    if plan := options.pop('tp_plan', None):
        options['distributed_config'] = DistributedConfig(tp_plan=plan)
    processes = getattr(options.get('distributed_config'), 'tp_size', None) or 1
    check_heads(layer_specs(spec.config.get_text_config(decoder=True)), processes)
    placed = any(options.get(name) is not None for name in PLACES)
    with source.errors_as_model_error('load the weights of'), quiet(), spoken(say):
        model, report = spec.auto.from_pretrained(
            spec.source,
            config=spec.config,
            dtype=dtype,
            output_loading_info=True,
            local_files_only=True,
            **options,
        )
        if not placed:
            model = model.to(device)
    if report['missing_keys']:
        missing = sorted(report['missing_keys'])
        raise ModelError(
            f'the weights of {spec.name!r} are not whole ({len(missing)} missing, the first is '
            f'{missing[0]}): download the checkpoint again'
        )
    if processes > 1 and not any(
            hasattr(weight, 'to_local') for weight in model.get_decoder().parameters()):
        raise ModelError(
            f'transformers has no plan to split {spec.config.model_type} over {processes} '
            'processes: give one by distributed_config, or lay its layers on several devices by '
            'device_map')
    model.eval().requires_grad_(False)
    if packed and not placed:
        pack(model)
    return StreamingModel(spec, model, entrance(model), dtype)


def pick_device(device: str | torch.device = 'auto') -> torch.device:
    """Choose where to compute: 'auto' is the GPU if there is one; ModelError if unusable."""
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device {str(device)!r} cannot be used ({first_line(error)}): use 'auto' or 'cpu'"
        ) from error
    return chosen


def pick_dtype(
    config: Any, dtype: str | torch.dtype = 'auto', device: torch.device | None = None
) -> torch.dtype:
    """
    Choose the type of the weights, which is also that of keys and values.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Of the checkpoint.
    dtype : str or torch.dtype
        'auto', or 'float32', 'bfloat16', 'float16'.
    device : torch.device, optional
        Where the model is to run.

    Returns
    -------
    torch.dtype
        With 'auto' the checkpoint's own, except float16 on a CPU: that becomes float32.

    Raises
    ------
    ModelError
        If there is no such type.
    """
    if dtype == 'auto':
        own = config.dtype or config.get_text_config(decoder=True).dtype or torch.float32
        own = getattr(torch, own) if isinstance(own, str) else own
        # CPUs have no float16 arithmetic worth the name: attention is ten times slower than in
        # float32, which holds every float16 weight exactly (bfloat16 would round them).
        on_cpu = device is not None and device.type == 'cpu'
        return torch.float32 if own == torch.float16 and on_cpu else own
    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.bfloat16, torch.float16):
        raise ModelError(f"dtype is {dtype!r}: use 'auto', 'float32', 'bfloat16' or 'float16'")
    return chosen
