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
The parameters of the node, as its table (`infmllm_ros.node.options`) says.

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

from infmllm_ros.engine import FlexPrefill
from infmllm_ros.navigation import Rules
from infmllm_ros.node.option import (
    CHANGES,
    CONFIGURE,
    LOWER,
    Option,
    ParameterError,
    short,
    START,
    yaml_text,
)
from infmllm_ros.node.options import OPTIONS, options_of, PARTS, TABLE

Settings = make_dataclass(
    'Settings',
    [*((o.name, type(o.default), o.default) for o in OPTIONS),
     ('labels', dict, field(default_factory=dict)),
     ('nav_fields', dict, field(default_factory=dict)),
     ('memory_fields', dict, field(default_factory=lambda: {
         o.name.removeprefix('memory.'): o.default for o in options_of('memory')})),
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
                f'-p {name}:={short(value)}')
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


def apply(node: Any, worker: Any, watches: Any) -> None:
    """Hand those that may change while a node runs to its worker and its watches."""
    for camera in worker.cameras:
        camera.rate, camera.gate.min_change, camera.gate.refresh = (
            of_camera(node, camera.name, name)
            for name in ('max_frame_rate', 'min_change', 'refresh'))
    worker.questions.size = node.get_parameter('query_queue_size').value
    worker.questions.busy = node.get_parameter('busy').value
    worker.relief.mode = node.get_parameter('on_out_of_memory').value
    worker.relief.floor = node.get_parameter('shrink_floor').value
    watches.enabled = node.get_parameter('watches_enabled').value


_HEAD = """\
# Parameters of the infmllm node, with their defaults.
#
# Made from the table in infmllm_ros/node/options.py: change them there, then run
#   python -m infmllm_ros.node.parameters > config/infmllm.yaml
# For a robot, copy this file, keep the lines that differ, and start the node with
#   --ros-args --params-file FILE
#
# Unless it says otherwise, a parameter is read when the node configures.

/**:
  ros__parameters:\
"""

_TAIL = """
    # Quality of service of the topics, by their full names: history, depth, reliability and
    # durability.
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
