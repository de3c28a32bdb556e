"""`domain/task` names to dm_control environments: our own robots first, then the suite.

What a robot of one's own says about itself, and what is taken where it says nothing:

- Actions: as many names, separated by tabs, as `action_spec` has bounds, in the spec's `name` (dm_env's custom). Else
  those of the actuators, if the spec's bounds are theirs; else action_0, action_1 and so on.
- Units: `action_units` of its Task, a text for each action, SI (REP 103). Else "1".
- Camera: `camera` of its Task, the name or number of one in the model. Else the model's first.
- Rewards: `get_reward` gives a number, or an array of one, of a size up to MAX_REWARD.
- Ends: `get_termination` gives None while an episode goes on, 0.0 where it terminates, 1.0 where it is truncated.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError, quote
from sac_ae_ros.core.spec import MAX_ACTIONS, MAX_TEXT_CHARS, ActionSpec
from sim_training.envs.rendering import choose_backend

choose_backend()

from dm_control import mujoco, suite  # noqa: E402  (mujoco reads MUJOCO_GL when first imported)
from dm_control.rl import control  # noqa: E402
from dm_control.rl.control import PhysicsError as PhysicsError  # noqa: E402
from dm_env import specs  # noqa: E402

from sim_training.envs import rover  # noqa: E402

OWN_TASKS: dict[str, Callable[..., control.Environment]] = {"rover/chase_ball": rover.chase_ball}
SUITE_CAMERAS = {"quadruped": 2}  # as in the published pixel results; elsewhere the first
UNBOUNDED = 1e10  # MuJoCo's mjMAXVAL, dm_control's limit of an actuator without ctrlrange
MIN_LEVELS = 256  # float32 values that an action's range has room for
MAX_STARTS = 10  # of one reset, where the simulation diverges at once
MAX_REWARD = 1e18  # losses square it in float32


@dataclass(frozen=True)
class Task:
    """One loaded task and what a robot's contract needs to know of it; times in seconds."""

    name: str
    env: control.Environment
    actions: tuple[ActionSpec, ...]
    camera: int
    camera_name: str
    control_timestep_s: float
    physics_timestep_s: float
    episode_steps: int
    fovy_deg: float

    @property
    def low(self) -> NDArray[np.float64]:
        """Lower limits of the actions, float64 [A]."""
        return np.array([action.low for action in self.actions])

    @property
    def high(self) -> NDArray[np.float64]:
        """Upper limits of the actions, float64 [A]."""
        return np.array([action.high for action in self.actions])

    def seed(self, seed: int) -> None:
        """Makes the next reset depend on `seed` alone."""
        self.env.task._random = np.random.RandomState(seed % 2**32)  # the suite has no public way

    def start(self, before_each: Callable[[], None] = lambda: None) -> Mapping[str, Any]:
        """Starts an episode and returns dm_control's observation; a start that diverges is drawn again.

        Raises:
            SimError: the simulation diverged in every one of MAX_STARTS placements, each after a call of `before_each`.
        """
        for _ in range(MAX_STARTS):
            before_each()
            try:
                observation: Mapping[str, Any] = self.env.reset().observation
            except PhysicsError:
                continue
            return observation
        raise SimError(
            f"task {self.name}: expected a state to start from, the simulation diverged in {MAX_STARTS} in a row; mend"
            " the task's initialize_episode or its model"
        )

    def reward(self, came: object) -> float:
        """What `get_reward` gave, as a float.

        Raises:
            SimError: it is not one finite number of at most MAX_REWARD in size.
        """
        number = _number(came, "biuf")
        if not abs(number) <= MAX_REWARD:  # NaN neither
            raise SimError(
                f"task {self.name}: expected a finite reward, one number up to {MAX_REWARD:g} in size, got"
                f" {self._told(came)}; mend the task's get_reward"
            )
        return number

    def discount(self, came: object) -> float:
        """What `get_termination` gave, which is not None, as a float: 0 or 1.

        Raises:
            SimError: it is anything else, such as a bool.
        """
        number = _number(came, "iuf")
        if number not in (0.0, 1.0):
            raise SimError(
                f"task {self.name}: expected get_termination to give None, 0.0 (terminated) or 1.0 (truncated), got"
                f" {self._told(came)}; mend the task's get_termination"
            )
        return number

    def _told(self, came: object) -> str:
        return f"{reprlib.repr(came)} {self.env.physics.time():.4g} s into an episode"


def _number(came: object, kinds: str) -> float:
    """A scalar, or the value of an array of one, whose dtype is of these kinds; else NaN."""
    try:
        array = np.asarray(came)
    except (TypeError, ValueError, RuntimeError):  # ragged lists; tensors that need a gradient
        return math.nan
    return float(array.item()) if array.size == 1 and array.dtype.kind in kinds else math.nan


def task_names() -> list[str]:
    """Every `domain/task` that `load` knows."""
    endless = {"lqr"}
    return [*OWN_TASKS, *(f"{domain}/{task}" for domain, task in suite.ALL_TASKS if domain not in endless)]


