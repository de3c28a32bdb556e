"""The second look shows at each tick what the policy saw at the first, and picks the moments worth a look."""

import dataclasses

import cv2
import numpy as np
import pytest
import tiny_bag
from tiny_bag import START_NS, header, make
from tiny_policy import SPEC, write_policy

from sac_ae_ros.bag.evaluate import Evaluation, Options, Tick, evaluate
from sac_ae_ros.bag.look import camera_picture, disagreement, look_again, most_disagreeing, most_novel
from sac_ae_ros.bag.reader import Bag
from sac_ae_ros.core.image import CompressedImage, Image, View
from sac_ae_ros.core.policy import OnnxPolicy

CAMERA_NS = 25_000_000


def noise(stamp_ns: int, height: int = 12, width: int = 16):
    pixels = np.random.default_rng(stamp_ns % 2**32).integers(0, 256, height * width * 3, np.uint8)
    return make("sensor_msgs/msg/Image", header(stamp_ns), height, width, "rgb8", 0, 3 * width, pixels)


def broken(stamp_ns: int):
    return make("sensor_msgs/msg/Image", header(stamp_ns), 12, 16, "rgb8", 0, 48, np.zeros(7, np.uint8))


@pytest.mark.parametrize(
    "options",
    [Options(), Options(view=View((2, 1, 8, 10), 90)), Options(stamp_source="log")],
    ids=["all", "view", "log"],
)
def test_it_shows_what_the_policy_saw(tmp_path, options):
    stamps = [START_NS + i * CAMERA_NS for i in range(60)]
    messages = [(at + 3_000_000, "/image", noise(at)) for at in stamps]
    due = START_NS + 8 * CAMERA_NS
    messages.insert(0, (due + 3_000_000, "/image", broken(due)))  # the same stamps as a frame that is due
    first = {}
    policy = OnnxPolicy.load(write_policy(tmp_path / "tiny.onnx"))
    with Bag.open(tiny_bag.write(tmp_path / "bag", messages)) as bag:
        result = evaluate(bag, policy, options, lambda tick, seen: first.update({tick.log_ns: seen.copy()}))
        looks = list(look_again(bag, result, options))
        two = list(look_again(bag, result, options, [11, 4]))
    assert [look.index for look in looks] == list(range(len(result.ticks)))
    assert all(look.tick is result.ticks[look.index] for look in looks)
    assert all(np.array_equal(look.seen, first[look.tick.log_ns]) for look in looks)
    assert {look.index for look in two} == {4, 11}
    whole = noise(START_NS).data.reshape(12, 16, 3)
    assert np.array_equal(looks[0].camera, np.rot90(whole, -1) if options.view.rotate_deg else whole)


def test_pictures_for_people_are_upright_whole_and_no_wider_than_needed():
    rgb = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    raw = Image(720, 1280, "rgb8", 3 * 1280, False, rgb)
    jpeg = CompressedImage(cv2.imencode(".jpg", rgb[..., ::-1])[1].ravel())
    assert camera_picture(raw, View()).shape == camera_picture(jpeg, View()).shape == (360, 640, 3)
    assert camera_picture(raw, View((0, 0, 8, 8), 90)).shape == (1138, 640, 3)
    small = rgb[:4, :6]
    turned = camera_picture(Image(4, 6, "rgb8", 18, False, small.copy()), View(None, 90))
    assert np.array_equal(turned, cv2.rotate(small, cv2.ROTATE_90_CLOCKWISE))


def scored(scores: list, recorded: list | None = None, every_s: float = 0.5) -> Evaluation:
    values = np.array([0.2, 0.0])
    ticks = [
        Tick(START_NS + round(i * every_s * 1e9), 0, values, each, score, score, 0.001, False)
        for i, (score, each) in enumerate(zip(scores, recorded or [None] * len(scores), strict=True))
    ]
    return Evaluation(SPEC, "0", "/image", "/cmd_vel", ticks)


def test_the_most_novel_moments_are_a_second_apart_and_the_worst_comes_first():
    result = scored([0.1, 0.9, 1.0, 0.8, 0.3, 0.2])
    assert most_novel(result) == [2, 4, 0]
    assert most_novel(result, 2) == [2, 4]
    for tick in result.ticks:
        tick.score = None  # a policy without statistics: by the error
    assert most_novel(result) == [2, 4, 0]
    assert most_novel(scored([None, 0.0])) == []


def test_disagreement_counts_each_action_by_its_range():
    assert (SPEC.actions[0].high - SPEC.actions[0].low, SPEC.actions[1].high - SPEC.actions[1].low) == (0.8, 3.0)
    near, far = np.array([0.2 + 0.08, 0.0]), np.array([0.2, 1.5])
    result = scored([None] * 5, [near, None, far, np.array([0.2, 0.0]), near])
    assert disagreement(result, result.ticks[0]) == pytest.approx(0.05)
    assert disagreement(result, result.ticks[2]) == pytest.approx(0.25)
    assert most_disagreeing(result) == [2, 0, 4]
    assert disagreement(result, dataclasses.replace(result.ticks[0], values=None)) is None
