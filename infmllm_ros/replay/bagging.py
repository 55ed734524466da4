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
Messages into a ROS 2 bag: ``open_bag(folder).publish(topic, stamp_ns, message)``.

rosbags writes the files, so that no rosbag2 is needed; the types are those of the message packages
that are installed here, whatever the distribution.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
import time
from typing import Any

from rclpy.serialization import serialize_message

STORAGES = ('mcap', 'sqlite3')
VERSION = 8  # of the metadata: the newest that Humble reads too
DEPTH = 10  # [messages] of the quality of service that is offered when the bag is played
EVERY = 1.0  # [s] what is younger may be lost when the process is killed
PARTS = ('metadata.yaml', '*.mcap', '*.db3', '*.db3-journal')


class BagError(ValueError):
    """A bag that cannot be written; one line: what is wrong, what to do."""


def open_bag(folder: Path, storage: str = 'mcap') -> BagWriter:
    """
    Begin a bag.

    Parameters
    ----------
    folder : Path
        Of the bag. A bag that is there is replaced; any other file is not.
    storage : str
        One of ``STORAGES``.

    Raises
    ------
    BagError
        rosbags is missing; an unknown storage; the folder holds something else.
    """
    try:
        import rosbags.rosbag2  # noqa: F401
    except ImportError:
        raise BagError(f'{folder}: rosbags is needed to write a bag: '
                       'pip install rosbags') from None
    if storage not in STORAGES:
        raise BagError(f'storage {storage!r}: give one of {", ".join(STORAGES)}')
    if folder.exists():
        _remove(folder)
    return BagWriter(folder, storage)


def _remove(folder: Path) -> None:
    parts = [part for pattern in PARTS for part in folder.glob(pattern)]
    if not folder.is_dir() or set(folder.iterdir()) != set(parts):
        raise BagError(f'{folder}: holds something else than a bag: name a new folder')
    for part in parts:
        part.unlink()
    folder.rmdir()


class BagWriter:
    """
    Writes messages of rclpy; what was written a second ago stays, whatever comes.

    Parameters
    ----------
    folder : Path
        That is not there yet.
    storage : str
        One of ``STORAGES``.
    """

    def __init__(self, folder: Path, storage: str):
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import get_typestore, Stores
        self._types = get_typestore(Stores.EMPTY)
        self._topics: dict[str, Any] = {}
        self._bag = Writer(folder, version=VERSION, storage_plugin=StoragePlugin[storage.upper()])
        self._bag.open()
        self._flushed = time.monotonic()

    def publish(self, topic: str, stamp_ns: int, message: Any) -> None:
        """
        Append a message.

        Parameters
        ----------
        topic : str
            Full name of its topic, which has one type.
        stamp_ns : int
            [ns] When it was published, on the clock of the source.
        message : rclpy message
            Of a package whose message files are installed.

        Raises
        ------
        BagError
            The definition of its type is not installed; another type than before.
        """
        connection = self._connection(topic, type_name(type(message)))
        self._append(connection, stamp_ns, serialize_message(message))

    def write(self, topic: str, stamp_ns: int, name: str, raw: bytes) -> None:
        """Append a message as `publish` does, by the name of its type and serialized (CDR)."""
        self._append(self._connection(topic, name), stamp_ns, raw)

    def _connection(self, topic: str, name: str) -> Any:
        connection = self._topics.get(topic) or self._add(topic, name)
        if connection.msgtype != name:
            raise BagError(f'{topic}: a {name} on a topic of {connection.msgtype}: give it a '
                           'topic of its own')
        return connection

    def _append(self, connection: Any, stamp_ns: int, raw: bytes) -> None:
        self._bag.write(connection, stamp_ns, raw)
        if time.monotonic() - self._flushed >= EVERY:
            self.flush()

    def flush(self) -> None:
        """Hand all that was written to the operating system."""
        storage = self._bag.storage
        if hasattr(storage, 'conn'):
            storage.conn.commit()
        else:
            if storage.chunk.msgs:  # it would wait for a megabyte of them
                storage.close_chunk()
            storage.bio.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Finish the bag: it gets its index and its metadata.yaml."""
        if self._bag.storage is not None:
            self._bag.close()

    def _add(self, topic: str, name: str) -> Any:
        from rosbags.interfaces import (
            Qos,
            QosDurability,
            QosHistory,
            QosLiveliness,
            QosReliability,
            QosTime,
        )
        register(self._types, name)
        unset = QosTime(0, 0)
        self._topics[topic] = self._bag.add_connection(
            topic, name, typestore=self._types, offered_qos_profiles=[Qos(
                QosHistory.KEEP_LAST, DEPTH, QosReliability.RELIABLE, QosDurability.VOLATILE,
                unset, unset, QosLiveliness.AUTOMATIC, unset, False)])
        return self._topics[topic]


def type_name(kind: type) -> str:
    """Name the type of a class of messages, as ``std_msgs/msg/String``."""
    package, folder, *_ = kind.__module__.split('.')
    return f'{package}/{folder}/{kind.__name__}'


def register(types: Any, name: str) -> None:
    """
    Teach a type, and the types of its fields, to a typestore of rosbags.

    Raises
    ------
    BagError
        A definition is not installed.
    """
    from rosbags.typesys import get_types_from_msg
    if name in types.fielddefs:
        return
    known = get_types_from_msg(definition(name).read_text(encoding='utf-8'), name)
    types.register(known)
    for _, fields in known.values():
        for _, kind in fields:
            nested = _nested(kind)
            if nested:
                register(types, nested)


def _nested(kind: tuple[Any, Any]) -> str:
    """Name the message type in a field's parse tree; empty if there is none."""
    from rosbags.interfaces import Nodetype
    node, rest = kind
    if node == Nodetype.NAME:
        return rest
    return '' if node == Nodetype.BASE else _nested(rest[0])


def definition(name: str) -> Path:
    """
    Find the file that defines a type: beside its Python package, or in the ament index.

    Raises
    ------
    BagError
        It is in neither.
    """
    package, folder, kind = name.split('/')
    file = Path('share', package, folder, f'{kind}.msg')
    for prefix in Path(import_module(package).__file__).parents:
        if (prefix / file).exists():
            return prefix / file
    try:
        from ament_index_python import get_package_prefix
        path = Path(get_package_prefix(package)) / file
    except (ImportError, LookupError, OSError):  # OSError: AMENT_PREFIX_PATH is not set
        path = file
    if not path.exists():
        raise BagError(f'{name}: {file} is not there, beside its Python package or in the ament '
                       f'index: install {package} with its message files')
    return path
