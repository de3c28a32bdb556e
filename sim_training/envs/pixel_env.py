"""Any task as a Gymnasium environment whose observation is a stack of camera frames."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.frames import FrameStack
from sac_ae_ros.core.image import fit
from sim_training.envs import tasks
from sim_training.envs.rendering import make_renderer


class PixelEnv(gymnasium.Env[NDArray[np.uint8], NDArray[np.floating]]):
    """Observations are uint8 [3K, H, W], oldest frame first; actions are physical, float32 [A].

    The camera renders `supersample` times larger, and core.image.fit brings the picture to size, as on the robot.
    One step repeats its action `action_repeat` times and sums the rewards. Time limits truncate; only the task's
    own endings terminate. `info` has "env_steps", the number of simulator control steps that the step took.
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
        self.task = tasks.load(task)
        self.action_repeat = action_repeat
        self.render_mode = "rgb_array"
        self._height, self._width = height, width
        self._renderer = make_renderer(
            renderer, self.task.env.physics, self.task.camera, height * supersample, width * supersample
        )
        self._stack = FrameStack(frame_stack, height, width)
        self.camera_image: NDArray[np.uint8] = np.zeros((height * supersample, width * supersample, 3), np.uint8)
        self.observation_space = gymnasium.spaces.Box(0, 255, (3 * frame_stack, height, width), np.uint8)
        low, high = self.task.low.astype(np.float32), self.task.high.astype(np.float32)
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float32)

    @property
    def control_period_s(self) -> float:
        """Seconds of simulation in one step."""
        return self.task.control_timestep_s * self.action_repeat

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode; with a seed, it depends on the seed alone."""
        super().reset(seed=seed)
        if seed is not None:
            self.task.seed(seed)
        self.task.env.reset()
        self._stack.reset()
        return self._observe(), {"env_steps": 0}

    def step(self, action: NDArray[np.floating]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Takes a physical action, float [A]."""
        reward, env_steps = 0.0, 0
        for _ in range(self.action_repeat):
            timestep = self.task.env.step(np.asarray(action, np.float64))
            reward += float(timestep.reward or 0.0)
            env_steps += 1
            if timestep.last():
                break
        terminated = bool(timestep.last() and timestep.discount == 0)
        truncated = bool(timestep.last() and not terminated)
        return self._observe(), reward, terminated, truncated, {"env_steps": env_steps}

    def render(self) -> NDArray[np.uint8]:
        """The newest camera image before it was brought to size, uint8 RGB [h, w, 3]."""
        return self.camera_image

    def close(self) -> None:
        """Frees the renderer."""
        self._renderer.close()

    def _observe(self) -> NDArray[np.uint8]:
        self.camera_image = self._renderer.render()
        return self._stack.push(fit(self.camera_image, self._height, self._width, "center"))
