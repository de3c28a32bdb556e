"""The verbs of `sac-ae` that have to do with recordings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from sac_ae_ros.cli_parts import (
    BAD_INPUT,
    FAILED,
    Verb,
    complain,
    count,
    factor,
    gate,
    integer,
    number,
    positive,
    print_json,
    seconds,
    show,
    show_lines,
)
from sac_ae_ros.core.errors import ConfigError, quote
from sac_ae_ros.core.share import ensure_dds_profile


def _bag_eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="a recording: a folder, .mcap, .db3 or .bag")
    parser.add_argument("--policy", type=Path, action="append", required=True, metavar="FILE", help="may be repeated")
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="(default: the only one with images)")
    parser.add_argument(
        "--command-topic", default="", metavar="TOPIC", help="(default: an `executed` one, or the only one of commands)"
    )
    parser.add_argument(
        "--command-field", action="append", default=[], metavar="PATH", help="where each action is, in their order"
    )
    parser.add_argument("--stamp-source", choices=("header", "log"), default="header", help="(default: header)")
    parser.add_argument(
        "--msg-path", type=Path, metavar="DIR", help="with .msg files of types that the recording does not define"
    )
    _view_arguments(parser)
    _part_arguments(parser)
    parser.add_argument("--freeze-timeout", type=seconds, default=0.0, metavar="S", help="as image.freeze_timeout_s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for numbers, page, videos and a recording")
    parser.add_argument("--no-video", action="store_true", help="with --out: no overlay.mp4, and none in report.html")
    parser.add_argument("--metrics-only", action="store_true", help="with --out: only metrics.json and frames.csv")
    parser.add_argument("--force", action="store_true", help="replace what has the names of results in --out")
    parser.add_argument("--jobs", type=positive, help="of several pairs, how many side by side (default: the cores)")
    _gate_arguments(parser)
    _merge_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _gate_arguments(parser: argparse.ArgumentParser) -> None:
    gates = parser.add_argument_group("gates", "What is not kept gives exit code 1, and a line on stderr.")
    limit: dict[str, Any] = {"type": _limit, "action": "append", "default": [], "metavar": "[ACTION=]X"}
    gates.add_argument(
        "--max-mae", **limit, help="of an action at its best shift; a bare number is for all others; may be repeated"
    )
    gates.add_argument("--max-mae-raw", **limit, help="the same without a shift")
    gates.add_argument("--max-novelty", type=gate, metavar="X", help="of novelty_p99")
    gates.add_argument(
        "--max-age", type=seconds, metavar="S", help="of the frame that was recorded latest after its stamp"
    )
    gates.add_argument("--min-ticks", type=count, metavar="N", help="of the policy, with finite actions")
    gates.add_argument("--min-pairs", type=count, metavar="N", help="of ticks with a recorded command, for each action")
    gates.add_argument("--max-refused", type=count, metavar="N", help="frames that could not be used")
    gates.add_argument("--max-commands-refused", type=count, metavar="N", help="commands that could not be read")
    gates.add_argument("--max-salvaged", type=count, metavar="N", help="messages of a damaged bag; 0: none is damaged")


def _limit(text: str) -> tuple[str, float]:
    """A number, or that of one action."""
    name, _, value = text.rpartition("=")
    try:
        return name, gate(value)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, or ACTION=number, got {quote(text)}") from None


def _by_action(gate: str, limits: list[tuple[str, float]]) -> dict[str, float]:
    names = [name for name, _ in limits]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{gate}: expected one limit of {name or 'all actions'}, got {names.count(name)}")
    return dict(limits)


def _bag_eval(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.bag import many, overview, score
    from sac_ae_ros.bag.evaluate import Options
    from sac_ae_ros.bag.gates import Gates, judge
    from sac_ae_ros.core.image import View

    view = View.of(args.roi, args.rotate_deg, args.value_range)
    names = args.image_topic, args.command_topic, tuple(args.command_field)
    msg_path = "" if args.msg_path is None else str(args.msg_path)
    options = Options(
        *names,
        view,
        args.freeze_timeout,
        stamp_source=args.stamp_source,
        msg_path=msg_path,
        start_s=args.start,
        duration_s=args.duration,
    )
    limits = args.max_novelty, args.max_age, args.min_ticks, args.max_refused, args.max_salvaged, args.min_pairs
    errors = _by_action("--max-mae", args.max_mae), _by_action("--max-mae-raw", args.max_mae_raw)
    gates = Gates(*errors, *limits, args.max_commands_refused)
    outputs = score.Outputs(page=not args.metrics_only, video=not (args.no_video or args.metrics_only))
    jobs = many.plan(args.bags, args.policy, args.out, outputs, args.merge)
    if args.out is not None and outputs.page and len(jobs) > 1:
        many.check_index(args.out, args.force)
    found = many.score_all(jobs, options, args.jobs or os.cpu_count() or 1, args.force)
    if args.out is not None and outputs.page and len(jobs) > 1 and args.out.is_dir():
        overview.write_index(found, args.out)
    scores = [each.facts for each in found if each.facts is not None]
    verdicts = [(f"{each['bag']} with {each['policy']}", judge(each, gates)) for each in scores]
    if args.json:
        print_json(scores[0] if len(jobs) == 1 else overview.to_dict(found))
    else:
        show_lines(score.render(scores[0]) if len(jobs) == 1 else overview.render(found))
        page = args.out and args.out / ("report.html" if len(jobs) == 1 else "index.html")
        if page and page.exists():
            show(f"page      {page}")
    exceeded = [f"{pair}: {line}" for pair, verdict in verdicts for line in verdict.exceeded]
    unknown = [f"{pair}: {line}" for pair, verdict in verdicts for line in verdict.unknown]
    unknown += [f"{each.job.bag} with {each.job.policy}: {each.error}" for each in found if each.error]
    for line in exceeded:
        complain(f"failed: {line}")
    for line in unknown:
        complain(f"error: {line}")
    return BAD_INPUT if unknown else FAILED if exceeded else 0


def _bag_info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help="a recording: a folder, .mcap, .db3 or .bag")
    parser.add_argument(
        "--msg-path", type=Path, metavar="DIR", help="with .msg files of types that the recording does not define"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _bag_info(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.bag import info

    facts = info.describe(args.bag, args.msg_path)
    if args.json:
        print_json(facts)
    else:
        show_lines(info.render(facts))
    return 0


def _merge_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--merge", action="store_true", help="take all BAGs as one recording, merged by log time")


def _view_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--roi", type=integer, nargs=4, metavar=("X", "Y", "W", "H"), default=(), help="as image.roi")
    parser.add_argument("--rotate-deg", type=integer, default=0, metavar="DEG", help="as image.rotate_deg")
    ends = ("BLACK", "WHITE")
    parser.add_argument("--value-range", type=number, nargs=2, metavar=ends, default=(), help="as image.value_range")


def _part_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start", type=seconds, default=0.0, metavar="S", help="leave out so much of the beginning")
    parser.add_argument("--duration", type=seconds, default=0.0, metavar="S", help="use so much (default: to the end)")


def _bag_to_replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="a recording: a folder, .mcap, .db3 or .bag")
    parser.add_argument("--policy", type=Path, required=True, metavar="FILE", help="whose frames and actions are meant")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder, for learn.replay_from")
    parser.add_argument("--image-topic", default="", metavar="TOPIC", help="(default: the only one with images)")
    parser.add_argument(
        "--executed-topic", default="", metavar="TOPIC", help="(default: an `executed` one with the policy's actions)"
    )
    parser.add_argument("--reward-topic", default="", metavar="TOPIC", help="(default: the only one called `reward`)")
    parser.add_argument("--episode-end-topic", default="", metavar="TOPIC", help="(default: any called `episode_end`)")
    parser.add_argument("--stamp-source", choices=("header", "log"), default="header", help="(default: header)")
    _view_arguments(parser)
    _part_arguments(parser)
    parser.add_argument("--force", action="store_true", help="replace the recorded transitions in --out")
    _merge_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _bag_to_replay(args: argparse.Namespace, _: list[str]) -> int:
    from sac_ae_ros.bag.fill import fill, render, to_dict
    from sac_ae_ros.bag.transitions import Sources
    from sac_ae_ros.core.image import View
    from sac_ae_ros.core.policy import OnnxPolicy
    from sim_training.offline import ReplayWriter

    policy = OnnxPolicy.load(args.policy)
    topics = args.image_topic, args.executed_topic, args.reward_topic, args.episode_end_topic
    sources = Sources(
        *topics, View.of(args.roi, args.rotate_deg, args.value_range), args.stamp_source, args.start, args.duration
    )
    with ReplayWriter(args.out, policy.spec, force=args.force) as writer:
        bags, merged = (args.bags[:1], args.bags[1:]) if args.merge else (args.bags, [])
        summaries = [fill(writer, bag, policy.spec, sources, merged) for bag in bags]
        facts = to_dict([" + ".join(map(str, (bag, *merged))) for bag in bags], summaries)
        writer.finish({**facts, "policy": str(args.policy), "policy_sha256": policy.sha256})
    if args.json:
        print_json(facts)
    else:
        show_lines(render(facts))
        complain(f"next: sac-ae train --learn.replay_from={args.out}")
    return 0


def _record_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="", metavar="DIR", help="new folder (default: drives/drive-TIME)")
    parser.add_argument("--image-topic", default="image", metavar="TOPIC", help="(default: image)")
    parser.add_argument("--compressed", action="store_true", help="record TOPIC/compressed, not raw images")
    parser.add_argument("--command-topic", default="cmd_vel", metavar="TOPIC", help="(default: cmd_vel)")
    parser.add_argument("--policy-node", default="policy_node", metavar="NAME", help="(default: policy_node)")
    parser.add_argument("--topic", action="append", metavar="TOPIC", help="record this one too; may be repeated")
    parser.add_argument("--namespace", default="", metavar="NS", help="of the topics that are not absolute")
    parser.add_argument("--keep-free", type=count, default=500, metavar="MB", help="of the disk (default: 500)")
    parser.add_argument(
        "--remap", action="append", type=_remap, default=[], metavar="FROM:=TO", help="record TO as FROM's topic"
    )


def _record(args: argparse.Namespace, _: list[str]) -> int:
    ensure_dds_profile()
    from sac_ae_ros.nodes import record_node

    overrides = {
        "out": args.out,
        "transport": "compressed" if args.compressed else "raw",
        "policy_node": args.policy_node,
        "keep_free_mb": args.keep_free,
        **({"topics": args.topic} if args.topic else {}),
    }
    base = args.image_topic.removesuffix("/compressed").removesuffix("/compressedDepth")
    parent, slash, _name = base.rpartition("/")
    rules = [
        *args.remap,  # first: the first rule that fits wins
        f"image:={args.image_topic}",
        f"camera_info:={parent}{slash}camera_info",
        f"cmd_vel:={args.command_topic}",
        *([f"__ns:=/{args.namespace.strip('/')}"] if args.namespace else []),
    ]
    return record_node.main(["--ros-args", *(each for rule in rules for each in ("-r", rule))], overrides)


def _remap(text: str) -> str:
    """A remapping rule; rcl would take more than a line to complain."""
    if ":=" not in text:
        raise argparse.ArgumentTypeError(f"expected FROM:=TO, got {text}")
    return text


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="a recording: a folder, .mcap, .db3 or .bag")
    _merge_argument(parser)
    parser.add_argument(
        "--rate", type=factor, default=1.0, metavar="R", help="recorded seconds per second (default: 1)"
    )
    parser.add_argument("--loop", action="store_true", help="begin again at the end; stamps go on growing")
    parser.add_argument("--paused", action="store_true", help="wait for ~/resume, or the space bar of a terminal")
    parser.add_argument("--start", type=seconds, default=0.0, metavar="S", help="leave out so much of the beginning")
    parser.add_argument("--duration", type=seconds, default=0.0, metavar="S", help="play so much (default: to the end)")
    parser.add_argument(
        "--topic", action="append", metavar="TOPIC", help="play this one; may be repeated (default: all)"
    )
    parser.add_argument("--image-topic", default="", metavar="NEW", help="where the images and their camera_info go")
    parser.add_argument(
        "--remap",
        action="append",
        type=_remap,
        default=[],
        metavar="FROM:=TO",
        help="publish FROM as TO; may be repeated",
    )
    parser.add_argument(
        "--as-recorded", action="store_true", help="commands and switches under their own names: this may move a robot"
    )
    parser.add_argument("--no-clock", action="store_true", help="publish nothing on /clock")
    parser.add_argument(
        "--wait-for", type=count, default=1, metavar="N", help="subscribers of images to wait for (default: 1)"
    )
    parser.add_argument("--wait", type=seconds, default=2.0, metavar="S", help="how long at most (default: 2)")


def _replay(args: argparse.Namespace, _: list[str]) -> int:
    ensure_dds_profile()
    from sac_ae_ros.nodes import replay_node

    if len(args.bags) > 1 and not args.merge:
        raise ConfigError(f"expected one BAG, got {len(args.bags)}; give --merge to play them as one recording")
    overrides = {
        "bag": str(args.bags[0]),
        **({"merge": [str(bag) for bag in args.bags[1:]]} if args.bags[1:] else {}),
        "rate": args.rate,
        "loop": args.loop,
        "start_paused": args.paused,
        "start_s": args.start,
        "duration_s": args.duration,
        "image_topic": args.image_topic,
        "as_recorded": args.as_recorded,
        "publish_clock": not args.no_clock,
        "wait_for": args.wait_for,
        "wait_s": args.wait,
        **({"topics": args.topic} if args.topic else {}),
    }
    remaps = [each for remap in args.remap for each in ("-r", remap)]
    return replay_node.main(["--ros-args", *remaps] if remaps else [], overrides, keys=True)


VERBS = {
    "bag-eval": Verb(
        _bag_eval,
        _bag_eval_arguments,
        "Score a policy on a recorded drive, through the code that the robot runs; see docs/bags.md. The robot's own\n"
        "limits.* are not applied: a policy that drove with them is not at 0 on its own drive.",
        "  sac-ae bag-eval drive.mcap --policy models/rover_chase_ball.onnx --out scores/drive\n"
        "  sac-ae bag-eval drives/* --policy old.onnx --policy new.onnx --json\n"
        "  sac-ae bag-eval drive.mcap --policy new.onnx --max-mae 0.05 --max-novelty 1.0",
    ),
    "bag-info": Verb(
        _bag_info,
        _bag_info_arguments,
        "List a recording's topics, their rates and clocks, and what is damaged; see docs/bags.md.",
        "  sac-ae bag-info drive.mcap\n  sac-ae bag-info drives/corridor --json",
    ),
    "record": Verb(
        _record,
        _record_arguments,
        "Record what a later evaluation or training needs, until Ctrl-C: images, commands, what policy_node executed,\n"
        "rewards, episode ends, enable and e_stop, each as soon as it appears. See docs/bags.md.",
        "  sac-ae record\n"
        "  sac-ae record --image-topic /camera/image_raw --command-topic /cmd_vel --out drives/corridor-1\n"
        "  sac-ae record --image-topic /camera/image_raw --compressed --topic /odom",
    ),
    "bag-to-replay": Verb(
        _bag_to_replay,
        _bag_to_replay_arguments,
        "Make recorded drives into transitions that a training starts with; see docs/bags.md.",
        "  sac-ae bag-to-replay drives/* --policy my_robot.onnx --out replays/drives\n"
        "  sac-ae bag-to-replay drive.mcap --policy my_robot.onnx --reward-topic /judge/score --out replays/judged\n"
        "  sac-ae train --config config/train/rover_chase_ball.yaml --learn.replay_from=replays/drives",
    ),
    "replay": Verb(
        _replay,
        _replay_arguments,
        "Publish a recorded drive to live nodes, with original timing and /clock; commands go below /recorded, where\n"
        "nobody obeys them. See docs/bags.md.",
        "  sac-ae replay drive.mcap\n"
        "  sac-ae replay drive.mcap --image-topic /image --rate 0.5 --loop\n"
        "  sac-ae replay drive.mcap --paused --start 60 --duration 10 --topic /camera/image_raw",
    ),
}
