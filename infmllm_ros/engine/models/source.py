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

"""Where a checkpoint's files come from: a folder, or the Hugging Face hub and its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
import torch
import transformers
from transformers.utils import logging

from ..errors import ModelError

SMALL_FILES = ['*.json', '*.jinja', '*.model', '*.txt']
WEIGHTS = ['model*.safetensors']
# Relatives of supported families, and why they are not.
UNSUPPORTED = {
    'gemma3n': 'its vision tower is a timm model; its language model alone, gemma3n_text, works',
    'minicpmv4_7': 'it lays its views out on a canvas, unlike MiniCPM-V 4.6',
}
TOKENIZERS = ('tokenizer.json', 'tokenizer.model', 'vocab.json')


def first_line(error: BaseException) -> str:
    """Shorten an error to one line: some of transformers list all models that there are."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 300 else f'{line[:300]}...'


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the progress bars of transformers, which would tear a log apart."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def spoken(say: Callable[[str], None]) -> Iterator[None]:
    """Turn the progress bar of the weights into a line of text per tenth of them."""
    def hook(bar: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        weights = kwargs.get('desc') == 'Loading weights'
        return counted(args[0]) if weights else bar(*args, **kwargs)

    def counted(steps: Any) -> Iterator[Any]:
        tenth = 0
        for number, step in enumerate(steps, 1):
            yield step
            if 10 * number // len(steps) > tenth:
                tenth = 10 * number // len(steps)
                say(f'loading weights: {10 * tenth} %')

    before = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


class Source:
    """
    One checkpoint's files.

    A folder is read as it is. A name on the hub is downloaded once, first all but the weights;
    what is in the cache is used without asking the network, because a robot must start without
    one, and with the same model each time.

    Parameters
    ----------
    name : str or path
        A folder, or a name on the hub.

    Attributes
    ----------
    folder : pathlib.Path
        Where the files are.

    Raises
    ------
    ModelError
        If there is no such folder or name.
    """

    def __init__(self, name: str | Path) -> None:
        self.name = str(name)
        self.folder = Path(self.name).expanduser()
        self.local = bool(self.name) and self.folder.is_dir()
        if self.local:
            return
        looks_local = isinstance(name, Path) or self.name.startswith(('/', '.', '~'))
        if looks_local or self.name.count('/') > 1 or not self.name:
            raise ModelError(
                f'there is no folder {self.name!r}: give the folder of a Hugging Face checkpoint '
                'or a hub name such as Qwen/Qwen3-VL-2B-Instruct'
            )
        self.folder = self._download(
            SMALL_FILES, lambda folder: any((folder / name).is_file() for name in TOKENIZERS)
        )

    def fetch_weights(self) -> None:
        """Download the weights if they are not there yet; ModelError if a shard is missing."""
        if not self.local:
            self._download(WEIGHTS, self._has_weights)
        shards = self._shards()
        missing = sorted(name for name in shards if not (self.folder / name).is_file())
        if missing:
            with self.errors_as_model_error('load the weights of'):
                raise FileNotFoundError(
                    f'{missing[0]} is missing, {len(missing)} of {len(shards)} weight files')

    @contextmanager
    def errors_as_model_error(self, doing: str) -> Iterator[None]:
        """Turn what goes wrong in files, network and formats into one line."""
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            raise ModelError(
                f'{self.name!r} does not fit into the memory of the device: use a smaller model, '
                "or device 'cpu'"
            ) from error
        except ModelError:
            raise
        except Exception as error:      # wrong values in its files surface anywhere
            remedy = 'check that the folder is a complete Hugging Face checkpoint'
            if not self.local:
                remedy = (
                    'check the name on huggingface.co, the network, and for gated models '
                    '`hf auth login`; or give a local folder'
                )
            why = first_line(error)
            raise ModelError(f'cannot {doing} {self.name!r} ({why}): {remedy}') from error

    def json(self, filename: str) -> dict[str, Any]:
        """Read one JSON file of the checkpoint; {} if it has none of that name."""
        path = self.folder / filename
        if not path.is_file():
            return {}
        with self.errors_as_model_error(f'read {filename} of'):
            found = json.loads(path.read_text(encoding='utf-8'))
            if not isinstance(found, dict):
                raise ValueError(f'it is a {type(found).__name__}, must be an object')
            return found

    def unsupported(self, model_type: Any, families: Mapping[str, Any], why: str = '',
                    ) -> ModelError:
        """Say that a family is not supported, why if it is known, and which to use."""
        sighted = ', '.join(sorted(name for name in families if families[name].sees))
        return ModelError(
            f'{self.name!r} is of model_type {model_type!r}, which is not supported{why}: use one '
            f'of {sighted}, or a text decoder with rotary positions such as llama or qwen3'
        )

    def config(self, families: Mapping[str, Any]) -> Any:
        """Load the config; ModelError if the family is none of `families`."""
        with self.errors_as_model_error('read config.json of'):
            if not (self.folder / 'config.json').is_file():
                raise FileNotFoundError('no such file')
        # Looked up first: transformers has a long complaint about families it does not know.
        model_type = self.json('config.json').get('model_type')
        why = UNSUPPORTED.get(model_type)
        if why or model_type not in families:
            raise self.unsupported(model_type, families, f' ({why})' if why else '')
        with self.errors_as_model_error('read config.json of'):
            return transformers.AutoConfig.from_pretrained(self.folder, local_files_only=True)

    def tokenizer(self, sees: bool) -> Any:
        """Load the tokenizer; for models that see, with the chat template of the processor."""
        if not any((self.folder / name).is_file() for name in TOKENIZERS):
            raise ModelError(
                f'{self.name!r} has no tokenizer ({", ".join(TOKENIZERS)}): copy the tokenizer '
                'files of the checkpoint into it'
            )
        with self.errors_as_model_error('load the tokenizer of'):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                self.folder, local_files_only=True
            )
        if sees and not (self.folder / 'chat_template.jinja').is_file():
            # Older checkpoints keep the template that shows images beside the tokenizer.
            own = self.json('chat_template.json').get('chat_template')
            tokenizer.chat_template = own or tokenizer.chat_template
        return tokenizer

    def image_settings(self) -> dict[str, Any]:
        """Read the image processor's settings, wherever this checkpoint keeps them."""
        settings = self.json('preprocessor_config.json')
        return settings or self.json('processor_config.json').get('image_processor') or {}

    def stop_ids(self, config: Any) -> set[int]:
        """Collect the ids that end an answer, from generation_config.json and the config."""
        found: set[int] = set()
        text = config.get_text_config(decoder=True)
        for ids in (self.json('generation_config.json').get('eos_token_id'), text.eos_token_id):
            found.update(ids if isinstance(ids, (list, tuple)) else [] if ids is None else [ids])
        return found

    def _shards(self) -> set[str]:
        """Name the weight files; none where they are not cut into shards."""
        return {*self.json('model.safetensors.index.json').get('weight_map', {}).values()}

    def _has_weights(self, folder: Path) -> bool:
        """Tell whether all shards are there."""
        return all((folder / name).is_file() for name in self._shards() or {'model.safetensors'})

    def _download(self, patterns: list[str], whole: Callable[[Path], bool]) -> Path:
        """Give the folder in the hub's cache; download what is missing."""
        try:
            folder = snapshot_download(self.name, allow_patterns=patterns, local_files_only=True)
            if whole(Path(folder)):
                return Path(folder)
        except (OSError, ValueError):
            pass  # not in the cache, or not a name at all: the hub will say which
        with self.errors_as_model_error('get'):
            return Path(snapshot_download(self.name, allow_patterns=patterns))
