"""Faults of what policy_node senses by, the camera and the clock: each a function over real processes.

fault_cases.py says what each is and what must come of it.
"""

from __future__ import annotations

import array
import itertools
import os
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from fault_case import Case, Outcome, goes_on, observe
from fault_publishers import BEST_EFFORT, Lens, Repeated, SimClock
from fault_rig import Rig
from rclpy.node import Node
from ros_network import Network
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sac_ae_ros.nodes.convert import from_ns

FREEZE_S = 0.3
SCANS = 3000
CLOCK_PAUSE_S = 0.35
TWO_CLOCKS_S = 0.2


# The camera.


def camera_dies(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    return observe(case, rig, rig.lens.silence(), end=rig.lens.start)


def frozen_stamps(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    at = rig.lens.now()
    lively = rig.lens.now
    return observe(case, rig, rig.lens.set(now=lambda: at), end=lambda: rig.lens.set(now=lively))


def frozen_pixels(case: Case, rig: Rig) -> Outcome:
    rig.drive(image__freeze_timeout_s=FREEZE_S)
    return observe(case, rig, rig.lens.set(noisy=False), end=lambda: rig.lens.set(noisy=True))


def resolution_changes(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    return goes_on(case, rig, rig.lens.set(size=16))


def cut(image: Image) -> None:
    image.data = array.array("B", [0] * 100)


def unknown(image: Image) -> None:
    image.encoding = "ultraviolet"


def no_width(image: Image) -> None:
    image.width = 0


def absurd(image: Image) -> None:
    image.height, image.width, image.step = 4_000_000_000, 4_000_000_000, 1


def short_step(image: Image) -> None:
    image.step = 1


def noise(image: Image) -> None:
    image.encoding, image.data = "\x00\ufffdé" * 50, array.array("B", os.urandom(777))


def garbage(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    harms, harmless = itertools.cycle([cut, unknown, no_width, absurd, short_step, noise]), rig.lens.harm
    since_s = rig.lens.set(harm=lambda image: next(harms)(image))
    return observe(case, rig, since_s, end=lambda: rig.lens.set(harm=harmless))


def grey_camera(case: Case, rig: Rig) -> Outcome:
    def grey(image: Image) -> None:
        image.encoding, image.step = "mono8", image.width
        image.data = image.data[: image.height * image.width]

    rig.drive()
    return goes_on(case, rig, rig.lens.set(harm=grey))


def many_scans(case: Case, network: Network, folder: Path) -> Outcome:
    """A camera of JPEGs, of which each has thousands of scans from then on."""
    with closing(Rig(network, folder, image={"transport": "compressed", "freeze_timeout_s": 0.0})) as rig:
        picture = cv2.imencode(".jpg", np.full((64, 64, 3), 140, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
        good = data = picture.tobytes()
        start, end = good.rindex(b"\xff\xda"), good.rindex(b"\xff\xd9")
        bomb = good[:end] + good[start : start + 10] * SCANS + good[end:]

        def image() -> CompressedImage:
            message = CompressedImage(format="jpeg", data=array.array("B", data))
            message.header.stamp = rig.lens.now()
            return message

        def send(what: bytes) -> float:
            nonlocal data
            data = what
            return jpegs.sent_s

        topic = "image/compressed"
        jpegs = rig.opened(Repeated(network.node, CompressedImage, topic, image, rate_hz=30.0, qos=BEST_EFFORT))
        jpegs.start()
        rig.drive(image__freeze_timeout_s=0.0)
        return observe(case, rig, send(bomb), end=lambda: send(good))


def two_publishers(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    node = rig.network.neighbour("second_camera")
    second = rig.opened(Lens(node))
    second.set(pixel=150)
    second.start()
    outcome = goes_on(case, rig, time.monotonic())
    second.silence()
    node.destroy_node()
    return outcome


def another_type(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    since_s = rig.lens.silence()
    rig.lens.close()
    node = rig.network.neighbour("jpeg_camera")
    jpegs = Repeated(node, CompressedImage, "image", CompressedImage, rate_hz=30.0, qos=BEST_EFFORT)
    jpegs.start()

    def end() -> None:
        jpegs.close()
        node.destroy_node()
        rig.lens = rig.opened(Lens(rig.network.node))
        rig.lens.start()

    return observe(case, rig, since_s, end=end)


def other_optics(case: Case, rig: Rig) -> Outcome:
    def info() -> CameraInfo:
        message = CameraInfo(height=8, width=8)
        message.k[0], message.k[2], message.k[4], message.k[5], message.k[8] = focal_px, 4.0, focal_px, 4.0, 1.0
        return message

    focal_px = 5.2  # about what the tiny policy says it was trained with
    infos = rig.opened(Repeated(rig.network.node, CameraInfo, "camera_info", info, rate_hz=10.0, qos=BEST_EFFORT))
    infos.start()
    rig.drive(camera_info__check="refuse")

    def zoom(to_px: float) -> float:
        nonlocal focal_px
        focal_px = to_px
        infos.publish()
        return infos.sent_s

    return observe(case, rig, zoom(9.0), end=lambda: zoom(5.2))


def covered_lens(case: Case, rig: Rig) -> Outcome:
    rig.drive(novelty__every=1, novelty__stop=1.5)
    return observe(case, rig, rig.lens.set(covered=True), end=lambda: rig.lens.set(covered=False))


# The clock.


def future_stamps(case: Case, rig: Rig) -> Outcome:
    def ahead(image: Image) -> None:
        image.header.stamp.sec += 10

    rig.drive()
    harmless = rig.lens.harm
    return observe(case, rig, rig.lens.set(harm=ahead), end=lambda: rig.lens.set(harm=harmless))


def go_round(rig: Rig) -> float:
    """Stamps of a fast camera that go round from then on, each within the ages that are accepted."""
    offsets_ns = itertools.cycle([-240_000_000, -140_000_000, -40_000_000, 70_000_000])
    clock = rig.network.node.get_clock()
    return rig.lens.set(period_s=0.01, now=lambda: from_ns(clock.now().nanoseconds + next(offsets_ns)))


def stamps_go_round(case: Case, rig: Rig) -> Outcome:
    rig.drive()
    return goes_on(case, rig, go_round(rig))


def paused_clock(case: Case, rig: Rig) -> Outcome:
    clock = rig.clock()
    rig.drive(use_sim_time=True)
    return observe(case, rig, clock.pause(), end=clock.resume)


def slow_simulation(case: Case, rig: Rig) -> Outcome:
    """The clock pauses again and again, as where a busy machine simulates; the node has sim.launch.py's timeout."""
    clock = rig.clock()
    rig.drive(use_sim_time=True, watchdog_timeout_s=10.0)
    since_s = clock.pause()
    for _ in range(3):
        time.sleep(CLOCK_PAUSE_S)
        clock.resume()
        time.sleep(CLOCK_PAUSE_S)
        clock.pause()
    clock.resume()
    return goes_on(case, rig, since_s)


def clock_jumps(by_s: float, case: Case, rig: Rig) -> Outcome:
    clock = rig.clock()
    rig.drive(use_sim_time=True)
    return observe(case, rig, clock.jump(by_s))


def second_clock(node: Node, rig: Rig, clock: SimClock, behind_s: float) -> SimClock:
    """The /clock of that other node, so far behind; `start` it."""
    other = SimClock(node)
    other.jump(clock.offset_s - other.offset_s - behind_s)
    return rig.opened(other)


def two_clocks(case: Case, rig: Rig) -> Outcome:
    clock = rig.clock()
    rig.drive(use_sim_time=True)
    node = rig.network.neighbour("second_clock")
    other = second_clock(node, rig, clock, TWO_CLOCKS_S)
    since_s = time.monotonic()
    other.start()
    outcome = observe(case, rig, since_s, end=other.close)
    node.destroy_node()
    return outcome


def clock_jumps_alone(by_s: float, case: Case, rig: Rig) -> Outcome:
    """The stamps of the pictures don't follow."""
    clock = rig.clock()
    rig.drive(use_sim_time=True)
    rig.lens.set(now=lambda: clock.now(by_s))
    return observe(case, rig, clock.jump(by_s), end=lambda: rig.lens.set(now=clock.now))
