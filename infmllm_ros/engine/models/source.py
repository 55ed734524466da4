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

"""Where a checkpoint's files come from: a folder, read offline, or the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
import torch
import transformers
from transformers.utils import cached_file, logging

from ..errors import ModelError

# What files, network and formats throw when they are not as they should be.
READ_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)


def first_line(error: BaseException) -> str:
    """Shorten an error to one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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


class Source:
    """
    One checkpoint's files.

    Parameters
    ----------
    name : str or path
        A folder, or a name on the hub.

    Attributes
    ----------
    path : str
        Folder or hub name, as ``from_pretrained`` takes it.
    options : dict
        Keyword arguments for ``from_pretrained``: a folder never asks the network.

    Raises
    ------
    ModelError
        If the name is a path, by its look, and there is no such folder.
    """

    def __init__(self, name: str | Path) -> None:
        self.name = str(name)
        folder = Path(self.name).expanduser()
        self.local = folder.is_dir()
        self.path = str(folder) if self.local else self.name
        self.options = {'local_files_only': self.local}
        looks_local = isinstance(name, Path) or self.name.startswith(('/', '.', '~'))
        if not self.local and (looks_local or self.name.count('/') > 1 or not self.name):
            raise ModelError(
                f'there is no folder {self.name!r}: give the folder of a Hugging Face checkpoint '
                'or a hub name such as Qwen/Qwen3-VL-2B-Instruct'
            )

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
        except READ_ERRORS as error:
            remedy = 'check that the folder is complete'
            if not self.local:
                remedy = (
                    'check its spelling on huggingface.co, the network, and for gated models '
                    '`hf auth login`; or give a local folder'
                )
            raise ModelError(
                f'cannot {doing} of {self.name!r} ({first_line(error)}): {remedy}'
            ) from error

    def file(self, filename: str) -> str | None:
        """Find one file of the checkpoint; None if it has none of that name."""
        return cached_file(
            self.path,
            filename,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **self.options,
        )

    def json(self, filename: str) -> dict[str, Any]:
        """Read one JSON file of the checkpoint; {} if it has none of that name."""
        found = self.file(filename)
        if not found:
            return {}
        with self.errors_as_model_error(f'read {filename}'):
            return json.loads(Path(found).read_text(encoding='utf-8'))

    def config_dict(self) -> dict[str, Any]:
        """Read config.json as it is: it may name a family that transformers does not know."""
        with self.errors_as_model_error('read config.json'):
            if self.local and not os.path.isfile(os.path.join(self.path, 'config.json')):
                raise FileNotFoundError('the folder has no such file')
            return transformers.PreTrainedConfig.get_config_dict(self.path, **self.options)[0]

    def tokenizer(self, sees: bool) -> Any:
        """Load the tokenizer; for models that see, with the chat template of the processor."""
        names = ('tokenizer.json', 'tokenizer.model', 'vocab.json')
        if not any(self.file(name) for name in names):
            raise ModelError(
                f'{self.name!r} has no tokenizer ({", ".join(names)}): copy the tokenizer files '
                'of the checkpoint into it'
            )
        with self.errors_as_model_error('load the tokenizer'):
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, **self.options)
        if sees and not self.file('chat_template.jinja'):
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
