"""How to subscribe to publishers of any QoS, and what they offer as recordings tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

Qos = tuple[ReliabilityPolicy, DurabilityPolicy]


def wanted(profiles: Sequence[QoSProfile]) -> Qos | None:
    """What hears all of these publishers, and as much as they give; None without any."""
    if not profiles:
        return None
    reliable = all(each.reliability == ReliabilityPolicy.RELIABLE for each in profiles)
    latched = all(each.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in profiles)
    return (
        ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def less(new: Qos | None, old: Qos) -> Qos:
    """What asks for no more than either: who asks for less hears those who offer more, too."""
    if new is None:
        return old
    reliable, latched = ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL
    return (
        reliable if new[0] == old[0] == reliable else ReliabilityPolicy.BEST_EFFORT,
        latched if new[1] == old[1] == latched else DurabilityPolicy.VOLATILE,
    )


def as_rosbag2(qos: QoSProfile) -> dict[str, Any]:
    """A profile as rosbag2 (version 9) writes it; the graph tells no history."""

    def duration(value: Any) -> dict[str, int]:
        return dict(zip(("sec", "nsec"), divmod(value.nanoseconds, 10**9), strict=True))

    return {
        "history": "unknown",
        "depth": 0,
        "reliability": qos.reliability.name.lower(),
        "durability": qos.durability.name.lower(),
        "deadline": duration(qos.deadline),
        "lifespan": duration(qos.lifespan),
        "liveliness": qos.liveliness.name.lower(),
        "liveliness_lease_duration": duration(qos.liveliness_lease_duration),
        "avoid_ros_namespace_conventions": False,
    }
