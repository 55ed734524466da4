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

"""Text-only families: every decoder whose attention passes the examination."""

from __future__ import annotations

from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .base import Adapter
from ..errors import ModelError
from ..features import Features


class Text(Adapter):
    """
    A language model without eyes: `tell` and `ask` only.

    Any family of transformers that writes text may try: `examine` refuses those whose attention a
    bounded memory would change. Nothing here depends on which it is.
    """

    model_types = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    sees = False

    def configure(self, settings: dict[str, Any], tokens_per_frame: int | None) -> int:
        """Take no vision tokens; ModelError if some are asked for."""
        if tokens_per_frame is not None:
            raise ModelError(
                f'tokens_per_frame is {tokens_per_frame}, but a {self.config.model_type} model '
                'reads text only: leave it unset, or load a vision-language model'
            )
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
