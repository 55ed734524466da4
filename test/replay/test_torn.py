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

"""Of a bag that was cut off, all that was whole before arrives, as others read the whole one."""

import io
import os
import random
import sqlite3

from hypothesis import example, given, settings
from hypothesis import strategies as st
from infmllm_ros.replay.sources import COMPRESSED, IMAGE, open_source, SourceError
import pytest

pytest.importorskip('rosbags', reason='bags are read by rosbags')
apsw = pytest.importorskip('apsw', reason='rosbags brings it')
mcap = pytest.importorskip('mcap', reason='bags to be cut are written by the mcap library')
from mcap.reader import make_reader  # noqa: E402, I100
from mcap.records import Chunk  # noqa: E402
from mcap.stream_reader import StreamReader  # noqa: E402
from mcap.writer import CompressionType, Writer  # noqa: E402

CAMERAS = {'left': '/left', 'right': '/right'}
TOPICS = {'/left': IMAGE, '/imu': 'sensor_msgs/msg/Imu', '/right': COMPRESSED}
ROUNDS = 25
START, STEP = 1_700_000_000_000_000_005, 10_000_000


def payloads():
    """List what is recorded: (topic, log time, data), data unlike all others, late ones too."""
    dice = random.Random(1)
    return [(topic, START + (3 * i + j) * STEP - (i % 5 == 4) * 7 * STEP,
             b'\0\1\0\0' + dice.randbytes(dice.randint(150, 900)))
            for i in range(ROUNDS) for j, topic in enumerate(TOPICS)]


def make_mcap(compression, chunked=True):
    file = io.BytesIO()
    writer = Writer(file, chunk_size=3000, compression=compression, use_chunking=chunked)
    writer.start('ros2', 'test')
    channels = {topic: writer.register_channel(topic, 'cdr', writer.register_schema(
        kind, 'ros2msg', b'# none')) for topic, kind in TOPICS.items()}
    for number, (topic, stamp, data) in enumerate(payloads()):
        writer.add_message(channels[topic], stamp, data, stamp, number)
    writer.finish()
    return file.getvalue()


KINDS = {'none': make_mcap(CompressionType.NONE), 'zstd': make_mcap(CompressionType.ZSTD),
         'lz4': make_mcap(CompressionType.LZ4), 'loose': make_mcap(CompressionType.NONE, False)}


def whole_before(kind, cut):
    """List the data of the images that are wholly in front of a cut, at least."""
    data = KINDS[kind]
    images = [blob for topic, _, blob in payloads() if topic != '/imu']
    if kind in ('none', 'loose'):
        return [blob for blob in images if data.index(blob) + len(blob) <= cut]
    stream, done = io.BytesIO(data), 0
    records = StreamReader(stream, emit_chunks=True).records
    for record in records:
        if stream.tell() > cut:
            break
        if isinstance(record, Chunk):
            done += sum(blob in _records(record) for blob in images)
    return images[:done]


def _records(chunk):
    from lz4.frame import decompress
    import zstandard
    return decompress(chunk.data) if chunk.compression == 'lz4' else \
        zstandard.decompress(chunk.data, chunk.uncompressed_size)


def test_a_whole_file_gives_what_the_mcap_library_reads(tmp_path):
    for kind in KINDS:
        path = tmp_path / f'{kind}.mcap'
        path.write_bytes(KINDS[kind])
        source = open_source(path, CAMERAS)
        expected = [(channel.topic, message.log_time, message.data) for _, channel, message in
                    make_reader(io.BytesIO(KINDS[kind])).iter_messages(list(CAMERAS.values()))]
        assert [(f.topic, f.time_ns, f.raw) for f in source] == expected
        assert source.count == len(expected) == 2 * ROUNDS and not source.problem


@pytest.mark.parametrize('zeros', [0, 5000], ids=['cut', 'zeros'])
@pytest.mark.parametrize('kind', KINDS)
def test_every_message_in_front_of_a_cut_arrives_in_order(tmp_path, kind, zeros):
    data, path = KINDS[kind], tmp_path / 'cut.mcap'
    recorded = {blob: (topic, stamp) for topic, stamp, blob in payloads()}
    end = data.index(max(recorded, key=data.find))  # the last message, where it can be seen

    @settings(max_examples=40)
    @given(st.integers(0, len(data) - 1))
    @example(len(data) - 1)
    @example(end if end > 0 else 0)
    def check(cut):
        path.write_bytes(data[:cut] + bytes(zeros))
        expected = whole_before(kind, cut)
        try:
            source = open_source(path)
        except SourceError as error:
            if 'image topics' in str(error):
                source = open_source(path, CAMERAS)
            else:  # no image is whole
                assert str(path) in str(error) and '\n' not in str(error) and not expected
                return
        frames = list(source)
        given_ = [f.raw for f in frames]
        assert set(expected) <= set(given_)
        assert [(f.topic, f.time_ns) for f in frames] == [recorded[raw] for raw in given_]
        assert [f.time_ns for f in frames] == sorted(f.time_ns for f in frames)
        assert len(given_) == len(set(given_)) == source.count
        if len(given_) < 2 * ROUNDS:
            assert f'{path}: breaks off after {cut + zeros:,} bytes' in source.problem
            assert source.problem.endswith('for the rest') and '\n' not in source.problem
    check()


