"""`sac-ae VERB`: a table of verbs, each importing what it needs when it is called."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sac_ae_ros import cli_arming, cli_bags
from sac_ae_ros.cli_parts import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    Verb,
    complain,
    factor,
    positive,
    print_json,
    seed,
    show,
    show_lines,
)
from sac_ae_ros.core.errors import ConfigError, ModelError, RunError, SacAeError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error here."""

    def error(self, message: str) -> NoReturn:
        complain(f"error: {message}; see `{self.prog} --help`")
        raise SystemExit(BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit code: 0 done, 1 a run of a sweep or a gate failed, 2 bad input, 130 interrupted."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    verb = VERBS[args.verb]
    if rest and not verb.takes_config:
        parser.error(f"expected no such argument, got {' '.join(rest)}")
    try:
        return verb.run(args, rest)
    except SacAeError as error:
        if args.debug:
            raise
        complain(f"error: {error}")
        return BAD_INPUT
    except ModuleNotFoundError as error:
        if args.debug or (error.name or "").startswith(("sac_ae_ros", "sim_training")):
            raise
        print(f"error: `sac-ae {args.verb}` needs the Python package {error.name!r};{_extras_hint()}", file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if args.debug:
            raise
        complain(f"error: {error.strerror or error}: {error.filename or 'no file'}")
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _extras_hint() -> str:
    return " install this package's extras, e.g. `pip install '.[ros,cpu,bag,sim,train]'`"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sac-ae", description="Learn in simulation, export, judge and drive a robot from pixels.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    for name, verb in VERBS.items():
        child = verbs.add_parser(
            name,
            help=verb.help,
            description=verb.help,
            epilog=f"example:\n{verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_arguments(child)
        child.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of the run's configuration")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="new folder for the run (default: runs/TASK-TIME)")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on from this run's last checkpoint; --run.env_steps=N may ask for more",
    )
    parser.add_argument("--keys", action="store_true", help="list every key that --GROUP.KEY=VALUE can set, and exit")


def _train(args: argparse.Namespace, overrides: list[str]) -> int:
    from sim_training import config as configs

    if args.keys:
        print(configs.help_text())
        return 0
    if args.resume is not None:
        extra = [name for name, value in (("--config", args.config), ("--run-dir", args.run_dir)) if value]
        if extra:
            raise ConfigError(f"--resume takes its config from the run; drop {' '.join(extra)}")
        config, run_dir = configs.load_to_resume(configs.run_config(args.resume), overrides), args.resume
    else:
        config = configs.parse(overrides, path=args.config)
        run_dir = args.run_dir or default_run_dir(config.env.task.replace("/", "_"))
    train(config, run_dir, resume=args.resume is not None)
    verb = "export" if config.env.obs == "pixels" else "report"  # states are nothing that a robot sees
    complain(f"run folder: {run_dir}")
    complain(f"next: sac-ae {verb} {run_dir}")
    return 0


def train(config: Any, run_dir: Path, *, resume: bool = False) -> None:
    """Trains and draws the learning curve; says how to go on when interrupted."""
    from sim_training.plots import learning_curve
    from sim_training.trainer import Trainer

    trainer = Trainer(config, run_dir, resume=resume)
    try:
        if trainer.finished:
            done = f"{trainer.env_step} of {config.run.env_steps} env steps"
            complain(f"resume: {run_dir} is finished, {done}; --run.env_steps=N asks for more")
        else:
            trainer.run()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        complain(f"interrupted; go on with: sac-ae train --resume {run_dir}")
        raise
    finally:
        trainer.close()
    learning_curve(run_dir, run_dir / "learning_curve.png")


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--configs", type=Path, nargs="+", metavar="FILE", help="YAML files of training configurations")
    what.add_argument("--table", type=Path, metavar="OUT", help="only print the table of the sweep in this folder")
    parser.add_argument("--profiles", nargs="+", choices=("best", "plain"), default=["best"], help="(default: best)")
    parser.add_argument(
        "--variant", action="append", default=[], metavar="TEXT", help="'NAME: --GROUP.KEY=VALUE ...', beside the best"
    )
    parser.add_argument("--seeds", type=positive, default=3, help="runs of each row, of seeds 1, 2, ... (default: 3)")
    parser.add_argument("--jobs", type=positive, help="runs side by side (default: half the cores)")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder of all runs (default: runs/sweep)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _sweep(args: argparse.Namespace, overrides: list[str]) -> int:
    from sim_training import table

    failed: dict[str, str] = {}
    if args.table:
        if overrides:
            raise ConfigError(f"--table runs nothing; drop {' '.join(overrides)}")
        result = table.to_dict(table.read(args.table))
    else:
        from sim_training import sweep

        rows = (tuple(dict.fromkeys(args.profiles)), tuple(args.variant))
        request = sweep.Request(tuple(args.configs), *rows, args.seeds, tuple(overrides), args.jobs, args.out)
        result, failed = sweep.run(request, (sys.executable, "-m", "sac_ae_ros.cli"))
    if args.json:
        print_json({**result, "failed": failed})
    else:
        show_lines(table.render(result))
    for name, error in failed.items():
        complain(f"error: {name} failed: {error}")
    return FAILED if failed else 0


def default_run_dir(name: str) -> Path:
    """A folder name that sorts by time."""
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder that train made")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: RUN/policy.onnx)")
    parser.add_argument("--name", default="", help="the policy's name in its contract (default: the task's)")
    parser.add_argument("--episodes", type=positive, default=20, help="held-out episodes to judge it by (default: 20)")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")


def _export(args: argparse.Namespace, _: list[str]) -> int:
    out = args.out or args.run / "policy.onnx"
    if out.is_dir():
        raise ModelError(f"export: expected --out to name a file, {out} is a folder; give --out {out / 'policy.onnx'}")
    if args.out and not out.resolve().parent.is_dir():
        raise ModelError(f"export: expected --out to name a file in an existing folder, got {out}")
    if out.exists() and not args.force:
        raise ModelError(f"export: {out} exists already; give --force to replace it, or another --out")
    exported = export(args.run, out, name=args.name, episodes=args.episodes)
    training = exported.spec.training
    worst = max(exported.parity["action"], exported.parity["log_std"], exported.parity["latent"])
    show(f"{out}: {out.stat().st_size / 1e6:.1f} MB, differs from torch by {worst:.1e} at most")
    show(
        f"held-out return {training.eval_return_mean:.1f} +- {training.eval_return_sd:.1f}"
        f" over {training.eval_episodes} episodes, at {training.env_steps} env steps"
    )
    return 0


def export(run_dir: Path, out: Path, *, name: str = "", episodes: int) -> Any:
    """Exports a run's best networks and draws what their autoencoder sees."""
    from sim_training.export import export_run, load_agent
    from sim_training.plots import reconstructions

    exported = export_run(run_dir, out, name=name, episodes=episodes)
    config, agent, _ = load_agent(run_dir)
    reconstructions(config, agent, run_dir / "reconstructions.png")
    return exported


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", type=Path, help="an ONNX policy file, or a run folder for its torch networks")
    parser.add_argument("--episodes", type=positive, default=10, help="how many episodes (default: 10)")
    parser.add_argument("--seed", type=seed, default=3_000_000, help="seed of the first episode (default: 3000000)")
    parser.add_argument("--renderer", choices=("fast", "stock"), default="fast", help="(default: fast)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _eval(args: argparse.Namespace, _: list[str]) -> int:
    seeds = range(args.seed, args.seed + args.episodes)
    returns = (
        evaluate_run(args.policy, seeds) if args.policy.is_dir() else evaluate_file(args.policy, seeds, args.renderer)
    )
    if args.json:
        print_json(returns.to_dict())
    else:
        print(f"return {returns.mean:.1f} +- {returns.sd:.1f} over {args.episodes} episodes (mean +- sd)")
        print(" ".join(f"{value:.1f}" for value in returns.returns))
        if returns.diverged:
            print(f"{returns.diverged} of them cut short: the simulation diverged")
    return 0


def evaluate_file(path: Path, seeds: range, renderer: str = "fast") -> Any:
    """Returns of an ONNX file in simulation, through ImageToCommand."""
    from sac_ae_ros.core.policy import OnnxPolicy

    policy = OnnxPolicy.load(path)
    from sim_training.evaluate import env_for, run_policy_file

    env = env_for(policy.spec, renderer=renderer)
    try:
        return run_policy_file(env, policy, seeds)[0]
    finally:
        env.close()


def evaluate_run(run_dir: Path, seeds: range) -> Any:
    """Returns of a run's best torch networks, acting by the mean."""
    from sim_training.envs.make import make_env
    from sim_training.evaluate import run_episodes, to_physical
    from sim_training.export import load_agent

    config, agent, _ = load_agent(run_dir)
    env = make_env(config.env)
    try:
        return run_episodes(env, lambda obs: to_physical(env, agent.act(obs, sample=False)), seeds)
    finally:
        env.close()


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", type=Path, help="an ONNX policy file")
    parser.add_argument("--json", action="store_true", help="print the PolicySpec as one JSON object")


def _info(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.core.policy import OnnxPolicy

    policy = OnnxPolicy.load(args.policy)
    spec, camera, training = policy.spec, policy.spec.camera, policy.spec.training
    if args.json:
        print(spec.to_json())
        return 0
    optics = f"fovy {camera.fovy_deg:g} deg" if camera.fovy_deg else f"K {camera.k}"
    show(f"policy    {spec.name} {spec.version}, for {spec.task}; sha256 {policy.sha256[:16]}")
    print(f"sees      {spec.frame_stack} frames of {camera.height}x{camera.width} {camera.color_order}, {optics}")
    print(f"acts      every {spec.control_period_s:g} s:")
    for action in spec.actions:
        print(f"          {action.name} {action.low:g}..{action.high:g} {action.unit}")
    print(f"trained   {training.env_steps} env steps, seed {training.seed}, source {training.revision}")
    print(
        f"judged    return {training.eval_return_mean:.1f} +- {training.eval_return_sd:.1f}"
        f" over {training.eval_episodes} held-out episodes"
    )
    kinds = (
        ("novelty", "the reconstruction error", spec.novelty.quantiles),
        ("variance", "the frame variance", spec.novelty.variance_quantiles),
    )
    for title, measure, quantiles in kinds:
        listed = ", ".join(f"{q}: {value:.2g}" for q, value in sorted(quantiles.items())) or "not in this file"
        print(f"{title:<9} quantiles of {measure} on {spec.novelty.frames} held-out frames: {listed}")
    return 0


def _publish_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("policy", type=Path, nargs="?", metavar="POLICY", help="an ONNX policy file")
    what.add_argument("--list", action="store_true", help="only list the versions")
    what.add_argument("--rollback", action="store_true", help="withdraw the newest version for good")
    parser.add_argument("--policy-dir", type=Path, required=True, metavar="DIR", help="the robot's folder of versions")
    parser.add_argument("--json", action="store_true", help="print what belongs on policy/latest, or a list of it")


def _publish(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.core import model_store, policy_file

    store = model_store.ModelStore(args.policy_dir)
    if args.list:
        return _list_versions(store.versions(), args.json)
    if args.rollback:
        version, done = store.rollback(), "is the newest again"
    else:
        data = policy_file.read_bytes(args.policy)
        version, done = store.publish(data, str(args.policy)), "is the newest"
    if args.json:
        print(model_store.to_json(version))
    else:
        show(f"version {version.number} {done} in {args.policy_dir}, sha256 {version.sha256}")
    return 0


def _list_versions(versions: Sequence[Any], as_json: bool) -> int:
    if as_json:
        print_json([{"version": version.number, "sha256": version.sha256} for version in versions])
        return 0
    for version in versions:
        facts = version.path.stat()
        stored = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(facts.st_mtime))
        print(f"{version.number:6d}  {stored}  {facts.st_size / 1e6:6.1f} MB  sha256 {version.sha256}")
    return 0


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder that train made; the run may be under way")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: RUN/report.html, made anew)")
    parser.add_argument("--no-video", action="store_true", help="leave out the video, which has to be simulated")
    parser.add_argument("--force", action="store_true", help="replace --out if it exists")


def _report(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros import report

    if args.out and (args.out.is_dir() or not args.out.resolve().parent.is_dir()):
        raise RunError(f"report: expected --out to name a file in an existing folder, got {args.out}")
    if args.out and args.out.exists() and not args.force:
        raise RunError(f"report: {args.out} exists already; give --force to replace it, or another --out")
    out = args.out or args.run / "report.html"
    report.make(args.run, out, with_video=not args.no_video)
    show(str(out))
    return 0


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=Path, metavar="FILE", help="an ONNX policy; skips the training")
    parser.add_argument("--config", type=Path, metavar="FILE", help="training configuration (default: the rover's)")
    parser.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="new folder for the results (default: runs/demo-TIME)"
    )
    parser.add_argument(
        "--episodes", type=positive, default=10, help="episodes for each row of the table (default: 10)"
    )
    parser.add_argument("--seed", type=seed, default=3_000_000, help="seed of the first episode (default: 3000000)")
    parser.add_argument(
        "--real-time-factor", type=factor, default=2.5, help="speed of the ROS simulation (default: 2.5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _demo(args: argparse.Namespace, overrides: list[str]) -> int:
    from sac_ae_ros import demo

    if args.policy is not None and (overrides or args.config):
        raise ConfigError(f"--policy skips the training; drop {' '.join(overrides) or '--config'}")
    run_dir = args.run_dir or default_run_dir("demo")
    request = demo.Request(args.policy, args.config, tuple(overrides), args.episodes, args.seed, args.real_time_factor)
    table = demo.run(request, run_dir)
    if args.json:
        print_json(table)
    else:
        show_lines(demo.render(run_dir))
    return 0


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _doctor(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros import doctor

    checks = doctor.examine()
    if args.json:
        print_json(doctor.to_dict(checks))
    else:
        print(doctor.render(checks))
    return 0


VERBS = {
    "train": Verb(
        _train,
        _train_arguments,
        "Train a policy in simulation; --GROUP.KEY=VALUE sets any key of the configuration (see --keys), and\n"
        "--profile=plain starts from the published recipe instead of the improved one.",
        "  sac-ae train --config config/train/rover_chase_ball.yaml --run.seed=3 --run-dir runs/rover-3\n"
        "  sac-ae train --config config/train/cheetah_run.yaml --profile=plain --run.device=cuda\n"
        "  sac-ae train --config config/train/cheetah_run.yaml --env.obs=state\n"
        "  sac-ae train --resume runs/rover-3 --run.env_steps=10000",
        takes_config=True,
    ),
    "sweep": Verb(
        _sweep,
        _sweep_arguments,
        "Train every config x profile or variant x seed, several side by side; the same command again goes on.",
        "  sac-ae sweep --configs config/train/rover_chase_ball.yaml --profiles plain best --seeds 5 --jobs 2"
        " --out runs/rover\n"
        "  sac-ae sweep --configs config/train/rover_chase_ball.yaml --out runs/rover"
        " --variant 'no-shift: --learn.random_shift=0'\n"
        "  sac-ae sweep --table runs/rover",
        takes_config=True,
    ),
    "export": Verb(
        _export,
        _export_arguments,
        "Write a run's best policy as one ONNX file with its contract inside.",
        "  sac-ae export runs/rover-3 --out models/my_rover.onnx",
    ),
    "eval": Verb(
        _eval,
        _eval_arguments,
        "Judge a policy in simulation, through the code that the robot runs.",
        "  sac-ae eval models/rover_chase_ball.onnx --episodes 20",
    ),
    "info": Verb(
        _info,
        _info_arguments,
        "Check a policy file and print its contract.",
        "  sac-ae info models/rover_chase_ball.onnx",
    ),
    "publish": Verb(
        _publish,
        _publish_arguments,
        "Put a policy into a robot's folder of versions, where ~/reload finds it.",
        "  sac-ae publish models/my_rover.onnx --policy-dir policies\n"
        "  sac-ae publish --list --policy-dir policies\n"
        "  sac-ae publish --rollback --policy-dir policies\n"
        "  ros2 topic pub --once policy/latest std_msgs/msg/String"
        " \"data: '$(sac-ae publish my_rover.onnx --policy-dir policies --json)'\"",
    ),
    "report": Verb(
        _report,
        _report_arguments,
        "Draw a run as one HTML page: returns, losses, reconstructions, a video, speed and config.",
        "  sac-ae report runs/rover-3\n  sac-ae report runs/rover-3 --no-video --out rover-3.html",
    ),
    **cli_bags.VERBS,
    **cli_arming.VERBS,
    "demo": Verb(
        _demo,
        _demo_arguments,
        "Train, export, and drive a simulated robot over ROS 2; prints one table of returns.",
        "  sac-ae demo\n  sac-ae demo --policy models/rover_chase_ball.onnx",
        takes_config=True,
    ),
    "doctor": Verb(
        _doctor,
        _doctor_arguments,
        "Say what works on this machine, and how to mend what does not.",
        "  sac-ae doctor",
    ),
}

if __name__ == "__main__":
    sys.exit(main())
