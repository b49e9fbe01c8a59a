"""What is read of a fetched partition, batch by batch, on bytes as a broker sends them."""

import struct

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from aiokafka.util import NO_EXTENSIONS

from streams.loop.faust_private import FetchedPartition
from streams.loop.partition import Hole

MAGIC_AT, CRC_AT, ATTRIBUTES_AT, DELTA_AT = 16, 17, 21, 23
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"
GZIP, ZSTD, NO_SUCH_CODEC = 1, 4, 7


def crc(batch):
    """The batch with the checksum of its bytes."""
    from aiokafka.record.util import calc_crc32c

    return bytes(batch[:CRC_AT]) + struct.pack(">I", calc_crc32c(batch[21:])) + bytes(batch[21:])


def a_batch(start, count, producer=-1, transactional=False, codec=0):
    builder = DefaultRecordBatchBuilder(2, codec, transactional, producer, 0, 0, 1 << 20)
    for number in range(count):
        builder.append(number, 0, b"key", b"value %d" % number * 20, [])
    batch = bytes(builder.build())
    return struct.pack(">q", start) + batch[8:]


def marker(start, producer, kind):
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, 0, 1 << 20)
    builder.append(0, 0, kind, b"", [])
    batch = bytearray(builder.build())
    attributes = struct.unpack_from(">h", batch, ATTRIBUTES_AT)[0]
    struct.pack_into(">h", batch, ATTRIBUTES_AT, attributes | 0x20)
    return struct.pack(">q", start) + crc(batch)[8:]


def read(*batches, at=0, aborted=()):
    """Offsets of records, and holes; and where the next fetch begins."""
    partition = FetchedPartition(
        TopicPartition("t", 0),
        MemoryRecords(b"".join(batches)),
        list(aborted),
        at,
        None,
        None,
        True,
        READ_COMMITTED,
    )
    found = [item if isinstance(item, Hole) else item.offset for item in partition]
    return found, partition.next_fetch_offset


def test_a_committed_transaction_ends_with_a_hole_of_its_marker():
    log = a_batch(3, 2, producer=7, transactional=True), marker(5, 7, COMMIT), a_batch(6, 1)
    assert read(*log, at=3) == ([3, 4, Hole(5, 6), 6], 7)


def test_an_aborted_transaction_is_a_hole():
    log = (
        a_batch(0, 2, producer=7, transactional=True),
        a_batch(2, 1, producer=8, transactional=True),
        marker(3, 7, ABORT),
        a_batch(4, 1, producer=7, transactional=True),
    )
    found, following = read(*log, aborted=[(7, 0)])
    assert (found, following) == ([Hole(0, 2), 2, Hole(3, 4), 4], 5)


def test_a_fetch_from_within_an_aborted_batch_has_a_hole_from_there():
    log = a_batch(0, 6, producer=7, transactional=True), marker(6, 7, ABORT)
    assert read(*log, at=4, aborted=[(7, 0)]) == ([Hole(4, 6), Hole(6, 7)], 7)


def test_offsets_between_batches_are_no_hole_that_was_fetched():
    assert read(a_batch(0, 2), marker(7, 7, COMMIT)) == ([0, 1, Hole(7, 8)], 8)


def test_a_batch_whose_checksum_fails_is_a_fault_up_to_the_next_batch():
    bad = bytearray(a_batch(2, 3))
    bad[-4] ^= 1
    (one, two, fault), following = read(a_batch(0, 2), bytes(bad), a_batch(5, 1))
    assert (one, two, fault.offset, fault.end, following) == (0, 1, 2, 5, 5)
    assert "CRC" in fault.fault


@pytest.mark.parametrize("delta", [-(2**31), 0, 2, 1_000_000])
def test_a_broken_header_does_not_say_where_its_batch_ends(delta):
    bad = bytearray(a_batch(2, 3))
    struct.pack_into(">i", bad, DELTA_AT, delta)
    bad[-4] ^= 1
    (fault,), following = read(bytes(bad), a_batch(5, 1), at=2)
    assert (fault.offset, fault.end, following) == (2, 5, 5)
    (alone,), _ = read(bytes(bad), at=2)
    assert alone.end > alone.offset


def test_an_unknown_magic_is_a_fault():
    bad = bytearray(a_batch(0, 3))
    bad[MAGIC_AT] = 3
    (fault,), following = read(bytes(bad), a_batch(3, 1))
    assert (fault.offset, fault.end, fault.fault) == (0, 3, "unknown magic 3")
    assert following == 3


def test_an_unknown_codec_is_a_fault():
    bad = bytearray(a_batch(0, 3))
    bad[ATTRIBUTES_AT + 1] |= NO_SUCH_CODEC
    (fault,), _ = read(crc(bad))
    assert (fault.offset, fault.end) == (0, 3)
    assert fault.fault


@pytest.mark.parametrize("codec", [GZIP, ZSTD])
def test_bytes_that_do_not_decompress_are_a_fault(codec):
    batch = bytearray(a_batch(0, 9, codec=codec))
    batch[70:80] = bytes(10)
    (fault,), following = read(crc(batch), a_batch(9, 1))
    assert (fault.offset, fault.end, following) == (0, 9, 9)


def test_a_record_that_ends_too_early_is_a_fault_from_there_on():
    batch = bytearray(a_batch(0, 3))
    batch[-200:] = bytes(200)
    *before, fault = read(crc(batch))[0]
    assert before == list(range(len(before)))
    assert (fault.offset, fault.end) == (len(before), 3)


def test_these_are_the_compiled_readers_that_workers_use():
    assert not NO_EXTENSIONS
