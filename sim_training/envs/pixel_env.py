"""A task seen by its camera: the observation is a stack of frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.frames import FrameStack
from sac_ae_ros.core.image import fit
from sim_training.envs.rendering import make_renderer
from sim_training.envs.task_env import Numbers, TaskEnv


class PixelEnv(TaskEnv):
    """Observations are uint8 [3K, H, W], oldest frame first; see TaskEnv for the rest.

    The camera renders `supersample` times larger, and core.image.fit brings the picture to size, as on the robot.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (Gymnasium's own convention)

    def __init__(
        self,
        task: str,
        *,
        height: int = 84,
        width: int = 84,
        frame_stack: int = 3,
        action_repeat: int = 1,
        supersample: int = 1,
        renderer: str = "fast",
    ) -> None:
        """Loads `task` ("domain/task").

        Raises:
            SimError: unknown task or renderer, or no rendering on this machine.
        """
        super().__init__(task, action_repeat=action_repeat)
        self.render_mode = "rgb_array"
        self._height, self._width = height, width
        self._renderer = make_renderer(
            renderer, self.task.env.physics, self.task.camera, height * supersample, width * supersample
        )
        self._stack = FrameStack(frame_stack, height, width)
        self.camera_image: NDArray[np.uint8] = np.zeros((height * supersample, width * supersample, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Box(0, 255, (3 * frame_stack, height, width), np.uint8)
        self._obs: NDArray[np.uint8] = np.zeros(self.observation_space.shape, np.uint8)

    @property
    def newest(self) -> NDArray[np.uint8]:
        """The newest frame, uint8 [3, H, W]; zeros before the first reset."""
        return self._obs[-3:]

    def render(self) -> NDArray[np.uint8]:
        """The newest camera image before it was brought to size, uint8 RGB [h, w, 3]."""
        return self.camera_image

    def close(self) -> None:
        """Frees the renderer."""
        self._renderer.close()

    def _restart(self, numbers: Numbers) -> NDArray[np.uint8]:
        self._renderer.restart()
        self._stack.reset()
        return self._observe(numbers)

    def _observe(self, numbers: Numbers) -> NDArray[np.uint8]:
        self.camera_image = self._renderer.render()
        self._obs = self._stack.push(fit(self.camera_image, self._height, self._width, "center"))
        return self._obs

    def _seen(self) -> dict[str, NDArray[Any]]:
        return {"frames": self._stack.state(), "camera_image": self.camera_image.copy()}

    def _see(self, seen: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
        self._renderer.restart()
        self._stack.load_state(seen["frames"])
        self.camera_image = seen["camera_image"].copy()
        self._obs = seen["frames"].copy()
        return self._obs
