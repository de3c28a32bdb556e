"""The frames of a recording that the policy saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.bag.beside import Executed, Summary
from sac_ae_ros.bag.evaluate import peek_stamp_ns
from sac_ae_ros.bag.footage import Picture
from sac_ae_ros.bag.reader import Record
from sac_ae_ros.core.errors import SacAeError
from sac_ae_ros.core.frames import Due, FrameSampler
from sac_ae_ros.core.image import View, complaints, see
from sac_ae_ros.core.spec import PolicySpec

ROUNDING = 1e-5  # of an action in [-1, 1]: what float32 on the way may add


@dataclass(frozen=True)
class Tick:
    """A frame that the policy saw, uint8 RGB [3, H, W], and when it was recorded.

    action: what was done on it, float32 [A] in [-1, 1]; None for nothing. restarted: the frame stack began anew.
    """

    frame: NDArray[np.uint8]
    log_ns: int
    action: NDArray[np.float32] | None
    restarted: bool


class Ticks:
    """The frames that the policy saw: those that it acted on, and where it did not act, those that were due."""

    def __init__(self, spec: PolicySpec, view: View, by_header: bool, executed: Executed, summary: Summary) -> None:
        """`by_header`: ticks are picked by the frames' header stamps, not by when they were recorded."""
        self._spec, self._view, self._by_header = spec, view, by_header
        self._executed, self._summary = executed, summary
        self._sampler = FrameSampler(spec.control_period_ns)
        self._anew = False
        self._last_ns: int | None = None
        self._last_header_ns: int | None = None

    def restart(self) -> None:
        """Starts the frame stack anew with the next tick, as ImageToCommand.reset does."""
        self._anew = True

    def take(self, record: Record, picture: Picture) -> Tick | None:
        """Takes every record of the image topic, in the order in which pictures are shown."""
        self._summary.images += 1
        header_ns = peek_stamp_ns(record) or None
        stamp_ns = (self._by_header and header_ns) or record.stamp_ns
        action = self._executed.at(header_ns) if header_ns != self._last_header_ns else None
        due = self._due(stamp_ns, header_ns, action is not None)
        if due is Due.NO:
            return None
        try:
            image = picture()
            rgb, doubts = see(image, self._spec.camera, self._view), complaints(image, self._view)
        except SacAeError as error:
            self._summary.refuse(error)
            self._sampler.reject()
            return None
        self._summary.doubt_frame(doubts)
        restarted, self._anew = due is Due.RESTART or self._anew, False
        self._last_ns, self._last_header_ns = stamp_ns, header_ns
        if action is not None:
            self._summary.paired += 1
            self._summary.clipped += bool((np.abs(action) > 1 + ROUNDING).any())
            action = np.clip(action, -1, 1)
        return Tick(np.ascontiguousarray(rgb.transpose(2, 0, 1)), record.stamp_ns, action, restarted)

    def _due(self, stamp_ns: int, header_ns: int | None, acted: bool) -> Due:
        due = self._sampler.due(stamp_ns)
        if due is Due.NO and acted and self._last_ns is not None and stamp_ns > self._last_ns:
            self._sampler = FrameSampler(self._spec.control_period_ns)  # the robot, switched on later, is out of phase
            self._sampler.due(stamp_ns)
            return Due.YES
        if due is not Due.NO and not acted and self._executed.soon(header_ns):
            self._sampler.reject()  # the robot never saw this one, and took another in its place
            return Due.NO
        return due
