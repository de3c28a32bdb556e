"""Parameters of sim_robot_node."""

from __future__ import annotations

from dataclasses import dataclass

from sac_ae_ros.nodes.command_params import HeardCommandParams
from sac_ae_ros.nodes.params import HOUR_S, parameter


@dataclass(frozen=True)
class SimParams:
    """Parameters of sim_robot_node; only episode_seed can change while it runs."""

    task: str = parameter("rover/chase_ball", "what to simulate, domain/task", read_only=True)
    renderer: str = parameter("fast", "fast, or stock for dm_control's own", choices=("fast", "stock"), read_only=True)
    image_height: int = parameter(180, "height of the images, pixels", low=1, high=4096, read_only=True)
    image_width: int = parameter(320, "width of the images, pixels", low=1, high=4096, read_only=True)
    camera_rate_hz: float = parameter(20.0, "images per simulated second", low=0.1, high=1000.0, read_only=True)
    camera_frame_id: str = parameter("camera", "header.frame_id of the images", read_only=True)
    real_time_factor: float = parameter(
        1.0, "simulated seconds per second, as far as the machine can", low=0.01, high=100.0, read_only=True
    )
    publish_clock: bool = parameter(True, "publish the simulation's time on /clock", read_only=True)
    command_timeout_s: float = parameter(
        0.5,
        "without a command for this long the robot stops, simulated s",
        low=0.01,
        high=HOUR_S,
        read_only=True,
    )
    episode_seed: int = parameter(0, "seed of the next reset; each episode that follows adds 1", low=0, high=2**31 - 1)
    auto_reset: bool = parameter(True, "start the next episode when one ends", read_only=True)
    command: HeardCommandParams = HeardCommandParams()
