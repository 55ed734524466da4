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
Every parameter of the node, in one table.

The table is the only source of the descriptors, of the checks, of the settings that the rest of
the node reads, and of ``config/infmllm.yaml``, which ``python -m infmllm_ros.node.parameters``
prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field, fields, make_dataclass, replace
from difflib import get_close_matches
import re
import textwrap
from typing import Any

from infmllm_ros.engine import FlexPrefill, POLICIES
from infmllm_ros.navigation import Rules
from infmllm_ros.node.option import (
    CHANGES,
    CONFIGURE,
    LIVE,
    LOWER,
    Option,
    ParameterError,
    START,
    yaml_text,
)
from infmllm_ros.node.questions import BUSY

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


Settings = make_dataclass(
    'Settings',
    [*((o.name, type(o.default), o.default) for o in OPTIONS),
     ('labels', dict, field(default_factory=dict)),
     ('nav_fields', dict, field(default_factory=dict)),
     ('memory_fields', dict, field(default_factory=dict)),
     ('policy_fields', dict, field(default_factory=dict)),
     ('flex_fields', dict, field(default_factory=dict))],
    frozen=True)
Settings.__doc__ = """
The parameters at one moment; `labels` are what is told of each camera before its frames,
`policy_fields` are the chosen policy's, `flex_fields` those of flex.
"""


_EACH = ('image_transport', 'max_frame_rate', 'min_change', 'refresh')
_AS_ALL = {str: '', float: -1.0}  # by type, the value of a camera's own that means: as for all


def camera_options(cameras: Sequence[str]) -> tuple[Option, ...]:
    """List the parameters ``<camera>.<parameter>`` that each of several cameras has."""
    if len(cameras) < 2:
        return ()
    general = ((camera, TABLE[name]) for camera in cameras for name in _EACH)
    return tuple(replace(
        o, name=f'{camera}.{o.name}', default=own, low=None if own == '' else own,
        choices=(own, *o.choices) if o.choices else (),
        description=f'{o.name} of this camera; {yaml_text(own)} = as {o.name} says.')
        for camera, o in general for own in [_AS_ALL[type(o.default)]])


def table(cameras: Sequence[str] = ()) -> dict[str, Option]:
    """List by name all parameters of a node with these cameras."""
    return {**TABLE, **{option.name: option for option in camera_options(cameras)}}


def of_camera(node: Any, camera: str, name: str) -> Any:
    """Read a parameter of a node for one camera: its own, or that for all."""
    if len(node.get_parameter('cameras').value) > 1:
        own = node.get_parameter(f'{camera}.{name}').value
        if own != '' and not (isinstance(own, float) and own < 0):
            return own
    return node.get_parameter(name).value


def about_camera(node: Any, camera: str) -> str:
    """Write what comes before a question about one camera of a node: nothing if it has one."""
    if not camera or len(node.get_parameter('cameras').value) < 2:
        return ''
    return node.get_parameter('camera_question').value.replace('{camera}', camera)


def check_cameras(names: Sequence[str]) -> None:
    """Raise a ParameterError if cameras cannot have these names."""
    for name in names:
        if not re.fullmatch(r'[A-Za-z]\w*', name, re.ASCII) and (name or len(names) > 1):
            raise ParameterError(
                f'parameter cameras names a camera {name!r}, but a name must be a letter and '
                'then letters, digits or underscores: rename it, as its topic is <name>/image')
        if names.count(name) > 1:
            raise ParameterError(f'parameter cameras names {name!r} twice: give each camera a '
                                 'name of its own')
        if any(taken.startswith(f'{name}.') for taken in TABLE):
            raise ParameterError(f'parameter cameras names a camera {name!r}, but parameters '
                                 f'that start with {name}. are taken: choose another name')
    if not names:
        raise ParameterError("parameter cameras is empty: write [''] for one without a name")


def declare(node: Any) -> None:
    """
    Declare the whole table on a node.

    Raises
    ------
    ParameterError
        A parameter file or the command line gave one the wrong type or a value out of range.
        Strings with choices are not looked at: `check` does that when the node configures.
    """
    for option in TABLE.values():
        _declare(node, option)
    cameras = node.get_parameter('cameras').value
    check_cameras(cameras)
    for option in camera_options(cameras):
        _declare(node, option)


def _declare(node: Any, option: Option) -> None:
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
    try:
        node.declare_parameter(option.name, option.default, _descriptor(option))
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        given = node.declare_parameter(
            option.name, None, _descriptor(option, dynamic=True)).value
        raise ParameterError(option.problem(given) or str(error)) from None