def test_a_damaged_chunk_is_left_out_and_told(tmp_path):
    data, path = bytearray(KINDS['none']), tmp_path / 'bad.mcap'
    victim = payloads()[30][2]
    data[data.index(victim) + 20] ^= 1
    path.write_bytes(data[:-20])  # no index: the file is read from its start
    source = open_source(path, CAMERAS)
    given_ = [f.raw for f in source]
    recorded = [blob for topic, _, blob in payloads() if topic != '/imu']
    assert set(given_) < set(recorded) and 'is damaged' in source.problem
    assert recorded[0] in given_ and recorded[-1] in given_
    path.write_bytes(data)  # with its index
    source = open_source(path, CAMERAS)
    assert len(list(source)) < len(recorded) and 'checksum' in source.problem


def test_a_message_too_short_for_its_own_head_is_left_out_and_told(tmp_path):
    data, path = KINDS['loose'], tmp_path / 'short.mcap'
    first, second = (data.index(blob) for _, _, blob in payloads()[:2])
    head = first - 22 - 9  # opcode, length; channel, sequence, two times
    path.write_bytes(data[:head + 1] + (3).to_bytes(8, 'little') + data[head + 9:head + 12]
                     + data[second - 22 - 9:])
    source = open_source(path, CAMERAS)
    assert [f.raw for f in source] == [
        blob for topic, _, blob in sorted(payloads()[1:], key=lambda m: m[1]) if topic != '/imu']
    assert f'a record near byte {head + 9:,} is damaged' in source.problem


def make_sqlite(path, page):
    database = sqlite3.connect(path)
    database.executescript(f"""
        PRAGMA page_size = {page};
        CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
                            serialization_format TEXT NOT NULL,
                            offered_qos_profiles TEXT NOT NULL);
        CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
                              timestamp INTEGER NOT NULL, data BLOB NOT NULL);
        CREATE INDEX timestamp_idx ON messages (timestamp ASC);""")
    numbers = {topic: number for number, topic in enumerate(TOPICS, 1)}
    database.executemany("INSERT INTO topics VALUES (?, ?, ?, 'cdr', '')", [
        (numbers[topic], topic, kind) for topic, kind in TOPICS.items()])
    database.executemany('INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)', [
        (numbers[topic], stamp, data) for topic, stamp, data in payloads()])
    database.commit()
    database.close()
    return path.read_bytes()


def pages_of_rows(path):
    """List which pages each message needs, as SQLite says: to come to it, and for the rest."""
    database = apsw.Connection(str(path))
    pages = {place: (number, kind, cells) for place, number, kind, cells in database.execute(
        "SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = 'messages'")}
    rows = []
    for leaf in sorted(place for place, (_, kind, _) in pages.items() if kind == 'leaf'):
        way = [number for place, (number, kind, _) in pages.items()
               if kind != 'overflow' and leaf.startswith(place)]
        rows += [(way, [number for place, (number, *_) in pages.items()
                        if place.startswith(f'{leaf}{cell:03x}+')])
                 for cell in range(pages[leaf][2])]
    database.close()
    return rows


@pytest.mark.parametrize('page', [512, 4096])
def test_a_cut_sqlite_file_gives_what_lies_on_whole_pages(tmp_path, page):
    data, path = make_sqlite(tmp_path / 'whole.db3', page), tmp_path / 'cut.db3'
    rows = pages_of_rows(tmp_path / 'whole.db3')
    assert len(rows) == 3 * ROUNDS
    assert len(list(open_source(tmp_path / 'whole.db3', CAMERAS))) == 2 * ROUNDS

    @settings(max_examples=40)
    @given(st.integers(0, len(data) - 1))
    @example(len(data) - 1)
    @example(len(data) // page // 2 * page)
    def check(cut):
        path.write_bytes(data[:cut])
        left, expected = cut // page, []
        for (topic, stamp, blob), (way, rest) in zip(payloads(), rows, strict=True):
            if max(way) > left:
                break  # nor is there a way to those behind it
            if topic != '/imu' and max(rest, default=0) <= left:
                expected.append((stamp, topic, blob))
        try:
            source = open_source(path, CAMERAS)
        except SourceError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            assert {topic for _, topic, _ in expected} != set(CAMERAS.values())
            return
        assert [(f.time_ns, f.topic, f.raw) for f in source] == sorted(
            expected, key=lambda message: message[0])
        assert len(expected) == 2 * ROUNDS or f'{path}: database disk image is malformed' in \
            source.problem
    check()


def test_what_a_recorder_left_in_its_log_is_read(tmp_path):
    path = tmp_path / 'bag.db3'
    make_sqlite(path, 4096)
    database = sqlite3.connect(path)
    database.executescript("""PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;
        INSERT INTO messages(topic_id, timestamp, data)
        SELECT topic_id, timestamp + 1000000000000, data FROM messages WHERE topic_id = 1;""")
    crashed = tmp_path / 'crashed.db3'
    for ending in ('', '-wal'):
        os.link(f'{path}{ending}', f'{crashed}{ending}')
    assert len(list(open_source(crashed, CAMERAS))) == 3 * ROUNDS
    database.close()


def test_a_folder_without_metadata_gives_its_files_one_after_the_other(tmp_path):
    for number in (10, 9):  # the later one first
        (tmp_path / f'bag_{number}.mcap').write_bytes(KINDS['zstd'])
    (tmp_path / 'bag_10.mcap').write_bytes(KINDS['zstd'][:len(KINDS['zstd']) // 2])
    (tmp_path / 'bag_11.mcap').touch()
    source = open_source(tmp_path, CAMERAS)
    frames = list(source)
    assert 2 * ROUNDS < len(frames) == source.count < 4 * ROUNDS
    assert [f.raw for f in frames[:2 * ROUNDS]] == [
        f.raw for f in open_source(tmp_path / 'bag_9.mcap', CAMERAS)]
    assert 'bag_10.mcap: breaks off' in source.problem and 'bag_11.mcap: not a' in source.problem
