"""From image to command: order, sampling, and what a refused image leaves behind."""

from pathlib import Path

import numpy as np
import pytest
from tiny_policy import NAN_PIXEL, SPEC, expected_values, write_policy

from sac_ae_ros.core.command import SafetyGate, Stop
from sac_ae_ros.core.errors import ImageError, PaceError
from sac_ae_ros.core.frames import FrameBudget
from sac_ae_ros.core.image import Image
from sac_ae_ros.core.novelty import NoveltyGuard, NoveltyLimits
from sac_ae_ros.core.pipeline import ImageToCommand, Watching
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import NoveltyStats
from sac_ae_ros.core.trial import Probes

MS = 1_000_000


class Rig:
    """A pipeline, its armed gate, and what it sent."""

    def __init__(self, policy: Path, watching: Watching | None = None) -> None:
        self.sent: list[np.ndarray] = []
        self.gate = SafetyGate(SPEC.actions, SPEC.control_period_s)
        self.gate.arm()
        self.pipeline = ImageToCommand(OnnxPolicy.own(policy.read_bytes(), "it"), self.gate, self.sent.append, watching)

    def see(self, pixel: int, at_ms: float, data: bytes | None = None):
        image = Image(8, 8, "rgb8", 24, False, bytes([pixel]) * 192 if data is None else data)
        return self.pipeline.process(image, 1_000_000_000 + round(at_ms * MS))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(write_policy(tmp_path / "tiny.onnx", nan=True))


def test_a_command_is_computed_from_the_newest_frames(rig):
    rig.see(100, 0)
    step = rig.see(140, 100)
    assert step.sent
    assert np.allclose(rig.sent[0], expected_values(100), atol=1e-6)
    assert np.allclose(rig.sent[1], expected_values(120), atol=1e-6)
    assert np.array_equal(step.values, rig.sent[1])
    assert step.stamp_ns == 1_100_000_000


def test_frames_between_ticks_are_not_used(rig):
    steps = [rig.see(100, ms) for ms in (0, 33, 67, 100, 133, 167, 200)]
    assert [step is not None for step in steps] == [True, False, False, True, False, False, True]
    assert len(rig.sent) == 3


def test_the_stack_restarts_after_a_gap_and_on_reset(rig):
    rig.see(100, 0)
    step = rig.see(140, 400)
    assert step.restarted
    assert np.allclose(rig.sent[-1], expected_values(140), atol=1e-6)
    rig.pipeline.reset()
    assert rig.see(80, 433) is None, "a reset adds no tick"
    assert rig.see(90, 500).restarted
    assert np.allclose(rig.sent[-1], expected_values(90), atol=1e-6)


def test_an_undecodable_image_uses_up_no_tick_and_is_not_stacked(rig):
    rig.see(100, 0)
    with pytest.raises(ImageError):
        rig.see(0, 100, data=b"short")
    assert rig.see(140, 133) is not None
    assert np.allclose(rig.sent[-1], expected_values(120), atol=1e-6)


def test_undecodable_images_do_not_bridge_a_gap(rig):
    rig.see(100, 0)
    for ms in (100, 200):
        with pytest.raises(ImageError):
            rig.see(0, ms, data=b"short")
    assert rig.see(140, 300).restarted


def test_nan_latches_and_nothing_is_sent(rig):
    rig.see(NAN_PIXEL, 0)
    assert not rig.sent
    assert rig.gate.state.stop is Stop.NAN
    step = rig.see(200, 100)
    assert step.values is not None
    assert not step.sent
    assert not rig.sent


def test_novelty_is_measured_on_every_nth_tick(tmp_path):
    rig = Rig(write_policy(tmp_path / "tiny.onnx"), Watching(novelty_every=3))
    novelty = [rig.see(100, 100 * i).novelty for i in range(5)]
    assert novelty == [0.25, None, None, 0.25, None]


def test_the_image_is_cropped_and_resized_to_the_policys_size(rig):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = 150  # the centred square
    image = Image(16, 32, "rgb8", 96, False, wide.tobytes())
    rig.pipeline.process(image, 5)
    assert np.allclose(rig.sent[0], expected_values(150), atol=1e-6)


