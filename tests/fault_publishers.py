"""What surrounds a policy_node and can break: a camera, a switch, a simulator's clock, each publishing at a rate.

The camera's pictures are as noisy as a real one's in the least way: two bytes change, their mean does not.
"""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Bool

from sac_ae_ros.nodes.convert import from_ns

PIXEL = 140
CONTRAST = 40
CLOCK_HZ = 50.0
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def publisher(node: Node, kind: type, topic: str, qos: Any) -> Any:
    """One that may be destroyed while its node spins in another thread: without event handlers."""
    return node.create_publisher(kind, topic, qos, event_callbacks=PublisherEventCallbacks(use_default_callbacks=False))


class Repeated:
    """Publishes at a rate, from a thread, until it is silenced."""

    def __init__(
        self, node: Node, kind: type, topic: str, make: Callable[[], Any], *, rate_hz: float, qos: Any
    ) -> None:
        self._node, self._make, self.period_s = node, make, 1 / rate_hz
        self._publisher = publisher(node, kind, topic, qos)
        self._lock = threading.Lock()
        self._quiet = threading.Event()
        self._thread: threading.Thread | None = None
        self.sent_s = 0.0  # when the newest message was sent, time.monotonic()

    def start(self) -> None:
        self._quiet.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def silence(self) -> float:
        """Returns when the last message was sent."""
        self._quiet.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        return self.sent_s

    def change(self, how: Callable[[], Any]) -> float:
        """Does it between two messages; returns when the last one before was sent."""
        with self._lock:
            how()
            return self.sent_s

    def publish(self) -> None:
        with self._lock:
            message = self._make()
            self.sent_s = time.monotonic()
            self._publisher.publish(message)

    def close(self) -> None:
        self.silence()
        self._node.destroy_publisher(self._publisher)

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._quiet.is_set():
            self.publish()
            next_s += self.period_s
            self._quiet.wait(max(0.0, next_s - time.monotonic()))


class Lens(Repeated):
    """A camera whose pictures can be harmed in every way."""

    def __init__(self, node: Node, *, rate_hz: float = 30.0) -> None:
        super().__init__(node, Image, "image", self._image, rate_hz=rate_hz, qos=BEST_EFFORT)
        self.now: Callable[[], Any] = lambda: node.get_clock().now().to_msg()
        self.pixel, self.size, self.covered, self.noisy = PIXEL, 8, False, True
        self.harm: Callable[[Image], None] = lambda image: None
        self._count = 0

    def set(self, **values: Any) -> float:
        """Sets attributes between two pictures; returns when the last one before was sent."""
        return self.change(lambda: self.__dict__.update(values))

    def _image(self) -> Image:
        self._count += self.noisy
        image = Image(height=self.size, width=self.size, encoding="rgb8", step=3 * self.size)
        image.header.stamp, image.header.frame_id = self.now(), "lens"
        image.data = self._pixels()
        self.harm(image)
        return image

    def _pixels(self) -> array.array:
        """Upper half bright, lower half dark, and one byte of each off by the same."""
        half, contrast = 3 * self.size**2 // 2, 0 if self.covered else CONTRAST
        data = array.array("B", [self.pixel + contrast] * half + [self.pixel - contrast] * half)
        at = self._count % half
        data[at] += 1
        data[at + half] -= 1
        return data


class Switch(Repeated):
    """A Bool that is republished, such as a deadman."""

    def __init__(self, node: Node, topic: str, on: bool) -> None:
        super().__init__(node, Bool, topic, lambda: Bool(data=self._on), rate_hz=20.0, qos=10)
        self._on = on

    def say(self, on: bool) -> float:
        """From now on; returns when it was sent first."""
        self.change(lambda: setattr(self, "_on", on))
        self.publish()
        return self.sent_s


class SimClock(Repeated):
    """A simulator's /clock, which can jump and pause."""

    def __init__(self, node: Node) -> None:
        super().__init__(node, Clock, "/clock", lambda: Clock(clock=self.now()), rate_hz=CLOCK_HZ, qos=1)
        self.offset_s = 1000.0 - time.monotonic()
        self.rate = 1.0  # simulated seconds in one
        self._start_s = time.monotonic()
        self._paused_s: float | None = None

    def now(self, lag_s: float = 0.0) -> Any:
        time_s = time.monotonic() if self._paused_s is None else self._paused_s
        time_s = self._start_s + self.rate * (time_s - self._start_s)
        return from_ns(round((time_s + self.offset_s - lag_s) * 1e9))

    def jump(self, by_s: float) -> float:
        return self.change(lambda: setattr(self, "offset_s", self.offset_s + by_s))

    def pause(self) -> float:
        """Returns the last time that a picture may be of."""
        self.silence()
        self._paused_s = time.monotonic()
        return self._paused_s

    def resume(self) -> None:
        assert self._paused_s is not None
        self.offset_s -= time.monotonic() - self._paused_s
        self._paused_s = None
        self.start()
