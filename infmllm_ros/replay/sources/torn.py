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
What is whole in the file of a bag that was cut off: a power cut while recording, half a copy.

rosbags reads neither kind then: an MCAP file has its index at the end, and SQLite refuses a file
that is shorter than its header says. Here the file is read from its start, as far as it goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
import struct
from typing import Any, BinaryIO
from urllib.parse import quote
import zlib

Topic = tuple[str, str]  # name, type
MAGIC = b'\x89MCAP0\r\n'
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 3, 4, 5, 6, 15  # https://mcap.dev/spec
_PAGES = 'infmllm_ros_whole_pages'  # a name inside SQLite
_MESSAGE, _CHUNK = struct.Struct('<HIQQ'), struct.Struct('<QQQI')


class Torn:
    """
    The whole messages of a file, in the order of time; also of one that was not cut.

    Parameters
    ----------
    path : Path
    types : collection of str
        Only messages of these types.

    Attributes
    ----------
    counts : dict of (str, str) to int
        Number of messages of each topic and type.
    times : list of int
        [ns] of the first message and the last; empty if there is none.
    problem : str
        What is missing, one line; '' if nothing is.

    Raises
    ------
    ValueError
        Nothing can be read of the file; why, without its name.
    """

    def __init__(self, path: Path, types: Collection[str]):
        self._path, self._types, self.problem = path, types, ''
        self._messages: list[tuple[Any, ...]] = []  # time, ..., topic
        self._find()
        self._messages.sort()
        self.counts = dict(Counter(message[-1] for message in self._messages))
        self.times = [self._messages[i][0] for i in (0, -1) if self._messages]

    def messages(self, topics: Collection[Topic]) -> Iterator[tuple[Topic, int, bytes]]:
        """Give topic, time of recording [ns] and data of each message of some topics."""
        raise NotImplementedError

    def _find(self) -> None:
        """Note each message, and what is missing."""
        raise NotImplementedError

    def _miss(self, reason: str) -> None:
        self.problem = (f'{self._path}: {reason} (a power cut while recording, half a copy?): all '
                        'that is whole is given, copy or record it again for the rest')


class TornMcap(Torn):
    """An MCAP file; of a chunk that was cut, what can be decompressed is whole."""

    def _find(self) -> None:
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, Topic] = {}
        with self._path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ValueError('it does not begin as an MCAP file does')
            self._scan(file)

    def messages(self, topics: Collection[Topic]) -> Iterator[tuple[Topic, int, bytes]]:
        """Give topic, log time [ns] and data of each message of some topics."""
        with self._path.open('rb') as file:
            # Neighbours may overlap in time.
            chunk = lru_cache(4)(lambda place: _chunk(file, place, self._end)[0])
            for time_ns, place, start, length, topic in self._messages:
                if topic not in topics:
                    continue
                if place:
                    yield topic, time_ns, chunk(place)[start:start + length]
                else:
                    file.seek(start)
                    yield topic, time_ns, file.read(length)

    def _scan(self, file: BinaryIO) -> None:
        size, place = self._path.stat().st_size, len(MAGIC)
        # For what it lost, a file system may have put zeros.
        self._end = end = _last_data(file, size)
        while True:
            file.seek(place)
            head = file.read(9)
            opcode, length = head[0] if head else 0, int.from_bytes(head[1:], 'little')
            place += 9
            whole = place <= place + length <= end or place + length == size
            if opcode == DATA_END:  # behind it, only the index
                return
            if opcode == CHUNK:
                records, sound = _chunk(file, place, end)
                if sound or not whole:
                    self._scan_records(records, place)
                else:
                    self._miss(f'a chunk near byte {place:,} is damaged')
            if not whole:
                break
            if opcode != CHUNK:
                most = _MESSAGE.size if opcode == MESSAGE else 1 << 20
                self._note(opcode, file.read(min(length, most)), 0, place, length)
            place += length
        self._miss(f'breaks off after {size:,} bytes')

    def _scan_records(self, records: bytes, chunk: int) -> None:
        """Note the messages of a chunk, up to the one that was cut."""
        start = 0
        while start + 9 <= len(records):
            opcode = records[start]
            length = int.from_bytes(records[start + 1:start + 9], 'little')
            start += 9
            if start + length > len(records):
                return
            self._note(opcode, records[start:start + length], chunk, start, length)
            start += length

    def _note(self, opcode: int, record: bytes, chunk: int, start: int, length: int) -> None:
        """Note a record that begins at a place of the file, or of its chunk."""
        try:
            if opcode == MESSAGE:
                channel, _, time_ns, _ = _MESSAGE.unpack_from(record)
                if channel in self._channels:
                    self._messages.append((time_ns, chunk, start + _MESSAGE.size,
                                           length - _MESSAGE.size, self._channels[channel]))
            elif opcode == SCHEMA:
                number, = struct.unpack_from('<H', record)
                self._schemas[number] = _text(record, 2)[0]
            elif opcode == CHANNEL:
                number, schema = struct.unpack_from('<HH', record)
                topic, end = _text(record, 4)
                kind = self._schemas.get(schema, '')
                if kind in self._types and _text(record, end)[0] == 'cdr':
                    self._channels[number] = topic, kind
        except (struct.error, UnicodeDecodeError):
            self._miss(f'a record near byte {chunk or start:,} is damaged')


