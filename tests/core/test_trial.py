"""A version may take over only if it fits the running one's contract and answers finitely, alike and in time."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_policy import GAIN, NAN_PIXEL, SPEC, expected_action, write_policy

from sac_ae_ros.core.errors import ModelError, SpecError
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.spec import ActionSpec
from sac_ae_ros.core.trial import RUNS, Probe, Probes, Trial, check_compatible, reference, try_candidate

LIMITS = {"max_action_shift": 0.5, "max_latency_s": 10.0}


def policy(folder: Path, **options: Any) -> OnnxPolicy:
    return OnnxPolicy.own(write_policy(folder / "it.onnx", **options).read_bytes(), "it")


def grey(pixel: int) -> np.ndarray:
    return np.full((6, 8, 8), pixel, np.uint8)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> OnnxPolicy:
    return policy(tmp_path_factory.mktemp("running"))


@pytest.fixture(scope="module")
def references(running) -> list[Probe]:
    return reference(running)


def seen(running: OnnxPolicy, *pixels: int) -> list[Probe]:
    return [Probe(grey(pixel), running.act(grey(pixel)).action) for pixel in pixels]


def test_a_reference_is_black_white_and_noise(running, references):
    assert [int(probe.stack.min()) for probe in references[:2]] == [0, 255]
    assert references[2].stack.std() > 60
    np.testing.assert_allclose(references[0].action, expected_action(0), rtol=1e-5)
    np.testing.assert_array_equal(reference(running)[2].stack, references[2].stack)


def test_the_same_policy_shifts_nothing(running, references):
    trial = try_candidate(running, SPEC, seen(running, 50, 120), references, **LIMITS)
    assert (trial.max_shift, trial.probes) == (0.0, 2)
    assert 0 < trial.median_latency_s < 1
    assert "on 2 recent frames" in str(trial)


def test_the_greatest_shift_on_recent_frames_counts(running, references, tmp_path):
    other = policy(tmp_path, gain=GAIN + 4)
    probes = seen(running, 127, 140, 150, 255)
    at = 140 / 255 - 0.5
    shift = abs(np.tanh((GAIN + 4) * at) - np.tanh(GAIN * at))
    assert try_candidate(other, SPEC, probes, references, **LIMITS).max_shift == pytest.approx(shift, abs=1e-5)
    with pytest.raises(ModelError, match=r"expected at most 0.05 off .* got 0.13, beyond it on 2 of 4 recent frames"):
        try_candidate(other, SPEC, probes, references, max_action_shift=0.05, max_latency_s=10)


def test_the_action_that_shifts_most_is_named(running, references):
    stack = grey(100)
    action = running.act(stack).action + np.array([0.1, -0.7], np.float32)
    with pytest.raises(ModelError, match=r"^action angular: expected at most 0.5 .* got 0.70, beyond it on 1 of 1"):
        try_candidate(running, SPEC, [Probe(stack, action)], references, **LIMITS)


def test_without_frames_the_test_pictures_are_judged(running, references, tmp_path):
    contrary = policy(tmp_path, gain=-GAIN)
    with pytest.raises(ModelError, match=r"beyond it on 2 of 3 test pictures \(no frame came yet"):
        try_candidate(contrary, SPEC, [], references, **LIMITS)
    trial = try_candidate(contrary, SPEC, seen(running, 127), references, **LIMITS)  # nearly 0 either way
    assert trial.probes == 1
    assert "test pictures" in str(Trial(0.0, 0.001, 0))


def test_actions_that_are_not_finite_on_a_recent_frame_are_refused(running, references, tmp_path):
    blind = policy(tmp_path, nan=True)
    with pytest.raises(ModelError, match=r"expected finite actions within -1..1, got .*nan"):
        try_candidate(blind, SPEC, seen(running, 100, NAN_PIXEL), references, **LIMITS)
    assert try_candidate(blind, SPEC, seen(running, 100), references, **LIMITS).max_shift == 0


def test_a_slow_version_is_refused_before_all_runs(running, references, tmp_path):
    slow = policy(tmp_path, slow_always=1)
    most = RUNS // 2 + 1
    with pytest.raises(ModelError, match=f"expected most inferences within 1.0 ms, got {most} slower ones, up to"):
        try_candidate(slow, SPEC, [], references, max_action_shift=0.5, max_latency_s=0.001)


def test_a_trial_that_is_given_up_ends_with_the_inference_under_way(running, references):
    asked = []
    with pytest.raises(ModelError, match="given up"):
        try_candidate(running, SPEC, [], references, **LIMITS, given_up=lambda: asked.append(1) or len(asked) > 3)
    assert len(asked) == 4


def other_camera(**fields: Any) -> dict[str, Any]:
    return {"cameras": (dataclasses.replace(SPEC.cameras[0], **fields),)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frame_stack": 3}, "frame_stack as the running policy has it, 2, got 3"),
        ({"control_period_s": 0.05}, "control_period_s as the running policy has it, 0.1, got 0.05"),
        (other_camera(height=9), r"cameras\[0\].height as the running policy has it, 8, got 9"),
        (other_camera(crop="none"), r"cameras\[0\].crop as the running policy has it, center, got none"),
        (other_camera(fovy_deg=60.0), r"cameras\[0\].fovy_deg as the running policy has it, 75.0, got 60.0"),
        (other_camera(fovy_deg=None, k=(1.0,) * 9), r"cameras\[0\].fovy_deg .* 75.0, got None"),
        ({"actions": SPEC.actions[:1]}, r"actions .* \['linear', 'angular'\], got \['linear'\]"),
        ({"actions": SPEC.actions[::-1]}, r"got \['angular', 'linear'\]"),
        (
            {"actions": (SPEC.actions[0], ActionSpec("angular", "deg/s", -1.5, 1.5))},
            "actions.angular.unit as the running policy has it, rad/s, got deg/s",
        ),
        (
            {"actions": (ActionSpec("linear", "m/s", -0.2, 0.9), SPEC.actions[1])},
            r"linear.high .* 0.6, got 0.9",
        ),
    ],
)
def test_another_contract_is_refused_by_field_and_both_values(change, says):
    with pytest.raises(SpecError, match=says):
        check_compatible(SPEC, dataclasses.replace(SPEC, **change))


def test_names_versions_and_training_may_differ():
    newer = dataclasses.replace(SPEC, version="2", name="finer", **other_camera(name="front", source_height=480))
    check_compatible(SPEC, newer)


def test_a_candidate_with_another_contract_is_not_run(running, references, tmp_path):
    with pytest.raises(SpecError, match="frame_stack"):
        try_candidate(policy(tmp_path, spec={"frame_stack": 3}), SPEC, [], references, **LIMITS)


def test_probes_are_the_newest():
    probes = Probes(capacity=3)
    for pixel in range(5):
        probes.add(grey(pixel), np.zeros(2, np.float32))
    assert [int(probe.stack[0, 0, 0]) for probe in probes.recent()] == [2, 3, 4]
    probes.clear()
    assert probes.recent() == []
