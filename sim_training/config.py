"""One typed tree for training: YAML and command line -> frozen dataclasses; an unknown key is an error.

The dataclasses' defaults are the published recipe (arXiv 1910.01741, appendix, and its authors' code): the profile
`plain`. The profile `best`, which is the default, sets improvements on top; a config file and the command line come
after both.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from sac_ae_ros import bounded_yaml
from sac_ae_ros.core.errors import ConfigError, RunError
from sac_ae_ros.core.spec import MAX_FRAME_STACK, MAX_SIDE_PX, MAX_SOURCE_PX

DEVICE = re.compile(r"cpu|cuda(:\d+)?")
PROFILES = ("best", "plain")
MAX_INT = 2**63 - 1
MOST = {  # larger ones no policy's contract holds, or they ask for memory and processes that no machine has
    "env.height": MAX_SIDE_PX,
    "env.width": MAX_SIDE_PX,
    "env.frame_stack": MAX_FRAME_STACK,
    "env.supersample": MAX_SOURCE_PX // MAX_SIDE_PX,
    "network.filters": 1024,
    "network.latent": 4096,
    "network.hidden": 16384,
    "learn.batch_size": 65536,
    "learn.n_step": 1000,
    "run.envs": 1024,
    "run.threads": 1024,
}
RANGES = {  # what float32 and Adam have room for; beyond it losses overflow, or nothing moves
    "learn.critic_lr": (1e-12, 1.0),
    "learn.actor_lr": (1e-12, 1.0),
    "learn.autoencoder_lr": (1e-12, 1.0),
    "learn.alpha_lr": (1e-12, 1.0),
    "learn.init_alpha": (1e-12, 1e6),
    "learn.latent_l2": (0.0, 1e6),
    "learn.decoder_weight_decay": (0.0, 1e6),
    "learn.discount": (0.0, 1.0),
    "learn.critic_tau": (0.0, 1.0),
    "learn.encoder_tau": (0.0, 1.0),
    "network.log_std_min": (-50.0, 20.0),
    "network.log_std_max": (-50.0, 20.0),
}
MAX_YAML_BYTES = 1 << 20
SHIFT_SHARE = 4 / 84  # DrQ's shift, as a share of the image


@dataclass(frozen=True)
class EnvConfig:
    """What is simulated and seen.

    Args:
        task: `domain/task`, one of the dm_control suite or of our own robots (`rover/chase_ball`).
        obs: `pixels`, or `state` for the simulator's own numbers: SAC without a camera, an upper bound for pixels;
            what concerns pictures, such as frame_stack and random_shift, is then left unused.
        height: image height, pixels.
        width: image width, pixels.
        frame_stack: frames the policy sees, newest last.
        action_repeat: simulator control steps for each agent step.
        supersample: how many times larger the camera renders before the picture is averaged to size.
        renderer: `fast`, or `stock` for dm_control's own.
    """

    task: str = "rover/chase_ball"
    obs: Literal["pixels", "state"] = "pixels"
    height: int = 84
    width: int = 84
    frame_stack: int = 3
    action_repeat: int = 1
    supersample: int = 1
    renderer: str = "fast"


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks.

    Args:
        filters: channels of every convolution.
        strides: stride of each 3x3 convolution, first to last.
        latent: size Z of the latent vector.
        hidden: width of the actor's and the critic's hidden layers.
        log_std_min: lower end of the actor's log standard deviation.
        log_std_max: upper end of it.
        critic_layer_norm: LayerNorm after each hidden layer of the Q heads (RLPD, arXiv 2302.02948).
    """

    filters: int = 32
    strides: tuple[int, ...] = (2, 1, 1, 1)
    latent: int = 50
    hidden: int = 1024
    log_std_min: float = -10.0
    log_std_max: float = 2.0
    critic_layer_norm: bool = False