def test_identical_pixels_are_refused_after_a_time_until_they_change(tmp_path):
    rig = Rig(write_policy(tmp_path / "tiny.onnx"), Watching(freeze_timeout_s=0.35))
    for ms in range(0, 400, 100):
        assert rig.see(100, ms).sent
    for ms in range(400, 1000, 50):
        with pytest.raises(ImageError, match="pixels have not changed"):
            rig.see(100, ms)
    assert rig.see(101, 1000).restarted


def test_novelty_stops_before_the_command_of_that_very_frame(tmp_path):
    spec = {"novelty": NoveltyStats(10, {"0.001": 0.01, "0.999": 0.02}, {})}
    guard = NoveltyGuard(NoveltyStats(10, {"0.001": 0.1, "0.999": 0.2}, {}), NoveltyLimits(1.1, 1.2, 2, 2))
    rig = Rig(write_policy(tmp_path / "tiny.onnx", spec=spec), Watching(novelty_every=1, novelty=guard))
    assert rig.see(100, 0).reading.score == pytest.approx(1.25)
    assert len(rig.sent) == 1, "1 of 2 is not enough"
    assert not rig.see(100, 100).sent
    assert rig.gate.state.stop is Stop.NOVELTY
    assert len(rig.sent) == 1


def test_another_policy_goes_on_with_the_same_frames(tmp_path):
    rig = Rig(write_policy(tmp_path / "tiny.onnx"))
    rig.see(100, 0)
    other = OnnxPolicy.own(write_policy(tmp_path / "other.onnx", gain=6.0).read_bytes(), "it")
    rig.pipeline.swap(other, None)
    assert not rig.see(140, 100).restarted
    assert np.allclose(rig.sent[-1], expected_values((120 + 127.5) / 2), atol=1e-6), "half the gain"


def test_some_stacks_are_kept_as_probes_with_what_was_answered(tmp_path):
    probes = Probes()
    rig = Rig(write_policy(tmp_path / "tiny.onnx"), Watching(probes=probes))
    for tick in range(11):
        rig.see(100 + tick, 100 * tick)
    stacks = [stack for stack, _ in probes.recent()]
    assert [stack[-1, 0, 0] for stack in stacks] == [100, 110]


def test_an_inference_that_took_too_long_can_stop_before_its_command_passes(tmp_path):
    rig = Rig(write_policy(tmp_path / "tiny.onnx"), Watching(before_command=lambda: rig.gate.report(Stop.HUNG, True)))
    assert not rig.see(100, 0).sent
    assert not rig.sent


def test_stamps_that_go_round_make_no_more_commands_than_time_passes(tmp_path):
    now_ns, refused = 0, 0
    budget = FrameBudget(100 * MS, lambda: now_ns)
    rig = Rig(write_policy(tmp_path / "tiny.onnx"), Watching(budget=budget))
    for i in range(300):  # 3 s of a 100 Hz camera
        now_ns = i * 10 * MS
        try:
            rig.see(100, 10 * i + (-240, -140, -40, 70)[i % 4])
        except PaceError:
            refused += 1
    assert 30 <= len(rig.sent) <= 4 + 33
    assert refused > 30


def test_a_frame_that_is_refused_for_its_pace_leaves_its_tick_to_the_next_one(tmp_path):
    now_ns = 0
    rig = Rig(write_policy(tmp_path / "tiny.onnx"), Watching(budget=FrameBudget(100 * MS, lambda: now_ns)))
    for ms in (0, 100, 200, 300):
        rig.see(100, ms)
    with pytest.raises(PaceError):
        rig.see(140, 400)
    now_ns = 100 * MS
    assert rig.see(140, 433) is not None
    assert np.allclose(rig.sent[-1], expected_values(120), atol=1e-6)


def test_frames_that_cannot_be_decoded_use_up_no_budget(tmp_path):
    rig = Rig(write_policy(tmp_path / "tiny.onnx"), Watching(budget=FrameBudget(100 * MS, lambda: 0)))
    for _ in range(20):
        with pytest.raises(ImageError, match="expected 192 bytes"):
            rig.see(0, 0, data=b"short")
    assert rig.see(100, 0) is not None
