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
Scenes that the package renders itself, with questions whose answers are known.

``Episode('drive', seed)`` and ``Episode('bench', seed)`` are endless: each step gives a frame and
its truth; ``episode.ask()`` gives a question with its answer and the frames that carry it. They
need numpy only. ``python -m infmllm_ros.bundled.scenes OUT.png`` draws a sheet of them.
"""

from infmllm_ros.bundled.scenes.episode import Episode, KINDS
from infmllm_ros.bundled.scenes.step import Question, Step, Told
from infmllm_ros.bundled.scenes.words import KEYS, NONE, TOPICS, VOCABULARY
from infmllm_ros.bundled.scenes.world import Event, Fact, Ref

__all__ = [
    'Episode', 'Event', 'Fact', 'KEYS', 'KINDS', 'NONE', 'Question', 'Ref', 'Step', 'TOPICS',
    'Told', 'VOCABULARY',
]