@dataclass(frozen=True)
class LearnConfig:
    """Losses, optimisers and schedules. Steps here are agent steps.

    Args:
        batch_size: transitions in an update.
        replay_capacity: frames the replay buffer holds.
        random_steps: agent steps with random actions at the start; as many catch-up updates follow them.
        random_hold: agent steps for which each random action is held; longer ones explore further than 1, the paper's.
        updates_per_step: updates after each later agent step; with critic_layer_norm more than 1 can help (RLPD).
        discount: gamma.
        critic_lr: Adam's rate for critic and encoder, on the critic's loss.
        actor_lr: Adam's rate for the actor.
        autoencoder_lr: Adam's rate for encoder and decoder, on the autoencoder's loss.
        alpha_lr: Adam's rate for log alpha.
        alpha_beta1: Adam's beta1 for log alpha.
        init_alpha: first temperature.
        actor_every: updates between two of actor and temperature.
        target_every: updates between two of the target networks.
        decoder_every: updates between two of the autoencoder.
        critic_tau: share of the online Q heads in a target update.
        encoder_tau: share of the online encoder (convolutions, Linear, LayerNorm) in a target update.
        latent_l2: weight of the latent's squared norm in the autoencoder's loss.
        decoder_weight_decay: Adam's weight decay for the decoder.
        shared_pass: one encoder pass, and one Adam step on the sum of both losses, for critic and autoencoder; the
            paper has a pass and a step for each.
        random_shift: pixels by which obs and next_obs are shifted at random (DrQ, arXiv 2004.13649); 0 is none.
        reconstruct_shifted: whether the autoencoder reconstructs the shifted frames, or the frames before the shift.
        n_step: rewards summed before the bootstrap.
        bfloat16: convolutions in bfloat16, all else stays float32; for GPUs.
        replay_from: folder of recorded transitions that `sac-ae bag-to-replay` made; the replay buffer starts with
            them. Empty: with nothing.
    """

    batch_size: int = 128
    replay_capacity: int = 1_000_000
    random_steps: int = 1000
    random_hold: int = 1
    updates_per_step: int = 1
    discount: float = 0.99
    critic_lr: float = 1e-3
    actor_lr: float = 1e-3
    autoencoder_lr: float = 1e-3
    alpha_lr: float = 1e-4
    alpha_beta1: float = 0.5
    init_alpha: float = 0.1
    actor_every: int = 2
    target_every: int = 2
    decoder_every: int = 1
    critic_tau: float = 0.01
    encoder_tau: float = 0.05
    latent_l2: float = 1e-6
    decoder_weight_decay: float = 1e-7
    shared_pass: bool = False
    random_shift: int = 0
    reconstruct_shifted: bool = True
    n_step: int = 1
    bfloat16: bool = False
    replay_from: str = ""


