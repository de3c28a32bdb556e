"""The whole path in one go: train, export, drive a simulated robot over ROS 2, and compare."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sac_ae_ros import video
from sac_ae_ros.cli import evaluate_file, evaluate_run, export, train
from sac_ae_ros.core.errors import ConfigError, RunError, printable
from sac_ae_ros.core.policy import OnnxPolicy
from sac_ae_ros.core.share import share_file

DEFAULT_CONFIG = "config/train/rover_chase_ball.yaml"
EXPORT_EPISODES = 10
ROWS = {
    "random": "random actions",
    "torch": "torch policy, in process",
    "onnx": "ONNX file, in process",
    "ros": "ONNX file, through ROS 2",
}


@dataclass(frozen=True)
class Request:
    """What to demonstrate: a policy file, or a training configuration and overrides of its keys."""

    policy: Path | None
    config: Path | None
    overrides: tuple[str, ...]
    episodes: int
    seed: int
    real_time_factor: float


def run(request: Request, run_dir: Path) -> dict[str, Any]:
    """Does everything and leaves the results in `run_dir`; returns mean returns by row, None where not run.

    Raises:
        RunError: the folder exists already, or the ROS processes failed.
    """
    from sim_training.evaluate import env_for
    from sim_training.trainer import is_free

    if not is_free(run_dir):
        raise RunError(f"run folder: {run_dir} exists already; choose another with --run-dir")
    if request.policy is not None:
        env_for(OnnxPolicy.load(request.policy).spec).close()  # a bad file is refused before anything is left behind
        run_dir.mkdir(parents=True, exist_ok=True)
    else:
        _train_and_export(request, run_dir)
    policy_path = request.policy or run_dir / "policy.onnx"
    policy = OnnxPolicy.load(policy_path)
    seeds = range(request.seed, request.seed + request.episodes)
    _say("evaluating in process")
    rows: dict[str, Any] = {
        "random": _random(policy, seeds),
        "torch": None if request.policy is not None else evaluate_run(run_dir, seeds).to_dict(),
        "onnx": evaluate_file(policy_path, seeds).to_dict(),
        "ros": None,
    }
    _write_table(rows, request, run_dir)  # what is known is not lost if ROS fails
    _say("driving the simulated robot over ROS 2: two processes and a scorer")
    rows["ros"] = _closed_loop(request, policy, policy_path, run_dir)
    table = _write_table(rows, request, run_dir)
    recording = run_dir / "closed_loop.npz"
    try:
        video.write(run_dir / "closed_loop.mp4", _moments(recording), policy.spec.actions, _frame_rate(recording))
    except (ValueError, OSError) as error:
        _say(f"warning: no video was written ({error})")
    return table


def _write_table(rows: dict[str, Any], request: Request, run_dir: Path) -> dict[str, Any]:
    """Writes table.json; returns the mean returns alone."""
    from sim_training.config import write_text

    table = {key: row["mean_return"] if row else None for key, row in rows.items()}
    details = {**table, "episodes": request.episodes, "seed": request.seed, "rows": rows}
    write_text(run_dir / "table.json", json.dumps(details, indent=1) + "\n")
    return table


def render(run_dir: Path) -> str:
    """The table and the files that a user would look at."""
    details = json.loads((run_dir / "table.json").read_text())
    lines = [f"{'mean return over ' + str(details['episodes']) + ' episodes':<28}  mean    sd"]
    for key, label in ROWS.items():
        row = details["rows"][key]
        lines.append(f"{label:<28}" + (f"{row['mean_return']:6.1f}{row['sd']:6.1f}" if row else "     -     -"))
    lines.append("")
    lines += [f"{path}" for path in sorted(run_dir.iterdir()) if path.suffix in (".png", ".mp4", ".onnx", ".json")]
    return "\n".join(lines)


def _train_and_export(request: Request, run_dir: Path) -> None:
    from sim_training import config as configs

    config = configs.parse(request.overrides, path=request.config or default_config())
    if config.env.obs != "pixels":
        raise ConfigError(f"demo: expected env.obs pixels, as its robot has a camera; got {config.env.obs}")
    train(config, run_dir)
    _say("exporting the best checkpoint")
    export(run_dir, run_dir / "policy.onnx", episodes=EXPORT_EPISODES)


def default_config() -> Path:
    """The rover's configuration, from the installed share or the source tree.

    Raises:
        RunError: neither has it.
    """
    path = share_file(DEFAULT_CONFIG)
    if path is None:
        raise RunError(f"config: expected {DEFAULT_CONFIG} in this package's share, found none; give --config")
    return path


def _random(policy: OnnxPolicy, seeds: range) -> dict[str, object]:
    from sim_training.evaluate import env_for, random_policy, run_episodes

    env = env_for(policy.spec)
    try:
        return run_episodes(env, random_policy(env, seeds.start), seeds).to_dict()
    finally:
        env.close()


def _closed_loop(request: Request, policy: OnnxPolicy, policy_path: Path, run_dir: Path) -> dict[str, Any]:
    """Runs the two nodes and the scorer in processes of their own."""
    recording = run_dir / "closed_loop.npz"
    command = [sys.executable, "-m", "sac_ae_ros.nodes.closed_loop", "--json", "--policy", str(policy_path)]
    command += ["--task", policy.spec.task, "--episodes", str(request.episodes), "--seed", str(request.seed)]
    command += ["--real-time-factor", str(request.real_time_factor), "--record", str(recording)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise RunError("closed loop: the ROS processes failed, see above; `sac-ae doctor` checks ROS on this machine")
    return dict(json.loads(result.stdout))


def _moments(recording: Path) -> Iterator[video.Moment]:
    """Pairs each recorded picture with the newest command at its time."""
    with np.load(recording, allow_pickle=False) as data:
        images, image_ns = data["images"], data["image_stamps_ns"]
        commands, command_ns = data["commands"], data["command_stamps_ns"]
        rewards, reward_ns = data["rewards"], data["reward_stamps_ns"]
    for image, stamp in zip(images, image_ns, strict=True):
        newest = int(np.searchsorted(command_ns, stamp, side="right")) - 1
        total = float(rewards[reward_ns <= stamp].sum())
        seconds = (stamp - image_ns[0]) / 1e9
        caption = f"{seconds:4.1f} s   return {total:5.1f}"
        yield video.Moment(image, commands[newest] if newest >= 0 else None, caption)


def _frame_rate(recording: Path) -> int:
    with np.load(recording, allow_pickle=False) as data:
        stamps = data["image_stamps_ns"]
    period_ns = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 1e8
    return max(1, round(1e9 / max(period_ns, 1e6)))


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
