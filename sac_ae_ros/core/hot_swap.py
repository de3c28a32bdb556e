"""HotSwap: another version of the policy, loaded and tried beside the one that runs, taken between two frames.

Nothing that takes time happens where frames are processed: a thread of its own reads, loads and tries a candidate;
`take` only exchanges two references. Whatever goes wrong in that thread becomes an Outcome, and the running policy
stays. The version before the running one is kept in memory, so that going back needs no disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sac_ae_ros.core.errors import SacAeError, StoreError, printable
from sac_ae_ros.core.model_store import Announcement, ModelStore, Version
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.trial import Probe, Probes, check_compatible, reference, try_candidate

PATIENCE_S = 30.0

Load = Callable[[bytes, str], OnnxPolicy]
Wanted = Version | Announcement | None


@dataclass(frozen=True)
class Outcome:
    """How the last reload or rollback went: `text` is one line for people, `version` None where none was found."""

    ok: bool
    version: int | None
    text: str


@dataclass(frozen=True, eq=False)
class _Held:
    """A policy in memory; `version` None for the one the node was started with."""

    policy: OnnxPolicy
    version: int | None
    references: list[Probe]
    passed: str = ""

    def __str__(self) -> str:
        return "the policy at start" if self.version is None else f"version {self.version}"


@dataclass(eq=False)
class _Job:
    """One reload under way; whoever sets its outcome first decides it."""

    store: ModelStore
    wanted: Wanted
    done: Callable[[Outcome], None]
    version: int | None = None
    outcome: Outcome | None = None
    decided: threading.Event = field(default_factory=threading.Event)


class HotSwap:
    """The policy that runs, the one before it, and the one that waits to take over; thread-safe."""

    def __init__(
        self,
        running: OnnxPolicy,
        load: Load,
        probes: Probes,
        *,
        max_action_shift: float,
        max_latency_s: float,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Lets `running` answer three test pictures, so make it before the first frame.

        Args:
            running: the policy at start.
            load: makes a policy of a file's bytes and the title that errors use.
            probes: what the running policy sees and answers; forgotten when another takes over.
            max_action_shift: see `try_candidate`.
            max_latency_s: see `try_candidate`.
            patience_s: reading, loading and trying a version may take so long in all.

        Raises:
            ModelError: inference failed.
        """
        self._load, self._probes, self._patience_s = load, probes, patience_s
        self._max_action_shift, self._max_latency_s = max_action_shift, max_latency_s
        self._running = _Held(running, None, reference(running))
        self._previous: _Held | None = None
        self._waiting: _Held | None = None
        self._job: _Job | None = None
        self._supervisor: threading.Thread | None = None
        self._worker: threading.Thread | None = None
        self._trying: _Job | None = None
        self._outcome: Outcome | None = None
        self._refused: set[str] = set()
        self._going_back = self._closed = False
        self._lock = threading.RLock()

    @property
    def running(self) -> OnnxPolicy:
        """The policy in use."""
        return self._running.policy

    @property
    def running_version(self) -> int | None:
        """Its number in the store, None for the policy at start."""
        return self._running.version

    @property
    def previous(self) -> OnnxPolicy | None:
        """What `rollback` goes back to."""
        held = self._previous
        return None if held is None else held.policy

    @property
    def going_back(self) -> bool:
        """Whether the policy that waits does so by `rollback`: it should not wait for an episode's end."""
        return self._going_back

    @property
    def outcome(self) -> Outcome | None:
        """How the last reload or rollback went, None before the first."""
        return self._outcome

    @property
    def given_up(self) -> bool:
        """Whether nobody waits any more for what is being loaded: `load` may ask, and end early."""
        return self._trying is not None and self._trying.decided.is_set()

    @property
    def refused(self) -> frozenset[str]:
        """SHA-256 of what was rolled back here; announcements of it are ignored, a person's ask is not."""
        with self._lock:
            return frozenset(self._refused)

    def start(self, store: ModelStore, wanted: Wanted, done: Callable[[Outcome], None]) -> bool:
        """Begins to read, load and try a version in the background; False, and nothing else, while one is under way.

        Args:
            store: where the versions are.
            wanted: the one that was announced; None, a person's ask, means the newest.
            done: called in the background with the outcome, once; it may call `start`.
        """
        job = _Job(store, wanted, done, wanted.number if wanted else None)
        with self._lock:
            if self._job is not None or self._closed:
                return False
            self._job = job
        try:
            self._supervisor = self._begun("reload", self._supervise, job)
        except RuntimeError as error:  # no more threads
            self._decide(job, self._failed(job, str(error)))
            self._finish(job)
        return True

    def take(self) -> OnnxPolicy | None:
        """Between two frames: the policy that takes over from now on, once, or None. It is `running` from then on."""
        with self._lock:
            held = self._waiting
            if held is None:
                return None
            self._previous = None if self._going_back else self._running
            self._running, self._waiting, self._going_back = held, None, False
            self._probes.clear()
            self._refused.discard(held.policy.sha256)
            self._outcome = Outcome(True, held.version, f"{held} is in use{held.passed}")
            return held.policy

    def rollback(self) -> OnnxPolicy:
        """Drops what is loading or waiting, and makes the policy before the running one wait for `take`.

        The running one is refused from then on unless a person asks for it. Where there is none before it, dropping
        what was to come is all: then the running one is returned. Touches no disk.

        Raises:
            StoreError: there is neither.
        """
        with self._lock:
            coming, back = self._job or self._waiting, self._previous
            if self._going_back and self._waiting is not None:
                return self._waiting.policy
            if back is None and coming is None:
                raise StoreError(f"rollback: expected a policy before this one, got none; {self._running} stays in use")
            if self._job is not None:
                self._decide(self._job, self._failed(self._job, "a rollback was asked for meanwhile"))
            if self._waiting is not None:
                self._refused.add(self._waiting.policy.sha256)
                self._waiting = None
            if back is None:
                self._outcome = Outcome(True, self._running.version, f"rollback: {self._running} stays in use")
                return self.running
            self._refused.add(self._running.policy.sha256)
            self._waiting, self._going_back = back, True
            self._outcome = Outcome(True, back.version, f"rollback: {back} takes over from {self._running}")
            return back.policy

    def close(self, timeout_s: float = 2.0) -> bool:
        """Gives up what is under way, whose `done` is not called any more, and waits for its thread to end.

        False means that an inference still hangs after `timeout_s`. A process that ends in the ordinary way then is
        aborted by onnxruntime, whose thread outlives the interpreter: leave by os._exit.
        """
        with self._lock:
            self._closed = True
            if self._job is not None:
                self._decide(self._job, self._failed(self._job, "the node was cleaned up meanwhile"))
            supervisor = self._supervisor
        deadline = time.monotonic() + timeout_s
        self._join(supervisor, deadline)
        worker = self._worker  # which the supervisor may have begun meanwhile
        self._join(worker, deadline)
        return worker is None or not worker.is_alive()

    @staticmethod
    def _join(thread: threading.Thread | None, deadline: float) -> None:
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _supervise(self, job: _Job) -> None:
        """Waits for a worker, but not for ever: an inference that hangs cannot be ended, only left behind."""
        try:
            if self._worker is not None:
                self._worker.join(self._patience_s)
                if self._worker.is_alive():
                    raise SacAeError("the version before it still hangs; restart the node")
            self._worker = self._begun("reload-try", self._work, job)
            job.decided.wait(self._patience_s)
            late = f"expected it read, loaded and tried within {self._patience_s:g} s, got no end; given up"
            self._decide(job, self._failed(job, late))  # unless it was decided in time
        except Exception as error:
            self._decide(job, self._failed(job, _line(error)))
        self._finish(job)

    @staticmethod
    def _begun(name: str, target: Callable[[_Job], None], job: _Job) -> threading.Thread:
        thread = threading.Thread(target=target, args=(job,), name=name, daemon=True)
        thread.start()
        return thread

    def _finish(self, job: _Job) -> None:
        with self._lock:
            self._job = None
        assert job.outcome is not None
        if not self._closed:
            job.done(job.outcome)

    def _work(self, job: _Job) -> None:
        self._trying = job
        try:
            self._try(job)
        except BaseException as error:  # nothing may end this thread without an outcome
            self._decide(job, self._failed(job, _line(error)))

    def _try(self, job: _Job) -> None:
        version = self._find(job)
        if version is None:
            return
        policy = self._load(job.store.read(version), f"version {version.number}")
        check_compatible(self.running.spec, policy.spec)
        references = reference(policy)
        while True:
            with self._lock:
                running, probes = self._running, self._probes.recent()
            trial = try_candidate(
                policy,
                running.policy.spec,
                probes,
                running.references,
                max_action_shift=self._max_action_shift,
                max_latency_s=self._max_latency_s,
                given_up=job.decided.is_set,
            )
            held = _Held(policy, version.number, references, f" ({trial})")
            with self._lock:
                if running is self._running or job.outcome is not None:
                    self._decide(job, Outcome(True, version.number, f"{held} passed and takes over ({trial})"), held)
                    return  # else another one took over meanwhile: compare with that one

    def _find(self, job: _Job) -> Version | None:
        """The version to load; None when it is decided without."""
        if job.wanted is None:
            version = job.store.latest()
            if version is None:
                raise StoreError(f"{job.store.folder}: expected a version, got none; `sac-ae publish` a policy there")
            job.version = version.number
        else:
            version = job.store.find(job.wanted.number, job.wanted.sha256)
        with self._lock:
            if job.wanted is not None and version.sha256 in self._refused:
                raise StoreError("it was rolled back here; ~/reload loads the newest version nonetheless")
            if version.sha256 != self.running.sha256:
                return version
            self._decide(job, Outcome(True, version.number, f"version {version.number} is already in use"), None)
            return None

    def _decide(self, job: _Job, outcome: Outcome, held: _Held | None = None) -> None:
        """Settles a job, once: what comes later, of a worker that was given up, changes nothing."""
        with self._lock:
            if job.outcome is not None:
                return
            job.outcome = self._outcome = outcome
            if outcome.ok:
                self._waiting, self._going_back = held, False
            job.decided.set()

    def _failed(self, job: _Job, why: str) -> Outcome:
        what = "reload" if job.version is None else f"version {job.version}"
        return Outcome(False, job.version, f"{what} refused: {why}; {self._running} stays in use")


def _line(error: BaseException) -> str:
    if isinstance(error, SacAeError):
        return str(error)
    return f"{type(error).__name__}: {printable(' '.join(str(error)[:300].split()))}"
