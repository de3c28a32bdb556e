"""SimLoop: a simulated robot in small ticks, without ROS: images, rewards and episode ends come out."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError
from sac_ae_ros.core.spec import ActionSpec

TICK_NS = 10_000_000
# Between two episodes the robot is carried back: stamps jump, so that nothing can mistake them for one.
CARRIED_BACK_NS = 1_000_000_000


class Sim(Protocol):
    """What sim_training.envs.robot.RobotSim offers."""

    actions: tuple[ActionSpec, ...]
    control_timestep_s: float
    physics_timestep_s: float
    episode_steps: int
    fovy_deg: float

    def reset(self, seed: int) -> None: ...

    def advance(self, action: NDArray[np.float64], ticks: int) -> None:
        """Raises SimError where the simulation has become invalid."""

    def image(self) -> NDArray[np.uint8]: ...

    def reward(self) -> float: ...

    def terminated(self) -> bool: ...

    def close(self) -> None: ...


class SimEvents(Protocol):
    """Who hears what happens in the simulation."""

    def on_image(self, rgb: NDArray[np.uint8], stamp_ns: int) -> None:
        """The camera took a picture, uint8 RGB [H, W, 3]."""

    def on_reward(self, reward: float) -> None:
        """A control step ended."""

    def on_episode_end(self, terminated: bool) -> None:
        """Every reward since the last call, or since the start, belonged to one episode."""

    def on_command_timeout(self) -> None:
        """No command came for too long: the robot stands still."""


class SimLoop:
    """A robot that always does something: episode after episode, its camera at a rate of its own."""

    def __init__(
        self,
        sim: Sim,
        events: SimEvents,
        *,
        camera_rate_hz: float,
        command_timeout_s: float,
        auto_reset: bool,
        seed: int,
    ) -> None:
        """Starts the first episode, with `seed`; rates and times are simulated ones."""
        self._sim, self._events = sim, events
        self._camera_period_ns = round(1e9 / camera_rate_hz)
        self._command_timeout_ns = round(command_timeout_s * 1e9)
        self._auto_reset = auto_reset
        self._step_ns = round(sim.physics_timestep_s * 1e9)
        self._control_steps = round(sim.control_timestep_s / sim.physics_timestep_s)
        self._rest = np.clip(0.0, [action.low for action in sim.actions], [action.high for action in sim.actions])
        self.next_seed = seed
        self.time_ns = 0
        self.episodes = 0
        self._commanded_ns: int | None = None
        self._start_episode()

    def command(self, values: NDArray[np.float64]) -> None:
        """Takes a command, float64 [A] in physical units, which holds until the next one or the timeout."""
        self._action = values
        self._commanded_ns = self.time_ns

    def restart(self, seed: int) -> None:
        """Ends the episode, however far it is, and starts the one of `seed`."""
        self._events.on_episode_end(False)
        self.next_seed = seed
        self._start_episode()

    def tick(self) -> int:
        """Lets 10 ms pass, or less if something happens before; returns the nanoseconds."""
        self._check_command()
        self._take_picture()
        steps = self._steps_to_next_event()
        went_on = self._running and self._advance(steps)
        self.time_ns += steps * self._step_ns
        if went_on and self._episode_step % self._control_steps == 0:
            self._end_control_step()
        return steps * self._step_ns

    def _advance(self, steps: int) -> bool:
        """Whether the simulation stayed valid; else the episode has ended, as by a time limit."""
        try:
            self._sim.advance(self._action, steps)
        except SimError:
            self._end_episode(False)
            return False
        self._episode_step += steps
        return True

    def _start_episode(self) -> None:
        self._sim.reset(self.next_seed)
        self.next_seed += 1
        self.time_ns += CARRIED_BACK_NS
        self._picture_ns = self.time_ns
        self._episode_step = 0
        self._action = self._rest
        self._commanded_ns = None
        self._running = True
        self.episodes += 1

    def _check_command(self) -> None:
        if self._commanded_ns is None or self.time_ns - self._commanded_ns < self._command_timeout_ns:
            return
        self._action = self._rest
        self._commanded_ns = None
        self._events.on_command_timeout()

    def _take_picture(self) -> None:
        if self.time_ns >= self._picture_ns:
            self._events.on_image(self._sim.image(), self.time_ns)
            self._picture_ns += self._camera_period_ns

    def _steps_to_next_event(self) -> int:
        to_control = self._control_steps - self._episode_step % self._control_steps
        to_picture = math.ceil((self._picture_ns - self.time_ns) / self._step_ns)
        return max(1, min(to_control, to_picture, TICK_NS // self._step_ns))

    def _end_control_step(self) -> None:
        self._events.on_reward(self._sim.reward())
        terminated = self._sim.terminated()
        if not terminated and self._episode_step < self._sim.episode_steps * self._control_steps:
            return
        self._end_episode(terminated)

    def _end_episode(self, terminated: bool) -> None:
        self._running = False
        self._events.on_episode_end(terminated)
        if self._auto_reset:
            self._start_episode()
