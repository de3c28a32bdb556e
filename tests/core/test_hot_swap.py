"""HotSwap: the running policy stays until a checked one is taken, and nothing that goes wrong is lost."""

import gc
import hashlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_policy import GAIN, NAN_PIXEL, write_policy

from sac_ae_ros.core.errors import StoreError
from sac_ae_ros.core.hot_swap import HotSwap, Outcome
from sac_ae_ros.core.model_store import Announcement, ModelStore, Version
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.trial import Probes


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("policies")
    options = {
        "first": {},
        "second": {"gain": GAIN + 1},
        "third": {"gain": GAIN + 2},
        "contrary": {"gain": -GAIN},
        "blind": {"nan": True},
        "slow": {"slow_always": 1},
        "wider": {"spec": {"frame_stack": 3}},
    }
    return {name: write_policy(folder / name, **chosen).read_bytes() for name, chosen in options.items()}


class Rig:
    """A running policy, a folder, and a HotSwap that the tests drive like a node."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.files, self.store, self.probes = files, ModelStore(folder / "store"), Probes()
        self.load: Callable[[bytes, str], OnnxPolicy] = OnnxPolicy.own
        self.outcomes: list[Outcome] = []
        self.swap = self.made()

    def made(self, **options: float) -> HotSwap:
        limits = {"max_action_shift": 0.5, "max_latency_s": 1.0, **options}
        first = OnnxPolicy.own(self.files["first"], "first")
        return HotSwap(first, lambda data, title: self.load(data, title), self.probes, **limits)

    def hang(self) -> tuple[threading.Event, threading.Event]:
        """Versions loaded from now on hang in inference, which sets the first event, until the second one is set."""
        hangs, go_on = threading.Event(), threading.Event()

        def load(data: bytes, title: str) -> OnnxPolicy:
            policy = OnnxPolicy.own(data, title)
            act = policy.act

            def late(*args):
                hangs.set()
                assert go_on.wait(60)
                return act(*args)

            policy.act = late
            return policy

        self.load = load
        return hangs, go_on

    def publish(self, name: str) -> Version:
        """As ModelStore does, but it vets nothing."""
        data = self.files[name]
        self.store.folder.mkdir(exist_ok=True)
        number = 1 + max((int(path.name[:6]) for path in self.store.folder.iterdir()), default=0)
        sha256 = hashlib.sha256(data).hexdigest()
        (self.store.folder / f"{number:06d}-{sha256}.onnx").write_bytes(data)
        return self.store.find(number, sha256)

    def see(self, pixel: int) -> None:
        stack = np.full((6, 8, 8), pixel, np.uint8)
        self.probes.add(stack, self.swap.running.act(stack).action)

    def reload(self, wanted: Version | Announcement | None = None) -> Outcome:
        told = threading.Event()

        def done(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            told.set()

        assert self.swap.start(self.store, wanted, done)
        assert told.wait(20)
        return self.outcomes[-1]

    def refuses(self, *says: str, wanted: Version | Announcement | None = None) -> Outcome:
        """A reload that fails: in one line, and the running policy stays."""
        before = self.swap.running
        outcome = self.reload(wanted)
        assert not outcome.ok
        assert "\n" not in outcome.text
        for words in (*says, "stays in use"):
            assert words in outcome.text
        assert self.swap.outcome == outcome
        assert self.swap.take() is None
        assert self.swap.running is before
        return outcome

    def takes(self, name: str) -> OnnxPolicy:
        version = self.publish(name)
        outcome = self.reload()
        assert outcome.ok, outcome.text
        taken = self.swap.take()
        assert taken is not None
        assert (taken.sha256, self.swap.running_version) == (version.sha256, version.number)
        return taken


@pytest.fixture
def rig(tmp_path, files) -> Rig:
    return Rig(tmp_path, files)


def test_a_checked_version_waits_until_it_is_taken_once(rig):
    first = rig.swap.running
    assert (rig.swap.outcome, rig.swap.previous, rig.swap.running_version, rig.swap.take()) == (None, None, None, None)
    version = rig.publish("second")
    rig.see(120)
    outcome = rig.reload()
    assert (outcome.ok, outcome.version) == (True, 1)
    assert "version 1 passed and takes over (greatest action shift" in outcome.text
    assert "on 1 recent frames" in outcome.text
    assert rig.swap.running is first
    taken = rig.swap.take()
    assert taken is rig.swap.running
    assert taken.sha256 == version.sha256
    assert (rig.swap.running_version, rig.swap.previous) == (1, first)
    assert "version 1 is in use (greatest action shift" in rig.swap.outcome.text
    assert rig.probes.recent() == []  # the second has not answered anything yet
    assert rig.swap.take() is None


def test_an_announced_version_is_loaded_and_no_other(rig):
    second = rig.publish("second")
    rig.publish("third")
    outcome = rig.reload(Announcement(1, second.sha256))
    assert (outcome.ok, outcome.version) == (True, 1)
    assert rig.swap.take().sha256 == second.sha256


def test_what_runs_already_is_not_loaded_again(rig):
    rig.publish("first")
    rig.load = lambda data, title: pytest.fail("loaded")
    outcome = rig.reload()
    assert outcome == Outcome(True, 1, "version 1 is already in use")
    assert rig.swap.take() is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("contrary", "action linear: expected at most 0.5 off"),
        ("blind", "expected finite actions"),
        ("wider", "expected frame_stack as the running policy has it, 2, got 3"),
    ],
)
def test_a_version_that_fails_its_trial_is_refused(rig, name, says):
    rig.see(NAN_PIXEL)
    version = rig.publish(name)
    assert rig.refuses("version 1 refused", says, "the policy at start stays").version == 1
    rig.refuses(says, wanted=version)


def test_a_slow_version_is_refused(rig):
    rig.swap = rig.made(max_latency_s=0.001)
    rig.publish("slow")
    rig.refuses("version 1 refused: expected most inferences within 1.0 ms")


def test_an_empty_missing_or_damaged_store_is_an_outcome(rig):
    assert rig.refuses("reload refused: cannot read", "No such file").version is None
    rig.store.folder.mkdir()
    rig.refuses("expected a version, got none")
    version = rig.publish("second")
    version.path.write_bytes(b"not it")
    rig.refuses("version 1 refused", "the file is damaged")
    rig.refuses("no such number", wanted=Announcement(9, "0" * 64))


@pytest.mark.parametrize("error", [MemoryError(), KeyError("what\nis this"), SystemExit(3)])
def test_errors_of_any_kind_become_an_outcome(rig, error):
    def load(data: bytes, title: str) -> OnnxPolicy:
        raise error

    rig.publish("second")
    rig.load = load
    rig.refuses("version 1 refused", type(error).__name__)
    rig.load = OnnxPolicy.own
    assert rig.reload().ok


def test_a_hung_inference_is_given_up_and_never_takes_over(rig):
    rig.swap = rig.made(patience_s=0.5)
    _, go_on = rig.hang()
    rig.publish("second")
    rig.refuses("version 1 refused: expected it read, loaded and tried within 0.5 s", "given up")
    rig.load = OnnxPolicy.own
    rig.publish("third")
    rig.refuses("the version before it still hangs; restart the node")
    assert [thread.name for thread in threading.enumerate()].count("reload-try") == 1
    go_on.set()
    rig.swap._worker.join(60)
    assert rig.swap.take() is None
    assert "still hangs" in rig.swap.outcome.text
    assert rig.reload().ok


def test_closing_waits_for_an_inference_but_not_for_ever(rig):
    hangs, go_on = rig.hang()
    rig.publish("second")
    rig.swap.start(rig.store, None, pytest.fail)
    assert hangs.wait(20)
    assert not rig.swap.close(0.0)
    go_on.set()
    assert rig.swap.close(60)
    assert rig.swap.take() is None


def test_one_reload_at_a_time(rig):
    begun, go_on = threading.Event(), threading.Event()

    def load(data: bytes, title: str) -> OnnxPolicy:
        begun.set()
        assert go_on.wait(20)
        return OnnxPolicy.own(data, title)

    rig.publish("second")
    rig.load = load
    asked = threading.Thread(target=rig.reload)
    asked.start()
    assert begun.wait(20)
    assert rig.swap.start(rig.store, None, pytest.fail) is False
    go_on.set()
    asked.join(20)
    assert rig.outcomes[-1].ok


def test_a_callback_may_start_the_next_reload(rig):
    second, third = rig.publish("second"), rig.publish("third")
    told = threading.Event()
    rig.swap.start(rig.store, second, lambda _: rig.swap.start(rig.store, third, lambda _: told.set()))
    assert told.wait(20)
    assert rig.swap.take().sha256 == third.sha256


def test_a_version_is_compared_with_what_took_over_while_it_was_tried(rig, monkeypatch):
    rig.publish("second")
    assert rig.reload().ok
    compared = []
    real = rig.probes.recent

    def recent() -> list:
        compared.append(rig.swap.running_version)
        if len(compared) == 1:
            rig.swap.take()  # the frame thread, just after this reload has looked at what runs
        return real()

    monkeypatch.setattr(rig.probes, "recent", recent)
    rig.publish("third")
    assert rig.reload().ok
    assert compared == [None, 1]
    assert rig.swap.take().sha256 == rig.store.latest().sha256


def test_rolling_back_returns_to_the_one_before_without_the_disk(rig):
    first = rig.swap.running
    second = rig.takes("second")
    for path in rig.store.folder.iterdir():
        path.unlink()
    rig.store.folder.rmdir()
    assert rig.swap.rollback() is first
    assert rig.swap.rollback() is first  # asked again before it was taken
    assert rig.swap.going_back
    assert rig.swap.running is second
    assert "rollback: the policy at start takes over from version 1" in rig.swap.outcome.text
    assert rig.swap.take() is first
    assert not rig.swap.going_back
    assert rig.swap.refused == {second.sha256}
    with pytest.raises(StoreError, match="expected a policy before this one, got none; the policy at start stays"):
        rig.swap.rollback()


def test_what_was_rolled_back_is_loaded_for_a_person_only(rig):
    second = rig.takes("second")
    rig.swap.rollback()
    rig.swap.take()
    version = rig.store.latest()
    rig.refuses("version 1 refused: it was rolled back here; ~/reload", wanted=version)
    assert rig.reload().ok
    assert rig.swap.take().sha256 == second.sha256
    assert rig.swap.refused == set()


def test_rolling_back_drops_what_waits(rig):
    first = rig.swap.running
    version = rig.publish("second")
    rig.reload()
    assert rig.swap.rollback() is first
    assert rig.swap.take() is None
    assert rig.swap.refused == {version.sha256}


@pytest.mark.parametrize("ended_by", ["rollback", "close"])
def test_what_is_being_tried_is_dropped_by_a_rollback_and_by_close(rig, ended_by):
    begun, go_on, told = threading.Event(), threading.Event(), threading.Event()

    def load(data: bytes, title: str) -> OnnxPolicy:
        begun.set()
        assert go_on.wait(20)
        return OnnxPolicy.own(data, title)

    first, second = rig.swap.running, rig.takes("second")
    rig.publish("third")
    rig.load = load
    assert rig.swap.start(rig.store, None, lambda outcome: told.set() or rig.outcomes.append(outcome))
    assert begun.wait(20)
    rig.swap.rollback() if ended_by == "rollback" else rig.swap.close(0.0)
    go_on.set()
    rig.swap._worker.join(20)
    if ended_by == "rollback":
        assert told.wait(20)
        assert "version 2 refused: a rollback was asked for meanwhile" in rig.outcomes[-1].text
        assert rig.swap.take() is first
    else:
        assert not told.wait(0.2)
        assert rig.swap.take() is None
        assert rig.swap.running is second


def test_many_swaps_leave_no_threads_no_files_and_two_policies(rig):
    alive = []

    def load(data: bytes, title: str) -> OnnxPolicy:
        policy = OnnxPolicy.own(data, title)
        alive.append(weakref.ref(policy))
        return policy

    rig.load = load
    rig.takes("second")
    threads, opened = _threads(), len(os.listdir("/proc/self/fd"))
    for i in range(30):
        rig.takes(("third", "second")[i % 2])
    time.sleep(0.05)  # the last thread is past its callback, but may not be gone
    gc.collect()
    assert _threads() <= threads
    assert len(os.listdir("/proc/self/fd")) == opened
    assert sum(policy() is not None for policy in alive) == 2


def _threads() -> int:
    """All of the process, onnxruntime's as well."""
    return len(os.listdir("/proc/self/task"))


def test_frames_go_on_while_versions_are_loaded(rig):
    """No lock is held while anything is read, loaded or tried."""
    rig.publish("slow")
    told = threading.Event()
    rig.swap.start(rig.store, None, lambda _: told.set())
    begun, longest = time.perf_counter(), 0.0
    while not told.is_set():
        started = time.perf_counter()
        rig.swap.take()
        rig.see(127)
        longest = max(longest, time.perf_counter() - started)
        time.sleep(0.001)
    assert longest < (time.perf_counter() - begun) / 2


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_what_loads_is_told_that_nobody_waits_for_it(rig, end):
    """As a policy file's vetting in a child process, which may take long."""
    begun, told = threading.Event(), threading.Event()

    def load(data: bytes, title: str) -> OnnxPolicy:
        assert not rig.swap.given_up
        begun.set()
        deadline_s = time.monotonic() + 20
        while not rig.swap.given_up and time.monotonic() < deadline_s:
            time.sleep(0.001)
        if rig.swap.given_up:
            told.set()
        raise StoreError("given up")

    rig.load = load
    rig.publish("second")
    assert rig.swap.start(rig.store, None, rig.outcomes.append)
    assert begun.wait(10)
    assert getattr(rig.swap, end)()
    assert told.wait(10)
