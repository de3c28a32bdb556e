"""Parameters of record_node and replay_node."""

from __future__ import annotations

from dataclasses import dataclass

from sac_ae_ros.nodes.params import HOUR_S, parameter


@dataclass(frozen=True)
class RecordParams:
    """Parameters of record_node; none changes while it runs."""

    out: str = parameter("", "new folder for the recording; empty: drives/drive-TIME", read_only=True, path=True)
    transport: str = parameter(
        "raw",
        "raw records `image`, compressed and compressedDepth record `image/TRANSPORT`",
        choices=("raw", "compressed", "compressedDepth"),
        read_only=True,
    )
    policy_node: str = parameter(
        "policy_node", "name of the policy node, whose executed, novelty and state are recorded", read_only=True
    )
    topics: tuple[str, ...] = parameter((), "more topics to record", read_only=True)
    keep_free_mb: int = parameter(
        500, "the recording ends when less is left on its disk, MB", low=0, high=1_000_000_000, read_only=True
    )
    queue_mb: int = parameter(
        256, "so much may wait for a slow disk before messages are lost, MB", low=1, high=100_000, read_only=True
    )


@dataclass(frozen=True)
class ReplayParams:
    """Parameters of replay_node; none can change while it runs."""

    bag: str = parameter("", "the recording: a folder, .mcap, .db3 or .bag", read_only=True, path=True)
    merge: tuple[str, ...] = parameter((), "recordings that are merged into it by log time", read_only=True)
    rate: float = parameter(1.0, "recorded seconds per second", low=0.01, high=100.0, read_only=True)
    start_paused: bool = parameter(False, "wait for ~/resume", read_only=True)
    loop: bool = parameter(False, "begin again at the end, with stamps that go on growing", read_only=True)
    start_s: float = parameter(0.0, "leave out so much of the beginning, s", low=0.0, high=1e9, read_only=True)
    duration_s: float = parameter(0.0, "play so much, s; 0: to the end", low=0.0, high=1e9, read_only=True)
    topics: tuple[str, ...] = parameter((), "recorded topics to play; unset: all", read_only=True)
    image_topic: str = parameter(
        "", "where the recorded images go, and the camera_info beside them; empty: as recorded", read_only=True
    )
    as_recorded: bool = parameter(
        False, "publish commands and switches under their own names: a robot that hears them moves", read_only=True
    )
    publish_clock: bool = parameter(True, "publish the time of the recording on /clock", read_only=True)
    wait_for: int = parameter(1, "subscribers of images to wait for before the start", low=0, high=100, read_only=True)
    wait_s: float = parameter(2.0, "how long to wait for them at most, s", low=0.0, high=HOUR_S, read_only=True)
