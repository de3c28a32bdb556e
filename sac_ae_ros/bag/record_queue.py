"""RecordQueue: messages on their way to the disk, in a thread of its own: a slow disk delays no subscription."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from sac_ae_ros.bag.writer import RecordingWriter
from sac_ae_ros.core.errors import RunError

FLUSH_EVERY_S = 0.4  # so that kill -9 costs less than a second

Message = tuple[str, int, int, bytes]


class RecordQueue:
    """Bounded by bytes; what does not fit any more is counted in `lost`, by topic."""

    def __init__(self, writer: RecordingWriter, most_bytes: int, on_error: Callable[[RunError], None]) -> None:
        """Starts the thread. `on_error` is called in it, once, when the disk ends the recording."""
        self._writer, self._most_bytes, self._on_error = writer, most_bytes, on_error
        self._waiting: deque[Message] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ending = False
        self._failed = False
        self.lost: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def put(self, topic: str, log_ns: int, publish_ns: int, raw: bytes) -> None:
        """Hands a message over; never waits."""
        with self._changed:
            if self._failed or self._bytes + len(raw) > self._most_bytes:
                self.lost[topic] += 1
                return
            self._waiting.append((topic, log_ns, publish_ns, raw))
            self._bytes += len(raw)
            self._changed.notify()

    def close(self) -> None:
        """Waits until everything is written."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        batch: deque[Message] = deque()
        try:
            due_s = time.monotonic() + FLUSH_EVERY_S
            while not (self._ending and not self._waiting):
                batch = self._next(due_s)
                while batch:
                    self._writer.write(*batch[0])
                    batch.popleft()
                if time.monotonic() >= due_s:
                    self._writer.flush()
                    due_s = time.monotonic() + FLUSH_EVERY_S
            self._writer.flush()
        except RunError as error:
            with self._changed:
                self._failed = True
                self.lost.update(self._writer.unwritten)
                self.lost.update(message[0] for message in (*batch, *self._waiting))
                self._waiting.clear()
            self._on_error(error)

    def _next(self, due_s: float) -> deque[Message]:
        """What waits; nothing when it is time to flush, or at the end."""
        with self._changed:
            while not self._waiting and not self._ending and time.monotonic() < due_s:
                self._changed.wait(max(0.0, due_s - time.monotonic()))
            batch, self._waiting, self._bytes = self._waiting, deque(), 0
            return batch
