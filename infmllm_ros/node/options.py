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

"""Every parameter of the node, in one table: names, defaults, meanings, ranges."""

from __future__ import annotations

from dataclasses import fields

from infmllm_ros.engine import FlexPrefill, LAYOUTS, POLICIES
from infmllm_ros.images import MAX_PIXELS
from infmllm_ros.navigation import Rules
from infmllm_ros.node.option import LIVE, LOWER, Option, START
from infmllm_ros.node.questions import BUSY
from infmllm_ros.node.relief import DROP, MODES
from infmllm_ros.node.watchdog import ACTIONS, FAIL

PREFILLS = ('dense', FlexPrefill.name)
OPTIONS = (
    # The model.
    Option('model', '', 'Checkpoint: a folder in the Hugging Face format, or a name on the hub. '
           'There is no default: configure refuses an empty one.'),
    Option('device', 'auto', 'Where the model runs: cpu, cuda, cuda:1; auto takes a GPU where '
           'there is one.'),
    Option('dtype', 'auto', 'Number format of the weights and of the memory; auto takes the '
           "checkpoint's own, but float32 for float16 on a CPU.",
           choices=('auto', 'float32', 'bfloat16', 'float16')),
    Option('tokens_per_frame', 0, '[tokens] Most vision tokens that one frame may take, for '
           "models that allow a choice; 0 = the model's own default.", 0, 65536),
    Option('cuda_graphs', False, 'Whether passes of a shape that comes often are recorded as CUDA '
           'graphs and repeated, which spares Python launching them kernel by kernel; of a model '
           'on one GPU, with memory.layout fast. No GPU has run this yet, so it is off.'),
    Option('threads', 0, '[threads] CPU threads that the model may use; 0 = all cores.', 0, 1024),
    # The memory.
    Option('policy', 'saddle', 'Which tokens stay when the memory is full. The fields of each '
           'policy are the parameters that start with its name.', choices=tuple(POLICIES)),
    Option('budget_tokens', 4096, '[tokens] Most tokens that each layer keeps; 0 = as many '
           "as the model's context allows. configure ignores it when budget_mib is set.",
           0, 16777216, changes=LOWER),
    Option('budget_mib', 0, '[MiB] Size of all key and value buffers together; '
           '0 = budget_tokens counts.', 0, 1048576),
    Option('system_prompt', '', 'Text before everything else; it is never forgotten.'),
    Option('remember', False, 'Whether question and answer stay in the memory, as in a '
           'conversation; false puts the memory back as it was before the question.',
           changes=LIVE),
    Option('chunk_tokens', 256, '[tokens] Most of a text that enters the memory in one pass; '
           'room for it is kept beside the budget.', 1, 1048576),
    Option('prefill', 'dense', 'Whether a long chunk computes all of its attention or, with '
           'flex, the blocks that matter. flex needs chunk_tokens of flex.min_chunk or more, '
           'some thousands to be worth it; its fields are the parameters that start with flex.',
           choices=PREFILLS),
    # Questions and answers.
    Option('max_question_tokens', 256, '[tokens] Longest question; room for it is kept beside '
           'the budget.', 8, 65536),
    Option('max_answer_tokens', 256, '[tokens] Longest answer; room for it is kept beside the '
           'budget.', 1, 65536),
    Option('max_query_chars', 4000, '[characters] A question with more than this, its choices '
           'and schema counted, is refused before the model sees it.', 1, 1000000, changes=LIVE),
    Option('busy', 'queue', 'What becomes of a question that comes while another is answered. '
           'queue: it waits for its turn; newest: it waits, in the place of those that waited; '
           'interrupt: it ends the running answer, too; reject: it is refused as BUSY. Those that '
           'give way are answered as REPLACED.', choices=BUSY, changes=LIVE),
    Option('query_queue_size', 8, '[questions] How many may wait under busy: queue; a further '
           'one is refused as BUSY. As many texts to remember may wait.', 1, 1000, changes=LIVE),
    Option('temperature', 0.0, 'Randomness of the answers; 0.0 = always the likeliest token.',
           0.0, 5.0, changes=LIVE),
    Option('seed', 0, 'Seed of the randomness, the same for each answer.', 0, 2147483647,
           changes=LIVE),
    # The cameras.
    Option('cameras', ('',), 'Names of the cameras in answers, evidence, queries and prompt: '
           'letters, digits and underscores. One camera publishes on `image`, and its name may be '
           'empty; several on `<name>/image`, and each has parameters of its own, '
           '`<name>.image_transport`, `<name>.max_frame_rate`, `<name>.min_change` and '
           '`<name>.refresh`, which unless given are as those without a name.', changes=START),
    Option('image_transport', 'raw', 'raw subscribes to `image` as sensor_msgs/Image, compressed '
           'to `image/compressed` as sensor_msgs/CompressedImage. Remap `image` either way.',
           choices=('raw', 'compressed')),
    Option('max_frame_rate', 0.0, '[Hz] Most frames a second, by the wall clock, of one camera '
           'that the model looks at; 0.0 = as many as it can. A question always sees the newest '
           'frame.', 0.0, 1000.0, changes=LIVE),
    Option('min_change', 0.0, '[share] Least difference from the last frame that the model '
           'looked at: mean over a picture of 32 x 32 grey values; a frame with less is skipped, '
           'but seen by a question. 0.0 = none is. Small things in a large still picture make '
           'small differences.', 0.0, 1.0, changes=LIVE),
    Option('refresh', 10.0, '[s] A frame that comes so long after the last one that the model '
           'looked at is not skipped, whatever min_change says.', 0.0, 86400.0, changes=LIVE),
    Option('camera_label', '{camera} camera: ', 'With several cameras, text before each frame; '
           '{camera} is the name. Empty = none, for a model that was not trained with text there. '
           'Read by configure, its tokens count as those of the frame.'),
    Option('camera_question', 'In the {camera} camera: ', 'With several cameras, text before a '
           'question about one of them; empty = none.', changes=LIVE),
    Option('image_timeout', 5.0, '[s] Time without an image after which the node warns.',
           0.1, 3600.0, changes=LIVE),
    Option('missed_warning', 0.5, '[0..1] Share of the frames to look at, over 10 s, from which '
           'the node warns that the model is slower than the camera; 1.0 = never. Frames beyond '
           'max_frame_rate do not count.', 0.0, 1.0, changes=LIVE),
    Option('rewind', 'continue', 'What becomes of the memory when time goes back, as with a bag '
           'that loops: continue keeps it, reset clears it. Both are reported.',
           choices=('continue', 'reset'), changes=LIVE),
    Option('rewind_tolerance', 1.0, '[s] Image stamps, or the clock, that go back by no more than '
           'this are in disorder only.', 0.0, 3600.0, changes=LIVE),
    # Watches.
    Option('watches', '', 'YAML file of questions that the node asks by itself, each on a topic '
           'of its own; config/watches.yaml is an example. Empty = none.'),
    Option('watches_enabled', True, 'Whether they are asked.', changes=LIVE),
    Option('watches_guide', False, 'Whether their questions are the guidance text of the policy, '
           'in place of hermes.probe, or of saddle.probe when saddle.window is probe.'),
    # Faults.
    Option('max_image_pixels', MAX_PIXELS, '[pixels] A larger image is refused by what its header '
           'says, before anything of it is allocated.', 1, MAX_PIXELS, changes=LIVE),
    Option('on_out_of_memory', DROP, 'What becomes of a pass that needs more memory than there '
           'is. drop: the frame is left out, the question answered as FAILED; shrink: so, and the '
           'budget is lowered by a quarter, so that later passes need less.', choices=MODES,
           changes=LIVE),
    Option('shrink_floor', 0.25, '[0..1] Share of the budget that on_out_of_memory: shrink '
           'leaves in any case.', 0.01, 1.0, changes=LIVE),
    Option('watchdog_timeout', 60.0, '[s] Time without progress in one job of the model, such as '
           'a frame or the next piece of an answer, after which it counts as hung; loading may '
           'take any time. 0.0 = never.', 0.0, 86400.0, changes=LIVE),
    Option('watchdog_action', FAIL, 'What is done when the model hangs, beside an error in log '
           'and diagnostics. report: nothing; fail: all questions are answered as FAILED at once; '
           'reset: so, and another thread goes on with a new memory, the saved one if '
           'memory.restore is set; exit: so, and the process ends with status 75, for a '
           'supervisor to start it again.', choices=ACTIONS, changes=LIVE),
    # The node.
    Option('stats_period', 1.0, '[s] Time between two messages on `cache_stats`.', 0.02, 60.0),
    Option('autostart', False, 'Whether the node configures and activates itself, once, when '
           'it starts; false leaves that to a lifecycle manager. The launch file sets it.',
           changes=START),
)
_NAVIGATION = (
    Option('nav.enabled', False, 'Whether each question gets the navigation context: `path` '
           '(nav_msgs/Path) and `odom` (nav_msgs/Odometry) as points and maneuvers ahead. It '
           'takes some 150 tokens of max_question_tokens.'),
    Option('nav.spacing', Rules.spacing, '[m] Along the path from one point to the next, and the '
           'scale of the maneuvers; indoors some 0.5.', 0.01, 1000.0),
    Option('nav.points', Rules.points, '[points] How many of them; fewer where the path ends.',
           1, 100),
    Option('nav.keep', Rules.keep, '[degrees] A maneuver is where the path turns by this or more '
           'within one spacing; below nav.turn in all it is a keep left or right.', 1.0, 180.0),
    Option('nav.turn', Rules.turn, '[degrees] Least change of heading in a turn left or right.',
           1.0, 180.0),
    Option('nav.u_turn', Rules.u_turn, '[degrees] Least change of heading in a U-turn.',
           1.0, 180.0),
    Option('nav.max_offset', Rules.max_offset, '[m] Distance of the robot from the path beyond '
           'which the path is left out; indoors some 1.0.', 0.01, 10000.0),
    Option('nav.timeout', 2.0, '[s] Oldest odometry, and transform, to use, by stamp and the '
           "node's clock.", 0.01, 3600.0),
    Option('nav.path_timeout', 10.0, '[s] Oldest path to use; 0.0 = it holds until the next one '
           'comes, for a path that is published once.', 0.0, 86400.0),
    Option('nav.period', 0.5, '[s] Time between two messages on `maneuver`.', 0.02, 60.0),
)
_MEMORY = (
    Option('memory.layout', 'fast', 'How keys and values lie in memory. fast: rotated keys are at '
           'hand; lean: they are rotated in every pass, the same answers in two thirds of the '
           'memory; fused: as lean, on a GPU with Triton by one kernel that no GPU has run yet; '
           'int8: they are rounded to bytes, too, in about a third.',
           choices=tuple(LAYOUTS)),
    Option('memory.folder', '', 'Where saved memories lie; it is made when one is saved. '
           "Empty = infmllm in ROS's own folder, ROS_HOME or ~/.ros."),
    Option('memory.file', 'memory.safetensors', 'Name in memory.folder of the memory that is '
           'saved by itself and restored, and of the services when they name none.'),
    Option('memory.anywhere', False, 'Whether the services take paths outside memory.folder.'),
    Option('memory.restore', False, 'Whether configure puts the saved memory in place; without a '
           'file the memory starts empty, and so it does, with an error that says why, if the '
           'file is not one of this model, policy and system prompt.'),
    Option('memory.autosave_period', 0.0, '[s] Time between two saves, by the wall clock, if '
           'something new was seen or told; 0.0 = only on request.', 0.0, 86400.0),
    Option('memory.picture_period', 1.0, '[s] Least time between two pictures on '
           '`memory_image`; none is drawn unless someone subscribes.', 0.05, 60.0),
    Option('memory.thumbnails', 512, '[pictures] Most thumbnails of retained frames to keep, '
           'some 2 kB each at 64 pixels; beyond, frames go of which the fewest tokens are left. '
           '0 = none.', 0, 65536),
    Option('memory.thumbnail_size', 64, '[pixels] Longest side of a thumbnail.', 16, 512),
)


