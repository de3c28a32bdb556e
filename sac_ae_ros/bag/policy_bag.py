"""What a policy saw and would have sent, as a recording to open beside the original in Foxglove or PlotJuggler.

Topics, all at the log times of the frames: /policy/command and /policy/recorded (sensor_msgs/JointState, a position for
each action, under the frame's stamp), /policy/novelty and /policy/reconstruction_error (std_msgs/Float64), /policy/seen
(sensor_msgs/CompressedImage, PNG: the very pixels).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sac_ae_ros.bag.look import Look
from sac_ae_ros.core.errors import RunError
from sac_ae_ros.core.share import share_file

FOLDER, LAYOUT = "policy_bag", "foxglove_layout.json"
TOPICS = {
    "command": "sensor_msgs/msg/JointState",
    "recorded": "sensor_msgs/msg/JointState",
    "novelty": "std_msgs/msg/Float64",
    "reconstruction_error": "std_msgs/msg/Float64",
    "seen": "sensor_msgs/msg/CompressedImage",
}
LAST_NS = 2**31 * 10**9 - 1  # of a stamp, in 2038; log times of images without one may be later
_STORE = get_typestore(Stores.ROS2_JAZZY)


class PolicyBag:
    """The recording while it is written; `writing` makes it."""

    def __init__(self, writer: Writer, actions: Sequence[str]) -> None:
        self._writer, self._actions = writer, list(actions)
        self._connections = {
            name: writer.add_connection(f"/policy/{name}", kind, typestore=_STORE) for name, kind in TOPICS.items()
        }

    def add(self, look: Look) -> None:
        """Writes one tick."""
        tick, header = look.tick, _header(look.tick.stamp_ns)
        if tick.values is not None:
            self._write("command", tick.log_ns, header, *self._joints(tick.values))
        if tick.recorded is not None:
            self._write("recorded", tick.log_ns, header, *self._joints(tick.recorded))
        if tick.score is not None:
            self._write("novelty", tick.log_ns, tick.score)
        if tick.novelty is not None:
            self._write("reconstruction_error", tick.log_ns, tick.novelty)
        png = cv2.imencode(".png", cv2.cvtColor(look.seen, cv2.COLOR_RGB2BGR))[1].ravel()
        self._write("seen", tick.log_ns, header, "png", png)

    def _joints(self, values: NDArray[np.float64]) -> tuple[Any, ...]:
        nothing = np.zeros(0)
        return self._actions, values.astype(np.float64), nothing, nothing

    def _write(self, name: str, log_ns: int, *fields: Any) -> None:
        kind = TOPICS[name]
        message = _STORE.types[kind](*fields)
        self._writer.write(self._connections[name], log_ns, _STORE.serialize_cdr(message, kind))


def check(out: Path) -> None:
    """Refuses a folder in which something else has the recording's name.

    Raises:
        RunError: that is so.
    """
    final = out / FOLDER
    if final.exists() and {path.name for path in final.glob("*")} != {"metadata.yaml", f"{FOLDER}.mcap"}:
        raise RunError(f"--out: expected no {final}, or one of bag-eval's own, got something else; move it away")


@contextmanager
def writing(out: Path, actions: Sequence[str]) -> Iterator[PolicyBag]:
    """Writes the recording into `out`, whole or not at all; one that was there is replaced.

    Raises:
        RunError: something else is there under its name.
    """
    check(out)
    final, partial = out / FOLDER, out / ".partial" / FOLDER
    shutil.rmtree(partial.parent, ignore_errors=True)
    try:
        writer = Writer(partial, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            yield PolicyBag(writer, actions)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    finally:
        shutil.rmtree(partial.parent, ignore_errors=True)


def write_layout(out: Path, image_topic: str, actions: Sequence[str]) -> None:
    """The shipped Foxglove layout, with this recording's image topic and actions."""
    shipped = share_file("config/foxglove/bag_eval.json")
    if shipped is None:
        return  # installed without its share: the recording needs no layout
    layout = json.loads(shipped.read_text())
    panels = layout["configById"]
    panels["Image!camera"]["imageMode"]["imageTopic"] = image_topic
    plot = panels["Plot!commands"]
    plot["paths"] = [
        {**plot["paths"][0], "value": f"/policy/{topic}.position[{i}]", "label": f"{topic} {action}"}
        for i, action in enumerate(actions)
        for topic in ("command", "recorded")
    ]
    (out / LAYOUT).write_text(json.dumps(layout, indent=2) + "\n")


def _header(stamp_ns: int) -> Any:
    stamp = _STORE.types["builtin_interfaces/msg/Time"](*divmod(min(stamp_ns, LAST_NS), 10**9))
    return _STORE.types["std_msgs/msg/Header"](stamp, "camera")
