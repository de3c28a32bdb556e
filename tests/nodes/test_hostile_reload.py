"""~/reload of hostile files under a driving robot: e_stop acts as soon as without, the running version stays."""

import hashlib
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fault_judge import SLACK_S
from fault_publishers import Switch
from fault_rig import SPEC, Rig
from hostile_policy import CHECKS_OFF, KINDS, checks_off, write_hostile, write_large
from ros_network import Network

pytestmark = pytest.mark.real_time

# after the child has begun, while it reads and checks, while it hangs
PRESSED_S = (0.05, 0.3, 1.0)


@pytest.fixture(params=["checked", "unchecked"])
def rig(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> Iterator[Rig]:
    """Checked: as shipped. Unchecked: as if the checks did not know these files, and the child met them all."""
    if request.param == "unchecked":
        network.env["PYTHONPATH"] = checks_off(tmp_path)
    rig = Rig(network, tmp_path, nimble=True)
    yield rig
    rig.close()
    assert rig.process.popen.poll() is None
    assert "Traceback" not in rig.process.log


def store(rig: Rig, data: bytes) -> None:
    """What somebody who may write to the folder can do; `sac-ae publish` would refuse hostile files."""
    number = len(list(rig.store.folder.iterdir())) + 1
    (rig.store.folder / f"{number:06d}-{hashlib.sha256(data).hexdigest()}.onnx").write_bytes(data)


def stopped_after(rig: Rig, switch: Switch) -> float:
    """Presses e_stop, and lets it go after the stop."""
    pressed_s = switch.say(True)
    took_s = rig.first_stop(pressed_s) - pressed_s
    switch.say(False)
    return took_s


def longest_without(rig: Rig, switch: Switch) -> float:
    """How long e_stop takes while nothing is loaded, seconds, at most."""
    rig.network.trigger("policy_node/reload")  # refused; but its client is known from now on
    took_s = []
    for _ in range(5):
        rig.rearm()
        took_s.append(stopped_after(rig, switch))
    return max(took_s)


def reloading(rig: Rig) -> tuple[threading.Thread, list[str]]:
    answers: list[str] = []

    def ask() -> None:
        with suppress(AssertionError):  # no answer
            answer = rig.network.trigger("policy_node/reload")
            answers.append(f"{answer.success}: {answer.message}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, answers


def test_e_stop_during_a_reload_of_a_hostile_file(rig: Rig, request: pytest.FixtureRequest):
    unchecked = "unchecked" in request.node.name
    rig.drive()
    switch = rig.switch("e_stop", False)
    within_s = longest_without(rig, switch) + SLACK_S
    for kind, says in (CHECKS_OFF if unchecked else KINDS).items():
        store(rig, write_hostile(rig.folder / "hostile.onnx", kind).read_bytes())
        for after_s in PRESSED_S[2:] if unchecked else PRESSED_S[:2]:
            rig.rearm()
            thread, answers = reloading(rig)
            time.sleep(after_s)
            assert stopped_after(rig, switch) < within_s, kind
            thread.join()
            assert answers[0].startswith("False"), answers
            assert says in answers[0]
            assert answers[0].endswith("stays in use")
            rig.rearm()


def test_e_stop_during_a_reload_of_the_largest_file(network: Network, tmp_path: Path):
    with closing(Rig(network, tmp_path, nimble=True)) as rig:
        store(rig, write_large(tmp_path / "large.onnx", 60, spec=SPEC).read_bytes())
        rig.drive()
        switch = rig.switch("e_stop", False)
        within_s = longest_without(rig, switch) + SLACK_S
        for after_s in (0.4, 1.0):
            rig.rearm()
            thread, answers = reloading(rig)
            time.sleep(after_s)
            assert stopped_after(rig, switch) < within_s
            thread.join()
            assert answers[0].startswith("True"), answers
            rig.network.until(lambda: '"stored_version": 1' in rig.states[-1][1].data, 10, "the swap")
            assert rig.network.trigger("policy_node/rollback").success


def test_a_signal_during_a_hanging_reload_ends_the_node_in_order(network: Network, tmp_path: Path):
    network.env["PYTHONPATH"] = checks_off(tmp_path, "policy_file.CPU_S = 20")
    with closing(Rig(network, tmp_path, nimble=True)) as rig:
        store(rig, write_hostile(tmp_path / "hostile.onnx", "processor").read_bytes())
        rig.drive()
        reloading(rig)
        time.sleep(2.0)
        begun_s = time.monotonic()
        rig.process.popen.send_signal(signal.SIGINT)
        assert rig.process.wait() == 0, rig.process.log
        assert rig.stops(begun_s), "it said stop"
        assert "hangs" not in rig.process.log
