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

"""What can go wrong for a user of the engine; each message is one line: value, limit, remedy."""


class EngineError(Exception):
    """Base of every error that the engine raises on purpose."""


class ModelError(EngineError, ValueError):
    """The model cannot be found, loaded or supported, or cannot do what was asked of it."""


class PolicyError(EngineError, ValueError):
    """An unknown policy or way to prefill, an unknown field of one, or a value out of range."""


class BudgetError(EngineError, ValueError):
    """The budget cannot hold what every moment of a stream needs."""


class FrameError(EngineError, ValueError):
    """An image that is not uint8 [height, width, 3]."""


class TextError(EngineError, ValueError):
    """Neither text nor token ids of the model."""


class QuestionError(EngineError, ValueError):
    """A question that is empty, or answer settings out of range."""


class QuestionTooLong(QuestionError):
    """A question with more tokens than the session keeps room for."""


class ContextFull(EngineError, RuntimeError):
    """The `full` policy has reached its budget; the memory is untouched."""


class NotFiniteError(EngineError, ArithmeticError):
    """The model computed NaN or infinity; the memory is as it was, without what led to that."""


class MemoryFileError(EngineError, ValueError):
    """A saved memory that is torn, or was made by another model or policy."""