@dataclass(frozen=True)
class RunConfig:
    """How long, how often, where. Budgets and periods are in simulator steps (agent steps x action repeat).

    Args:
        env_steps: budget of the run.
        eval_every: env steps between two evaluations; 0 means only at the end.
        eval_episodes: episodes of an evaluation, with the mean action.
        checkpoint_every: env steps between two checkpoints.
        log_every: agent steps between two rows of losses.
        seed: seeds networks, exploration, replay and episodes.
        device: torch device, such as `cpu` or `cuda`.
        threads: torch threads on the CPU; 0 leaves torch's own choice.
        collect: `lockstep` alternates steps and updates and can be resumed bit for bit; `async` simulates in
            processes of their own while the learner updates.
        envs: environments that collect side by side; more than 1 needs `async`.
        replay: where frames are kept: `ram`, `disk` (memory-mapped), or `device` (the learner's, such as a GPU); the
            data are the same, so it may change when a run is resumed.
        cuda_graphs: on a GPU, record each update once as a CUDA graph and replay it.
    """

    env_steps: int = 100_000
    eval_every: int = 10_000
    eval_episodes: int = 10
    checkpoint_every: int = 10_000
    log_every: int = 100
    seed: int = 1
    device: str = "cpu"
    threads: int = 0
    collect: Literal["lockstep", "async"] = "lockstep"
    envs: int = 1
    replay: Literal["ram", "disk", "device"] = "ram"
    cuda_graphs: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training run depends on; saved resolved in its folder as config.yaml.

    Args:
        profile: what the file and the command line start from: `best`, or `plain` for the published recipe.
        env: what is simulated and seen.
        network: sizes of the networks.
        learn: losses, optimisers and schedules.
        run: how long, how often, where.
    """

    profile: Literal["best", "plain"] = "best"
    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Raises ConfigError naming the first value that cannot work."""
        positive = {
            "env": "height width frame_stack action_repeat supersample",
            "network": "filters latent hidden",
            "learn": "batch_size replay_capacity random_steps random_hold actor_every target_every decoder_every"
            " n_step",
            "run": "env_steps eval_episodes checkpoint_every log_every envs",
        }
        for group, names in positive.items():
            for name in names.split():
                value = getattr(getattr(self, group), name)
                most = MOST.get(f"{group}.{name}", MAX_INT)
                text = f"1..{most}" if value > most else "at least 1"
                _require(1 <= value <= most, f"{group}.{name}", text, value)
        for name in ("run.eval_every", "run.threads", "run.seed", "learn.updates_per_step", "learn.random_shift"):
            value = getattr(getattr(self, name.split(".")[0]), name.split(".")[1])
            most = MOST.get(name, MAX_INT)
            _require(0 <= value <= most, name, f"0..{most}" if value > most else "at least 0", value)
        for name, (least, largest) in RANGES.items():
            group, key = name.split(".")
            value = getattr(getattr(self, group), key)
            _require(least <= value <= largest, name, f"{least:g}..{largest:g}", value)
        beta1 = self.learn.alpha_beta1
        _require(0 <= beta1 < 1, "learn.alpha_beta1", "0..1, less than 1", beta1)
        low, high = self.network.log_std_min, self.network.log_std_max
        _require(low < high, "network.log_std_min", f"less than log_std_max {high}", low)
        _require(bool(DEVICE.fullmatch(self.run.device)), "run.device", "cpu, cuda or cuda:N", self.run.device)
        _require(min(self.network.strides, default=0) >= 1, "network.strides", "one or more >= 1", self.network.strides)
        strides, height, width = self.network.strides, self.env.height, self.env.width
        smallest = min(conv_sizes(height, width, strides)[-1])
        _require(
            smallest >= 1, "env.height, env.width", f"enough pixels for the strides {strides}", f"{height}x{width}"
        )
        room = self.env.frame_stack + self.learn.batch_size
        capacity = self.learn.replay_capacity // self.run.envs
        _require(capacity > room, "learn.replay_capacity", f"more than {room} for each environment", capacity)
        alone = self.run.collect == "async" or self.run.envs == 1
        _require(alone, "run.envs", "1, or run.collect async", self.run.envs)
        sees = self.env.obs == "pixels" or not self.learn.replay_from
        _require(sees, "learn.replay_from", "env.obs pixels, which are what was recorded", f"env.obs {self.env.obs}")
        shift = self.learn.random_shift
        _require(shift < min(self.env.height, self.env.width), "learn.random_shift", "less than the image", shift)


