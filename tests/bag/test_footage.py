"""Videos in recordings: every picture with its packet's message, and none that is not whole."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import tiny_bag
from rosbags.typesys import get_types_from_msg
from tiny_bag import START_NS, boolean, header, make
from tiny_policy import SPEC, expected_values, write_policy

from sac_ae_ros.bag.beside import Summary
from sac_ae_ros.bag.evaluate import Options, evaluate
from sac_ae_ros.bag.footage import Footage
from sac_ae_ros.bag.info import describe
from sac_ae_ros.bag.look import look_again
from sac_ae_ros.bag.messages import FFMPEG_PACKET, FFMPEG_PACKET_FIELDS
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.bag.transitions import Sources, transitions
from sac_ae_ros.core.errors import BagError, ImageError
from sac_ae_ros.core.policy import OnnxPolicy

PERIOD_NS = 100_000_000
SIDE = 64
ZERO_LATENCY = {"tune": "zerolatency", "x264-params": "scenecut=0:keyint=10:min-keyint=10"}
REORDERED = {"x264-params": "bframes=3:b-adapt=0:scenecut=0:keyint=10:min-keyint=10"}
HEVC = {"x265-params": "log-level=none:bframes=3:scenecut=0"}
if FFMPEG_PACKET not in tiny_bag.STORE.types:
    tiny_bag.STORE.register(get_types_from_msg(FFMPEG_PACKET_FIELDS, FFMPEG_PACKET))


def grey(i: int) -> int:
    return 70 + 4 * i


def encode(encoder: str, options: dict[str, str], count: int = 20) -> list[tuple[int, bytes]]:
    """Pictures of one grey each; which one each packet has, and its bytes, in coding order."""
    context = av.CodecContext.create(encoder, "w")
    context.width = context.height = SIDE
    context.pix_fmt, context.time_base, context.framerate, context.options = "yuv420p", Fraction(1, 10), 10, options
    packets = []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((SIDE, SIDE, 3), grey(i), np.uint8), format="rgb24")
        frame.pts, frame.time_base = i, Fraction(1, 10)
        packets += context.encode(frame)
    packets += context.encode(None)
    return [(packet.pts, bytes(packet)) for packet in packets]


def in_packets(packets: list[tuple[int, bytes]], encoding: str = "h264;yuv420p;bgr8;bgr8") -> list:
    """As ffmpeg_image_transport records them: each with the stamp of its own picture, in coding order."""
    messages: list[Any] = []
    for order, (i, data) in enumerate(packets):
        at = START_NS + i * PERIOD_NS
        payload = np.frombuffer(data, np.uint8)
        message = make(FFMPEG_PACKET, header(at), SIDE, SIDE, encoding, i, 0, False, payload)
        messages.append((START_NS + order * PERIOD_NS + 5_000_000, "/camera/ffmpeg", message))
    return messages


def in_compressed(packets: list[tuple[int, bytes]], text: str) -> list:
    return [
        (log_ns, "/camera/h264", make("sensor_msgs/msg/CompressedImage", message.header, text, message.data))
        for log_ns, _, message in in_packets(packets)
    ]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return OnnxPolicy.load(write_policy(tmp_path_factory.mktemp("policy") / "tiny.onnx"))


def run(path, messages, policy, options=None):
    with Bag.open(tiny_bag.write(path, messages)) as bag:
        result = evaluate(bag, policy, options)
        return result, list(look_again(bag, result, options or Options()))


@pytest.mark.parametrize(
    ("encoder", "options", "encoding"),
    [
        ("libx264", ZERO_LATENCY, "h264;yuv420p;bgr8;bgr8"),
        ("libx264", REORDERED, "libx264"),
        ("libx265", HEVC, "hevc_nvenc"),
    ],
    ids=["h264", "h264 with b-frames", "hevc with b-frames"],
)
def test_every_picture_is_seen_in_its_order_under_its_own_stamp(tmp_path, policy, encoder, options, encoding):
    packets = encode(encoder, options)
    assert ([i for i, _ in packets] == list(range(20))) == (options is ZERO_LATENCY)
    result, looks = run(tmp_path / "bag", in_packets(packets, encoding), policy)
    assert (result.frames, result.refused, sum(tick.restarted for tick in result.ticks)) == (20, [], 1)
    assert [tick.stamp_ns for tick in result.ticks] == [START_NS + i * PERIOD_NS for i in range(20)]
    for i, tick in enumerate(result.ticks):
        mean = (grey(max(0, i - 1)) + grey(i)) / 2
        np.testing.assert_allclose(tick.values, expected_values(mean), atol=0.1)
    assert [look.index for look in looks] == list(range(20))
    assert all(abs(int(look.camera.mean()) - grey(look.index)) <= 3 for look in looks)
    facts = describe(tmp_path / "bag")
    assert facts["topics"][0]["image"] == f"64x64 {encoding}"


@pytest.mark.parametrize("text", ["h264", "H.264", "h265"])
def test_videos_in_compressed_images(tmp_path, policy, text):
    packets = encode("libx265", HEVC) if text == "h265" else encode("libx264", ZERO_LATENCY)
    result, looks = run(tmp_path / "bag", in_compressed(packets, text), policy)
    assert (len(result.ticks), result.refused, len(looks)) == (20, [], 20)


def test_a_video_that_begins_without_a_key_frame_waits_for_one(tmp_path, policy):
    result, _ = run(tmp_path / "bag", in_packets(encode("libx264", ZERO_LATENCY)[3:]), policy)
    assert [(tick.stamp_ns - START_NS) // PERIOD_NS for tick in result.ticks] == list(range(10, 20))
    assert [(stamp_ns - START_NS) // PERIOD_NS for stamp_ns, _ in result.refused] == list(range(3, 10))
    assert result.refused[0][1].endswith("from the next key frame on")


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_after_damage_no_picture_is_used_before_the_next_key_frame(tmp_path, policy, damage):
    packets = encode("libx264", ZERO_LATENCY)
    whole = packets[4][1]
    packets[4] = (4, {"cut": whole[: len(whole) // 2], "foreign": b"nothing of the kind", "empty": b""}[damage])
    result, _ = run(tmp_path / "bag", in_packets(packets), policy)
    assert [(tick.stamp_ns - START_NS) // PERIOD_NS for tick in result.ticks] == [*range(4), *range(10, 20)]


def by_encoder(packets: list[tuple[int, bytes]]) -> list:
    """As a live encoder gives them: a packet is recorded when the latest picture that it had to wait for was taken."""
    latest = np.maximum.accumulate([i for i, _ in packets])
    found = zip(latest, in_packets(packets), strict=True)
    return [(START_NS + int(i) * PERIOD_NS + 5_000_000, topic, message) for i, (_, topic, message) in found]


def beside(count: int = 20) -> list:
    """A command and a reward for each picture, and an episode's end after the ninth."""
    times = [START_NS + i * PERIOD_NS for i in range(count)]
    messages = [(at + 15_000_000, "/executed", tiny_bag.joints(at, ["linear", "angular"], [0.2, 0.0])) for at in times]
    messages += [(at + 90_000_000, "/reward", tiny_bag.float64(i)) for i, at in enumerate(times)]
    return [*messages, (times[8] + 20_000_000, "/episode_end", boolean(False))]