def _descriptor(option: Option, dynamic: bool = False) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    descriptor = ParameterDescriptor(
        name=option.name, description=option.description,
        additional_constraints=' '.join(
            part for part in (option.limit and f'Allowed: {option.limit}.',
                              CHANGES[option.changes]) if part),
        read_only=option.changes == START, dynamic_typing=dynamic)
    if dynamic or isinstance(option.default, (bool, str, tuple)):
        return descriptor
    if option.low is not None or option.high is not None:
        if isinstance(option.default, float):
            low = -1.7976931348623157e308 if option.low is None else float(option.low)
            high = 1.7976931348623157e308 if option.high is None else float(option.high)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            low = -2**63 if option.low is None else int(option.low)
            high = 2**63 - 1 if option.high is None else int(option.high)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor


def misspelt(names: Iterable[str], cameras: Sequence[str] = ()) -> list[str]:
    """Point out names that were given a value, but are only like those of parameters."""
    known = table(cameras)
    close = {name: get_close_matches(name, known, 1, 0.8) for name in names if name not in known}
    return [f'parameter {name} does not exist: did you mean {match[0]}?'
            for name, match in close.items() if match]


_AGAIN = 'deactivate and clean up the node, set it, then configure it again'


def refusal(name: str, value: Any, worker: Any, cameras: Sequence[str] = ()) -> str:
    """Say why a parameter cannot be set now, in one line; `worker` is None until configured."""
    option = table(cameras).get(name)
    if option is None:
        return ''
    if option.changes == START:
        return (f'parameter {name} is fixed when the process starts: restart the node with '
                f'-p {name}:={value}')
    if option.changes == CONFIGURE and worker is not None:
        return f'parameter {name} is read when the node configures: {_AGAIN}'
    problem = option.problem(value)
    if option.changes == LOWER and worker is not None and not problem:
        misfit = worker.misfit(value)
        return misfit and f'parameter {name}: {misfit}; for a larger memory {_AGAIN}'
    return problem


def check(node: Any) -> None:
    """
    Check all values once more, strings with choices included.

    Raises
    ------
    ParameterError
        The first value that is not allowed.
    """
    for option in table(node.get_parameter('cameras').value).values():
        problem = option.problem(node.get_parameter(option.name).value)
        if problem:
            raise ParameterError(problem)
    try:
        Rules(**{f.name: node.get_parameter(f'nav.{f.name}').value for f in fields(Rules)})
    except ValueError as error:
        raise ParameterError(str(error)) from None


def snapshot(node: Any) -> Settings:
    """Read all parameters of a node into one frozen object."""
    values = {name: node.get_parameter(name).value for name in TABLE}

    def group(name: str) -> dict[str, Any]:
        return {key[len(name) + 1:]: value for key, value in values.items()
                if key.startswith(name + '.')}

    cameras = values['cameras'] = tuple(values['cameras'])
    labels = {camera: values['camera_label'].replace('{camera}', camera)
              for camera in cameras if len(cameras) > 1}
    return Settings(
        **{o.name: values[o.name] for o in OPTIONS}, labels=labels, nav_fields=group('nav'),
        memory_fields=group('memory'),
        policy_fields=group(values['policy']), flex_fields=group(FlexPrefill.name))


_HEAD = """\
# Parameters of the infmllm node, with their defaults.
#
# Made from the table in infmllm_ros/node/parameters.py: change them there, then run
#   python -m infmllm_ros.node.parameters > config/infmllm.yaml
# For a robot, copy this file, keep the lines that differ, and start the node with
#   --ros-args --params-file FILE
#
# Unless it says otherwise, a parameter is read when the node configures.

/**:
  ros__parameters:\
"""

_TAIL = """
    # Quality of service of the topics, by their full names: history, depth, reliability and,
    # but for images, durability.
    # Images are best effort, depth 1: that matches every camera and keeps none waiting.
    # qos_overrides:
    #   /image:
    #     subscription:
    #       reliability: reliable
"""


def render() -> str:
    """Write the table as a commented parameter file."""
    lines = [_HEAD]
    for option in OPTIONS:
        lines += ['', *_entry(option, option.name, ' ' * 4)]
    for part, about in PARTS.items():
        options = options_of(part)
        if options:
            lines += ['', f'    # {about}', f'    {part}:']
        for option in options:
            lines += _entry(option, option.name.removeprefix(f'{part}.'), ' ' * 6)
    return '\n'.join(lines) + '\n' + _TAIL


def _entry(option: Option, name: str, indent: str) -> list[str]:
    about = [option.description]
    if option.limit:
        about.append(f'Allowed: {option.limit}.')
    if option.changes != CONFIGURE:
        about.append(CHANGES[option.changes])
    comment = textwrap.wrap(' '.join(about), 98, initial_indent=indent + '# ',
                            subsequent_indent=indent + '# ', break_on_hyphens=False)
    return [*comment, f'{indent}{name}: {yaml_text(option.default)}']


if __name__ == '__main__':
    print(render(), end='')