def load(name: str, seed: int = 0) -> Task:
    """Loads a task.

    Raises:
        SimError: no task of that name, or it says of itself what no policy's contract can hold; the message names the
            action or the field.
    """
    if name in OWN_TASKS:
        env = OWN_TASKS[name](random=seed)
        _require_environment(name, env)
        labels, camera = _labels(env), getattr(env.task, "camera", 0)
    elif tuple(name.split("/")) in suite.ALL_TASKS:
        domain, task = name.split("/")
        env = suite.load(domain, task, task_kwargs={"random": seed})
        labels, camera = _numbered(env.action_spec()), SUITE_CAMERAS.get(domain, 0)
    else:
        raise SimError(f"task: expected `domain/task` such as {', '.join(task_names()[:3])}; got {name!r}")
    if not 1 <= env._step_limit < math.inf:
        raise SimError(
            f"task {name}: expected episodes that end after one step or more, got a limit of {env._step_limit:g} steps;"
            " give its Environment a time_limit in seconds"
        )
    if env.physics.model.nhfield:
        _disown_contexts(env.physics)
    index, camera_name = _camera(name, env.physics, camera)
    return Task(
        name=name,
        env=env,
        actions=_actions(name, env, labels),
        camera=index,
        camera_name=camera_name,
        control_timestep_s=float(env.control_timestep()),
        physics_timestep_s=float(env.physics.timestep()),
        episode_steps=round(env._step_limit),  # likewise private
        fovy_deg=float(env.physics.model.cam_fovy[index]),
    )


def _require_environment(name: str, env: object) -> None:
    if not isinstance(env, control.Environment):
        raise SimError(f"task {name}: expected a dm_control.rl.control.Environment, got {type(env).__name__}")
    if not isinstance(getattr(env.task, "random", None), np.random.RandomState):
        raise SimError(
            f"task {name}: expected a dm_control.suite.base.Task, whose `random` episodes are drawn from, got"
            f" {type(env.task).__name__}; derive it from that class"
        )
    try:
        spec = env.action_spec()
    except ValueError as error:  # dm_env's: lower limits above the upper ones, or of another shape
        raise SimError(f"task {name}: expected limits of actions, low < high; {error}; mend its action_spec") from error
    if not isinstance(spec, specs.BoundedArray) or isinstance(spec, specs.DiscreteArray) or len(spec.shape) != 1:
        raise SimError(f"task {name}: expected continuous actions, a BoundedArray of one dimension, got {spec}")


def _labels(env: control.Environment) -> list[str]:
    """Names of a robot's actions; see the top of this module."""
    spec, model = env.action_spec(), env.physics.model
    named = spec.name.split("\t") if spec.name else []
    if len(named) == spec.shape[0]:
        return named
    driven = mujoco.action_spec(env.physics)
    if spec.shape == driven.shape and (spec.minimum == driven.minimum).all() and (spec.maximum == driven.maximum).all():
        return [model.id2name(i, "actuator") or f"action_{i}" for i in range(model.nu)]
    return _numbered(spec)


def _numbered(spec: specs.BoundedArray) -> list[str]:
    return [f"action_{i}" for i in range(spec.shape[0])]


def _actions(name: str, env: control.Environment, labels: list[str]) -> tuple[ActionSpec, ...]:
    spec, count = env.action_spec(), len(labels)
    units = getattr(env.task, "action_units", ("1",) * count)
    if not 1 <= count <= MAX_ACTIONS:
        raise SimError(f"task {name}: expected 1..{MAX_ACTIONS} actions, got {count}; give the model actuators")
    if isinstance(units, str) or len(units) != count:
        raise SimError(f"task {name}: expected action_units with a text for each of {', '.join(labels)}; got {units!r}")
    if len(set(labels)) < count:
        raise SimError(f"task {name}: expected actions of distinct names, got {', '.join(labels)}")
    for text in (*labels, *units):
        if not (isinstance(text, str) and 0 < len(text) <= MAX_TEXT_CHARS and text.isprintable()):
            raise SimError(
                f"task {name}: expected names and units of 1..{MAX_TEXT_CHARS} printable characters, got"
                f" {quote(str(text))}"
            )
    lows, highs = np.broadcast_to(spec.minimum, spec.shape), np.broadcast_to(spec.maximum, spec.shape)
    for label, low, high in zip(labels, lows, highs, strict=True):
        if not -UNBOUNDED < low < high < UNBOUNDED:
            raise SimError(
                f"task {name}: expected finite limits, low < high, of {quote(label)}, got {low:g}..{high:g}; give its"
                " actuator a ctrlrange in the model, or the task's action_spec bounds"
            )
        if not _is_wide(low, high):
            raise SimError(
                f"task {name}: expected limits of {quote(label)} with {MIN_LEVELS} float32 values or more between"
                f" them, got {float(low)!r}..{float(high)!r}; widen its range, or command it in another unit"
            )
    return tuple(
        ActionSpec(label, unit, float(low), float(high))
        for label, unit, low, high in zip(labels, units, lows, highs, strict=True)
    )


def _is_wide(low: float, high: float) -> bool:
    """Whether float32, in which actions are learned and commanded, has room for a range."""
    step = max(np.spacing(np.float32(max(abs(low), abs(high)))), np.finfo(np.float32).tiny)
    return bool(high - low >= MIN_LEVELS * float(step))


def _camera(name: str, physics: mujoco.Physics, wanted: object) -> tuple[int, str]:
    """Number and name of a camera of the model; one without a name is called `camera`."""
    names = [physics.model.id2name(i, "camera") for i in range(physics.model.ncam)]
    if isinstance(wanted, str) and wanted in names:
        wanted = names.index(wanted)
    if type(wanted) is not int or not 0 <= wanted < len(names):
        there = ", ".join(f"{i} {quote(each)}" if each else str(i) for i, each in enumerate(names)) or "none"
        raise SimError(
            f"task {name}: expected a camera of the model ({there}), got {wanted!r}; set the task's `camera`"
        )
    return wanted, names[wanted] or "camera"


def _disown_contexts(physics: mujoco.Physics) -> None:
    """Hides dm_control's own OpenGL context from a physics.

    With terrain, every reset would make one and copy the terrain into whichever context is current, be it another
    environment's.
    """
    kind = type(physics)
    physics.__class__ = type(kind.__name__, (kind,), {"contexts": None})
