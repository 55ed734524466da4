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

"""Text-only families, with full, sliding and linear attention and with convolutions."""

from __future__ import annotations

from typing import Any

from .base import Adapter
from ..errors import ModelError
from ..features import Features


class Text(Adapter):
    """A language model without eyes: `tell` and `ask` only."""

    model_types = ('llama', 'mistral', 'qwen2', 'qwen3', 'gemma3_text', 'lfm2', 'qwen3_next',
                   'qwen3_5_text')
    sees = False

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Take no vision tokens."""
        return 0

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Refuse: raise ModelError."""
        raise ModelError(
            f'a {self.config.model_type} model reads text only and cannot observe images: '
            'load a vision-language model'
        )

    def pixels(self, image: Any) -> dict[str, Any]:
        """Refuse: raise ModelError."""
        self.grid(0, 0)

    def look(self, model: Any, pixels: dict[str, Any]) -> Features:
        """Refuse: raise ModelError."""
        self.grid(0, 0)
