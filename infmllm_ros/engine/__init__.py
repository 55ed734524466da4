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

"""The bounded-memory multimodal LLM, without ROS."""

from .answer import Answer, Evidence, Frame, Stats
from .asking import Asking
from .budget import check_budget
from .errors import (
    BudgetError,
    ContextFull,
    EngineError,
    FrameError,
    MemoryFileError,
    ModelError,
    NotFiniteError,
    PolicyError,
    QuestionError,
    QuestionTooLong,
    TextError,
)
from .holdings import Holding, holdings
from .layouts import LAYOUTS
from .models import inspect_model, load_model, ModelSpec, StreamingModel
from .policies import make_policy, POLICIES
from .prefill import FlexPrefill
from .retention import fit_budget
from .schema import Schema
from .session import StreamingSession

__all__ = [
    'Answer', 'Asking', 'BudgetError', 'check_budget', 'ContextFull', 'EngineError', 'Evidence',
    'fit_budget', 'FlexPrefill', 'Frame', 'FrameError', 'Holding', 'holdings', 'inspect_model',
    'LAYOUTS', 'load_model', 'make_policy', 'MemoryFileError', 'ModelError', 'ModelSpec',
    'NotFiniteError', 'POLICIES', 'PolicyError', 'QuestionError', 'QuestionTooLong', 'Schema',
    'Stats', 'StreamingModel', 'StreamingSession', 'TextError']
