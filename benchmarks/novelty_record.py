"""Drives the rover undisturbed and disturbed, and keeps what a novelty guard would have read on every frame."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from novelty_disturbances import NOTHING, Disturbance, Picture, Scene, disturbances
from numpy.typing import NDArray
from tqdm import tqdm

from sac_ae_ros.core.command import SafetyGate, Values
from sac_ae_ros.core.frames import FrameStack
from sac_ae_ros.core.image import Image, fit
from sac_ae_ros.core.pipeline import ImageToCommand
from sac_ae_ros.core.policy import OnnxPolicy
from sim_training.envs.pixel_env import PixelEnv
from sim_training.evaluate import env_for, measuring

UNCHANGED_SEED = 6_000_000  # the policy file's statistics are of seeds from 2_000_000
DISTURBED_SEED = 7_000_000
CHUNK = 50  # episodes in a file of unchanged ones
ONSET = 50  # tick at which disturbances begin; 0 to PHASES - 1 later, so that no phase of `every` is favoured
PHASES = 5
SHOWN_AFTER = 10  # ticks from the onset to the picture of it

ERROR, VARIANCE, REWARD = range(3)  # columns of records


@dataclass(frozen=True)
class Shot:
    """A disturbance as the policy sees it, uint8 RGB [H, W, 3], as its decoder does, and the error between the two."""

    frame: Picture
    reconstruction: Picture
    error: float


class Driver:
    """The shipped rover in simulation, through ImageToCommand as on a robot."""

    def __init__(self, policy: OnnxPolicy, env: PixelEnv) -> None:
        """`env` is the policy's."""
        self._policy, self._env, self._scene = policy, env, Scene(env)
        self._gate = SafetyGate(policy.spec.actions, policy.spec.control_period_s)
        self._gate.arm()
        self._sent: list[Values] = []
        self._pipeline = ImageToCommand(policy, self._gate, self._sent.append, measuring(policy))
        self._stamp_ns = 0

    def episode(self, seed: int, disturbance: Disturbance = NOTHING, onset: int = ONSET) -> NDArray[np.float64]:
        """One episode's records, [ticks, 3]: ERROR, VARIANCE, and the REWARD that the tick's command earned."""
        return self._run(seed, disturbance, onset, [])

    def shot(self, seed: int, disturbance: Disturbance, onset: int = ONSET) -> Shot:
        """What the policy sees shortly after the onset."""
        camera, stack = self._policy.spec.camera, self._policy.spec.frame_stack
        pictures: list[Picture] = []
        self._run(seed, disturbance, onset, pictures)
        frames = FrameStack(stack, camera.height, camera.width)
        small = [fit(p, camera.height, camera.width, camera.crop) for p in pictures[: onset + SHOWN_AFTER + 1]]
        for frame in small[-stack:]:
            newest = frames.push(frame)
        output = self._policy.act(newest, want_novelty=True)
        assert output.reconstruction is not None
        assert output.novelty is not None
        return Shot(small[-1], output.reconstruction, output.novelty)

    def _run(self, seed: int, disturbance: Disturbance, onset: int, pictures: list[Picture]) -> NDArray[np.float64]:
        self._scene.restore()
        self._pipeline.reset()
        self._env.reset(seed=seed)
        records, over = [], False
        while not over:
            picture = self._env.camera_image
            if disturbance.picture is not None and len(records) >= onset:
                picture = disturbance.picture(picture)
            pictures.append(picture)
            reading = self._see(picture)
            if disturbance.scene is not None and len(records) == onset - 1:
                disturbance.scene(self._scene)  # before the step that draws the onset's frame
            _, reward, terminated, truncated, _ = self._env.step(self._sent[-1])
            records.append((*reading, reward))
            over = terminated or truncated
        self._scene.restore()
        return np.array(records, np.float64)

    def _see(self, picture: Picture) -> tuple[float, float]:
        height, width, _ = picture.shape
        message = Image(height, width, "rgb8", 3 * width, False, np.ascontiguousarray(picture).tobytes())
        self._sent.clear()
        step = self._pipeline.process(message, self._stamp_ns)
        self._stamp_ns += self._policy.spec.control_period_ns
        assert step is not None
        assert step.reading is not None
        return step.reading.error, step.reading.variance


@dataclass(frozen=True)
class Records:
    """What was measured, [episodes, ticks, 3] each; disturbed ones by group and name, in order."""

    unchanged: NDArray[np.float64]
    disturbed: dict[tuple[str, str], NDArray[np.float64]]
    shots: dict[tuple[str, str], Shot]


def record(policy: OnnxPolicy, folder: Path, chunks: int, episodes: int, quiet: bool) -> Records:
    """Measures what `folder` lacks, and returns all of it.

    Args:
        policy: the rover's.
        folder: of this policy; an interrupted measurement goes on there.
        chunks: of CHUNK unchanged episodes each.
        episodes: disturbed episodes of each kind.
        quiet: without a progress bar.
    """
    env = env_for(policy.spec)
    try:
        driver = Driver(policy, env)
        with disturbances(env) as kinds, tqdm(total=chunks * CHUNK + len(kinds) * episodes, disable=quiet) as bar:
            unchanged = []
            for first in range(UNCHANGED_SEED, UNCHANGED_SEED + chunks * CHUNK, CHUNK):
                unchanged.append(_cached(folder / f"unchanged-{first}.npy", driver, range(first, first + CHUNK)))
                bar.update(CHUNK)
            disturbed, shots = {}, {}
            for kind in kinds:
                seeds = range(DISTURBED_SEED, DISTURBED_SEED + episodes)
                name = re.sub(r"\W+", "-", f"{kind.group} {kind.name} {episodes} episodes")
                disturbed[kind.group, kind.name] = _cached(folder / f"{name}.npy", driver, seeds, kind)
                bar.update(episodes)
                if kind.shown:
                    shots[kind.group, kind.name] = driver.shot(DISTURBED_SEED, kind)
    finally:
        env.close()
    return Records(np.concatenate(unchanged), disturbed, shots)


def onset_of(episode: int) -> int:
    """The tick at which the disturbance of the n-th episode begins."""
    return ONSET + episode % PHASES


def _cached(path: Path, driver: Driver, seeds: Iterable[int], kind: Disturbance = NOTHING) -> NDArray[np.float64]:
    if path.exists():
        return np.asarray(np.load(path))
    records = np.stack([driver.episode(seed, kind, onset_of(i)) for i, seed in enumerate(seeds)])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial.npy")
    np.save(partial, records)
    partial.replace(path)
    return records