@pytest.mark.parametrize("record", [in_packets, by_encoder])
def test_the_order_of_coding_changes_neither_ticks_nor_transitions(tmp_path, policy, record):
    plain = in_packets(encode("libx264", ZERO_LATENCY))
    found = []
    for name, messages in (("plain", plain), ("reordered", record(encode("libx264", REORDERED)))):
        result, looks = run(tmp_path / name, messages + beside(), policy)
        times = [(tick.stamp_ns, tick.log_ns, tick.restarted) for tick in result.ticks]
        summary = Summary()
        with Bag.open(tmp_path / name) as bag:
            moments = [(m.log_ns, m.first, m.reward) for m in transitions(bag, SPEC, Sources(), summary)]
        assert (summary.unused_rewards, [reward for *_, reward in moments]) == (2, [0, *range(8), 0, *range(9, 19)])
        found.append((times, result.stale, result.age_max_s, len(looks), moments))
    assert found[0] == found[1]
    assert [at for at, _, restarted in found[0][0] if restarted] == [START_NS, START_NS + 9 * PERIOD_NS]


def test_pictures_of_another_order_without_stamps_are_refused_in_one_line(tmp_path, policy):
    for name, options in (("plain", ZERO_LATENCY), ("reordered", REORDERED)):
        messages = in_packets(encode("libx264", options))
        for _, _, message in messages:
            message.header.stamp.sec = message.header.stamp.nanosec = 0
        tiny_bag.write(tmp_path / name, messages + beside())
    with Bag.open(tmp_path / "plain") as bag:
        assert len(evaluate(bag, policy).ticks) == 20
    with Bag.open(tmp_path / "reordered") as bag:
        with pytest.raises(BagError, match=r"expected stamps, all are 0 where the video's pictures"):
            evaluate(bag, policy)
        with pytest.raises(BagError, match="encode without B-frames"):
            list(transitions(bag, SPEC, Sources(), Summary()))


def test_other_codecs_and_videos_of_nothing_are_refused_in_one_line(tmp_path, policy):
    with pytest.raises(
        BagError, match=r"all 20 that were due are refused.*expected H\.264 or HEVC, got the format 'av1'"
    ):
        run(tmp_path / "av1", in_packets(encode("libx264", ZERO_LATENCY), "av1"), policy)
    garbage = [(i, b"\0\0\0\1" + bytes(range(40))) for i in range(70)]
    with pytest.raises(BagError, match="all 70 that were due are refused"):
        run(tmp_path / "garbage", in_packets(garbage), policy)


def test_images_are_not_decoded_before_they_are_asked_for(tmp_path):
    broken = tiny_bag.coded_image(START_NS, np.zeros((8, 8, 3), np.uint8), ".png", "png")
    broken.data = broken.data[:30]
    with Bag.open(tiny_bag.write(tmp_path / "bag", [(START_NS, "/image", broken)])) as bag:
        footage = Footage(bag, bag.topics["/image"])
        ((_, picture),) = footage.follow(bag.records())
        with pytest.raises(ImageError):
            picture().header  # noqa: B018