GROUPS: dict[str, type] = {**POLICIES, FlexPrefill.name: FlexPrefill}


def group_options() -> tuple[Option, ...]:
    """List the fields of every policy, and of flex, as parameters ``<group>.<field>``."""
    return tuple(
        Option(f'{name}.{f.name}', f.default, f.metadata['doc'][:1].upper()
               + f.metadata['doc'][1:] + '.', f.metadata['low'], f.metadata['high'],
               tuple(f.metadata['choices'] or ()))
        for name, group in GROUPS.items() for f in fields(group) if f.name != 'budget')


TABLE: dict[str, Option] = {
    o.name: o for o in (*OPTIONS, *_NAVIGATION, *_MEMORY, *group_options())}
PARTS = {'nav': 'Navigation context: where the path leads, told with each question.',
         'memory': 'The memory as a file and as a picture.',
         **{name: (f'{"Policy" if name in POLICIES else "Prefill"} {name}: '
                   f'{(group.__doc__ or "").strip().splitlines()[0]}')
            for name, group in GROUPS.items()}}
"""What the parameters are about that start with a name and a dot."""


def options_of(part: str) -> list[Option]:
    """List the parameters of one of `PARTS`."""
    return [option for option in TABLE.values() if option.name.startswith(f'{part}.')]