def _last_data(file: BinaryIO, size: int) -> int:
    """Return where the zeros begin that a file ends with; its size if there are none."""
    end = size
    while end:
        begin = max(0, end - (1 << 16))
        file.seek(begin)
        kept = file.read(end - begin).rstrip(b'\0')
        if kept:
            return begin + len(kept)
        end = begin
    return 0


def _chunk(file: BinaryIO, place: int, end: int) -> tuple[bytes, bool]:
    """Return the records of a chunk, as far as the file has them, and whether that is all."""
    try:
        file.seek(place)
        head = file.read(_CHUNK.size + 4)
        _, _, size, crc = _CHUNK.unpack_from(head)
        compression = file.read(int.from_bytes(head[-4:], 'little')).decode()
        length = int.from_bytes(file.read(8), 'little')
        start = file.tell()
        most = file.seek(0, 2) - start
        for left in (most, end - start):  # zeros may be its own
            file.seek(start)
            records = _decompress(compression, file.read(max(0, min(length, left))), size)
            if len(records) == size and (not crc or zlib.crc32(records) == crc):
                return records, True
    except Exception:  # whatever broken bytes make the decompressors raise
        return b'', False
    return records, False


def _decompress(compression: str, data: bytes, size: int) -> bytes:
    """Return `size` bytes, or fewer where the data end too early."""
    if not compression:
        return data[:size]
    if compression == 'lz4':
        from lz4.frame import LZ4FrameDecompressor as Decompressor
    elif compression == 'zstd':
        try:
            from compression.zstd import ZstdDecompressor as Decompressor
        except ImportError:  # before Python 3.14
            from backports.zstd import ZstdDecompressor as Decompressor
    else:
        raise ValueError(f'unknown compression {compression}')
    return Decompressor().decompress(data, max_length=size)


def _text(record: bytes, start: int) -> tuple[str, int]:
    """Return the text that begins at a place, and where it ends."""
    length, = struct.unpack_from('<I', record, start)
    end = start + 4 + length
    return record[start + 4:end].decode(), end


def unfinished(path: Path) -> bool:
    """Say whether an SQLite file ends within a page, or has a log that was not moved into it."""
    return path.suffix == '.db3' and bool(
        _logged(path) or path.stat().st_size % (_page_size(path) or 1))


def _logged(path: Path) -> bool:
    log = Path(f'{path}-wal')
    return log.exists() and log.stat().st_size > 0


def _page_size(path: Path) -> int:
    """Return the size of an SQLite file's pages in bytes; 0 if it has no header."""
    with path.open('rb') as file:
        size = int.from_bytes(file.read(18)[16:], 'big')
    return 65536 if size == 1 else size


class TornSqlite(Torn):
    """An SQLite file, up to the first page that is missing or malformed."""

    def _find(self) -> None:
        with self._opened() as (database, error):
            try:
                topics = {number: (topic, kind) for number, topic, kind, form in database.execute(
                    'SELECT id, name, type, serialization_format FROM topics')
                    if kind in self._types and form == 'cdr'}
            except error as reason:
                raise ValueError(str(reason)) from None
            try:  # in the order of recording: the index by time may be lost
                for number, topic, time_ns in database.execute(
                        'SELECT id, topic_id, timestamp FROM messages NOT INDEXED'):
                    if topic in topics:
                        self._messages.append((time_ns, number, topics[topic]))
            except error as reason:
                self._miss(str(reason))

    def messages(self, topics: Collection[Topic]) -> Iterator[tuple[Topic, int, bytes]]:
        """Give topic, time of recording [ns] and data of each message of some topics."""
        with self._opened() as (database, error):
            for time_ns, number, topic in self._messages:
                if topic not in topics:
                    continue
                try:
                    data = database.execute(
                        'SELECT data FROM messages WHERE id = ?', (number,)).fetchone()[0]
                except error as reason:  # part of it is on a missing page
                    self._miss(str(reason))
                else:
                    yield topic, time_ns, data

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Give the database, and what it raises."""
        import apsw  # what rosbags reads SQLite with
        page = _page_size(self._path)

        class WholePages(apsw.VFSFile):
            """Hides the part of a page at the end, which SQLite would fill with zeros."""

            def xFileSize(self) -> int:  # noqa: N802
                return super().xFileSize() // page * page

        class System(apsw.VFS):
            """Opens files so."""

            def xOpen(self, name: Any, flags: list[int]) -> WholePages:  # noqa: N802
                return WholePages('', name, flags)

        # What a recorder has not moved from its log into the file yet is read where it is.
        logged = _logged(self._path)
        system = None if logged or not page else System(_PAGES, '')
        database = None
        try:
            mode = 'mode=ro' if logged else 'immutable=1'
            database = apsw.Connection(
                f'file:{quote(str(self._path.absolute()))}?{mode}',
                flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
                vfs=_PAGES if system else None)
            # Without it, a file that is shorter than its header says is not opened at all.
            database.execute('PRAGMA writable_schema = ON')
            yield database, apsw.Error
        finally:
            if database is not None:
                database.close()
            if system is not None:
                system.unregister()
