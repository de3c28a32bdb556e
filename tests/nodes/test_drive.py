"""Drive: pipeline, gate and watchdog together, without ROS."""

import time
from pathlib import Path

import numpy as np
import pytest
from tiny_policy import SPEC, write_policy

from sac_ae_ros.core.command import Stop
from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.image import Image
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.nodes.drive import Drive, Sink, make_gate
from sac_ae_ros.nodes.params import PolicyParams

TIMEOUT_S = 2.5 * SPEC.control_period_s
IMAGE = Image(8, 8, "rgb8", 24, False, bytes([140]) * 192)


class Rig:
    """An armed drive, and what it sent: values, or None for a stop."""

    def __init__(self, policy: OnnxPolicy, params: PolicyParams) -> None:
        self.sent: list[np.ndarray | None] = []
        rest = lambda: np.zeros(2)  # noqa: E731
        sink = Sink(self.sent.append, lambda _: self.sent.append(None), rest)
        self.drive = Drive(policy, params, make_gate(policy, params, rest), sink)
        self.drive.arm()


@pytest.fixture
def policy(tmp_path: Path) -> OnnxPolicy:
    return OnnxPolicy.load(write_policy(tmp_path / "tiny.onnx"))


@pytest.fixture
def rig(policy: OnnxPolicy, request: pytest.FixtureRequest):
    rig = Rig(policy, getattr(request, "param", PolicyParams()))
    yield rig
    rig.drive.end()


def test_a_first_inference_that_hangs_is_stopped_and_its_command_is_not_sent(rig, policy, monkeypatch):
    act = policy.act

    def slow(*args: object) -> object:
        time.sleep(TIMEOUT_S + 2 * SPEC.control_period_s)
        return act(*args)

    monkeypatch.setattr(policy, "act", slow)
    step = rig.drive.process(IMAGE, 1)
    assert step is not None
    assert not step.sent
    assert rig.drive.state.stop is Stop.HUNG
    assert rig.sent
    assert all(sent is None for sent in rig.sent)


@pytest.mark.parametrize("rig", [PolicyParams(max_age_s=60.0)], indirect=True)
def test_a_tolerant_max_age_leaves_the_watchdog_alone(rig):
    assert rig.drive.process(IMAGE, 1).sent
    time.sleep(TIMEOUT_S + 2 * SPEC.control_period_s)
    assert rig.drive.state.stop is Stop.STALE


def test_undecodable_first_frames_start_the_watchdog_too(rig):
    with pytest.raises(ImageError):
        rig.drive.process(Image(8, 8, "rgb8", 24, False, b"short"), 1)
    time.sleep(TIMEOUT_S + 2 * SPEC.control_period_s)
    assert rig.drive.state.stop is Stop.STALE
