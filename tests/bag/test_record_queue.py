"""Between subscriptions and the disk: nothing waits for a slow disk, and what does not fit is counted."""

import os

from full_disk import largest_file
from tiny_bag import START_NS, STORE, twist

from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.bag.record_queue import RecordQueue
from sac_ae_ros.bag.writer import RecordingWriter

TWIST = "geometry_msgs/msg/Twist"
RAW = bytes(STORE.serialize_cdr(twist(1.0, 2.0), TWIST))


def make(folder, most: int, **options):
    writer = RecordingWriter(folder, **options)
    writer.add_topic("/cmd_vel", TWIST, STORE.generate_msgdef(TWIST, ros_version=2)[0])
    errors: list = []
    return writer, RecordQueue(writer, most * len(RAW), errors.append), errors


def recorded(folder) -> list[int]:
    with Bag.open(folder) as bag:
        return [record.stamp_ns - START_NS for record in bag.records()]


def put(queue: RecordQueue, i: int) -> None:
    queue.put("/cmd_vel", START_NS + i, START_NS + i, RAW)


def test_everything_is_written_in_order(tmp_path):
    writer, queue, errors = make(tmp_path / "drive", 10_000)
    for i in range(1000):
        put(queue, i)
    queue.close()
    writer.close()
    assert recorded(tmp_path / "drive") == list(range(1000))
    assert (queue.lost.total(), errors) == (0, [])


def test_a_stalled_disk_delays_nobody_and_what_does_not_fit_is_counted(tmp_path):
    writer, queue, _ = make(tmp_path / "drive", 5)
    with writer._turn:  # the disk stalls
        for i in range(40):
            put(queue, i)
    queue.close()
    writer.close()
    found = recorded(tmp_path / "drive")
    assert len(found) + queue.lost["/cmd_vel"] == 40
    assert 5 <= len(found) <= 10  # what waited, and what the thread had in hand
    assert found == sorted(found)


def test_a_full_disk_ends_it_once_and_the_rest_is_counted(tmp_path):
    writer, queue, errors = make(tmp_path / "drive", 10_000)
    writer._keep_free_bytes = 1 << 60  # as if others had filled it
    put(queue, 0)
    while not errors:
        os.sched_yield()
    for i in range(1, 4):
        put(queue, i)
    queue.close()
    writer.close()
    assert len(errors) == 1
    assert queue.lost["/cmd_vel"] == 3
    assert recorded(tmp_path / "drive") == [0]


def test_a_write_that_fails_leaves_no_message_uncounted(tmp_path):
    writer, queue, errors = make(tmp_path / "drive", 10_000_000)
    empty, sent = writer.bytes_written, 10
    for i in range(sent):
        put(queue, i)
    while writer.bytes_written == empty:
        os.sched_yield()
    with largest_file(writer.bytes_written + 1000):
        while not errors:
            queue.put("/cmd_vel", START_NS, START_NS, os.urandom(len(RAW)))
            sent += 1
            os.sched_yield()
        queue.close()
    writer.close()
    assert len(recorded(tmp_path / "drive")) == writer.counts["/cmd_vel"]
    assert writer.counts["/cmd_vel"] >= 1
    assert writer.counts["/cmd_vel"] + queue.lost["/cmd_vel"] == sent