def conv_sizes(height: int, width: int, strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """Heights and widths before the first and after each 3x3 convolution without padding."""
    sizes = [(height, width)]
    for stride in strides:
        rows, cols = sizes[-1]
        sizes.append(((rows - 3) // stride + 1, (cols - 3) // stride + 1))
    return sizes


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise ConfigError(f"config {name}: expected {expected}, got {came}")


def parse(arguments: Sequence[str], *, path: str | Path | None = None) -> TrainConfig:
    """Reads the profile, then a YAML file, if given, then `--group.key=value` arguments on top.

    Raises:
        ConfigError: no such file, an unknown key, a value of the wrong type or out of range.
    """
    if path is not None and not Path(path).is_file():
        raise ConfigError(f"config: expected a YAML file, {path} is none")
    plain = _parse(arguments, path, {})
    return plain if plain.profile == "plain" else _parse(arguments, path, best(plain.env))


def best(env: EnvConfig) -> dict[str, object]:
    """What the profile `best` changes of the published recipe; docs/results.md has the effect of each."""
    return {
        "learn.shared_pass": True,
        "learn.random_shift": round(SHIFT_SHARE * min(env.height, env.width)),
        "learn.n_step": 3,
        "network.critic_layer_norm": True,
    }


def _parse(arguments: Sequence[str], path: str | Path | None, defaults: dict[str, object]) -> TrainConfig:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(
        prog="sac-ae train", exit_on_error=False, default_env=False, allow_abbrev=False
    )
    parser.add_class_arguments(TrainConfig, as_group=True)
    parser.set_defaults(defaults)
    groups = [group.name for group in fields(TrainConfig)]
    try:
        unknown = set(read_yaml(Path(path)) or {}) - set(groups) if path is not None else set()
        if unknown:  # jsonargparse lets an empty group of an unknown name pass
            raise ValueError(f"expected only {groups}, got also {sorted(map(str, unknown))}")
        namespace = parser.parse_path(str(path), defaults=True) if path is not None else parser.get_defaults()
        namespace = parser.parse_args(list(arguments), namespace=namespace)
        config = parser.instantiate(namespace)
    except (jsonargparse.ArgumentError, yaml.YAMLError, TypeError, ValueError, OverflowError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"config{f' {path}' if path else ''}: {text[:300]}; see `sac-ae train --help`") from None
    return TrainConfig(**{group: getattr(config, group) for group in groups})


def read_yaml(path: Path) -> Any:
    """What a configuration file says, which may come from anywhere.

    Raises:
        ValueError: it is larger than a configuration.
        yaml.YAMLError: it is no YAML, or has more values or levels than a configuration.
    """
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ValueError(f"expected at most {MAX_YAML_BYTES} bytes, got {path.stat().st_size}")
    return bounded_yaml.load(path.read_text(encoding="utf-8"))


def help_text() -> str:
    """Every key with its default and meaning, for `sac-ae train --help`."""
    import jsonargparse

    parser = jsonargparse.ArgumentParser(usage=jsonargparse.SUPPRESS, add_help=False)
    parser.add_class_arguments(TrainConfig, as_group=True)
    return parser.format_help()


def load(path: Path) -> TrainConfig:
    """Reads a run's config.yaml, which says everything; errors as in `parse`."""
    if not path.is_file():
        raise ConfigError(f"config: expected a YAML file, {path} is none")
    return _parse([], path, {})


def run_config(run_dir: Path) -> Path:
    """The config.yaml of a run folder.

    Raises:
        RunError: it is no run folder; the message names runs within it.
    """
    path = run_dir / "config.yaml"
    if path.is_file():
        return path
    if not run_dir.exists():
        raise RunError(f"expected a run folder with config.yaml, {run_dir} does not exist")
    runs = sorted(str(inner.parent) for inner in run_dir.glob("*/config.yaml"))
    hint = f"name one of its runs, such as {', '.join(runs[:3])}" if runs else "give a folder that `sac-ae train` made"
    raise RunError(f"expected a run folder with config.yaml, {run_dir} is none; {hint}")


CHANGEABLE = ("run.env_steps", "run.threads", "run.device", "run.replay")


def load_to_resume(path: Path, arguments: Sequence[str]) -> TrainConfig:
    """Reads a run's config.yaml and `--run.env_steps` and the like on top: what may differ when a run goes on.

    Raises:
        ConfigError: as in `parse`, or a key that the run depends on would change.
    """
    saved = load(path)
    written = read_yaml(path) or {}
    for group, keys in _plain(asdict(saved)).items():  # type: ignore[attr-defined]
        missing = (
            [f"{group}.{key}" for key in keys if key not in written.get(group, {})] if isinstance(keys, dict) else []
        )
        if missing or group not in written:
            name = (missing or [group])[0]
            raise ConfigError(f"--resume: {path} lacks {name}: it was cut short, or an older version wrote it")
    config = _parse(arguments, path, {})
    for group in fields(TrainConfig):
        before, after = _plain_group(getattr(saved, group.name)), _plain_group(getattr(config, group.name))
        for key in before:
            name = f"{group.name}.{key}" if key else group.name
            if before[key] != after[key] and name not in CHANGEABLE:
                raise ConfigError(
                    f"--resume: {name} is {before[key]} in this run; only {', '.join(CHANGEABLE)} may change"
                )
    return config


def _plain_group(value: object) -> dict[str, object]:
    return {"": value} if isinstance(value, str) else asdict(value)  # type: ignore[call-overload]


def save(config: TrainConfig, path: Path) -> None:
    """Writes the resolved config as YAML, whole or not at all."""
    write_text(path, yaml.safe_dump(_plain(asdict(config)), sort_keys=False))


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: a reader, or a crash, never meets half of it.

    Raises:
        RunError: it cannot be written; an older file of that name stays.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        os.unlink(name)
        raise RunError(f"cannot write {path} ({error.strerror or error})") from error


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
