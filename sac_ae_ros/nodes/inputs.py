"""Inputs: what one activation of policy_node subscribes to: images, camera_info, joint_states, episode_end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Bool

from sac_ae_ros.core.command import Stop
from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.optics import differences
from sac_ae_ros.nodes.convert import to_intrinsics
from sac_ae_ros.nodes.drive import Drive, make_view
from sac_ae_ros.nodes.graph_watch import GraphWatch, Seen, wanted_reliability
from sac_ae_ros.nodes.loaded_policy import LoadedPolicy

BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT
# Matches every publisher.
NEWEST = QoSProfile(depth=1, reliability=BEST_EFFORT)
MATCH_EVERY_S = 1.0
JOINTS_EVERY_S = 0.5
CAMERA_INFO = "camera_info: "
MOST_TOLD = 20  # different doubts, since their texts come from outside

OnImage = Callable[[Image | CompressedImage], None]


class Inputs:
    """Subscribes in an order that lets everything else be heard before images that came at the same moment."""

    def __init__(
        self, node: Node, loaded: LoadedPolicy, drive: Drive, on_image: OnImage, on_episode_end: Callable[[Bool], None]
    ) -> None:
        """`on_image` gets the images, `on_episode_end` the episodes' ends; everything else goes to `drive`."""
        self._node, self._loaded, self._drive, self._on_image = node, loaded, drive, on_image
        self._params = params = loaded.params
        self._view = make_view(params)
        self.camera_complaints: tuple[str, ...] = ()
        self.image_complaints: tuple[str, ...] = ()
        self._told: set[str] = set()
        self._judged: CameraInfo | None = None
        self._subscriptions: list[Any] = []
        self._timers: list[Any] = []
        if loaded.joints is not None:
            self._subscribe(JointState, "joint_states", self._on_joints, QoSProfile(depth=10, reliability=BEST_EFFORT))
            self._repeat(JOINTS_EVERY_S, self._judge_joints)
        if params.camera_info.check != "off":
            self._subscribe(CameraInfo, "camera_info", self._on_camera_info, NEWEST)
        # before the images, so that an episode's end is heard before the next episode's first frame
        self._subscribe(Bool, "episode_end", on_episode_end, QoSProfile(depth=10))
        transport = params.image.transport
        self._compressed = transport != "raw"
        # remapping `image` moves it along
        self._topic = node.resolve_topic_name("image") + (f"/{transport}" if self._compressed else "")
        self._type = CompressedImage if self._compressed else Image
        drive.input.topic = self._topic
        self._qos = NEWEST
        self._images = node.create_subscription(self._type, self._topic, on_image, self._qos)
        self.image_watch = self._image_watch()
        if params.image.reliability == "match":
            self._repeat(MATCH_EVERY_S, self._match)

    def judge_image(self, complaints: tuple[str, ...]) -> None:
        """Takes what is doubtful about the pixels of the frame used last; each doubt is logged once."""
        self.image_complaints = complaints
        for text in complaints:
            if text not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(text)
                self._node.get_logger().warning(text)

    def close(self) -> None:
        """Hears nothing any more."""
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for subscription in (*self._subscriptions, self._images):
            self._node.destroy_subscription(subscription)

    def _subscribe(self, kind: type, topic: str, callback: Callable[..., None], qos: QoSProfile) -> None:
        self._subscriptions.append(self._node.create_subscription(kind, topic, callback, qos))

    def _repeat(self, every_s: float, callback: Callable[[], None]) -> None:
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timers.append(self._node.create_timer(every_s, callback, clock=clock))

    def _image_watch(self) -> GraphWatch:
        name = "CompressedImage" if self._compressed else "Image"
        return GraphWatch(self._node, self._topic, f"sensor_msgs/msg/{name}", self._qos)

    def _match(self) -> None:
        """Subscribes anew when the publishers' reliability has changed."""
        reliability = wanted_reliability(self.image_watch.look().publishers)
        if reliability == self._qos.reliability:
            return
        self._qos = QoSProfile(depth=1, reliability=reliability)
        self._node.destroy_subscription(self._images)
        self._images = self._node.create_subscription(self._type, self._topic, self._on_image, self._qos)
        self.image_watch = self._image_watch()
        self._node.get_logger().info(f"image: now subscribed {reliability.name.lower()}, as its publishers publish")

    def _on_joints(self, message: JointState, info: dict[str, Any]) -> None:
        joints = self._loaded.joints
        if joints is not None:
            joints.heard(message, info["publication_sequence_number"])
            self._judge_joints()
            if joints.positions is not None:
                self._drive.heard_joints(not joints.late(time.monotonic()))

    def _judge_joints(self) -> None:
        """Tells whether two publishers tell of a joint; once they are silent, that is what is wrong."""
        joints = self._loaded.joints
        if joints is not None:
            self._drive.doubt_joints(joints.contradiction(time.monotonic()))

    def _on_camera_info(self, message: CameraInfo) -> None:
        if self._judged is not None and _same_optics(self._judged, message):
            return
        self._judged = message
        why = ""
        try:
            camera = self._loaded.policy.spec.camera
            found = differences(camera, to_intrinsics(message), self._view, self._params.camera_info.tolerance)
        except ImageError as error:
            why = str(error).removeprefix(CAMERA_INFO)
            found = [why]
        self.camera_complaints = tuple(f"{CAMERA_INFO}{text}" for text in found)
        for text in self.camera_complaints:
            self._node.get_logger().warning(text)
        if self._params.camera_info.check == "refuse":
            self._drive.heard_camera(not found, why)


def missing_images(causes: frozenset[Stop], seen: Seen) -> tuple[str, ...]:
    """What the graph says of an image topic from which no frame is used, where that is a cause to stop."""
    return seen.complaints[:1] if Stop.STALE in causes else ()


def _same_optics(a: CameraInfo, b: CameraInfo) -> bool:
    return bool(
        (a.height, a.width, a.binning_x, a.binning_y, a.roi) == (b.height, b.width, b.binning_x, b.binning_y, b.roi)
        and np.array_equal(a.k, b.k, equal_nan=True)
    )
