#!/usr/bin/env python3
"""How fast recordings are scored, beside a loop that decodes every frame; and how much memory that takes.

Bags of a synthetic 640x480 camera at 30 Hz and of commands at 10 Hz are written first. Metrics only: policy ticks
only, no page, no video. "times_real_time" is the ten-minute JPEG bag, "raw_times_real_time" the one-minute bag of
uncompressed rgb8, read from the page cache; "every_frame_times_real_time" is the first minute of the JPEG bag with
rosbags' reader, every frame decoded in full and the same policy at its ticks; "with_page_times_real_time" is a
one-minute JPEG bag with page, videos and recording. "peak_mib" is the greatest resident size of a process that scores,
one process for each score.

Examples:
  python benchmarks/bags.py --json
  python benchmarks/bags.py --minutes 1 --policy my_robot.onnx
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sac_ae_ros.bag.evaluate import Options  # noqa: E402
from sac_ae_ros.bag.score import Job, Outputs, score  # noqa: E402
from sac_ae_ros.core.frames import Due, FrameSampler, FrameStack  # noqa: E402
from sac_ae_ros.core.image import fit  # noqa: E402
from sac_ae_ros.core.policy import OnnxPolicy  # noqa: E402
from sim_training import machine  # noqa: E402

HEIGHT, WIDTH, RATE_HZ = 480, 640, 30
START_NS = 1_700_000_000_000_000_000
DIFFERENT = 97  # pictures, shown in turn
STORE = get_typestore(Stores.ROS2_JAZZY)


def pictures() -> list[NDArray[np.uint8]]:
    """A ball that wanders over a textured ground below a sky, with a camera's noise, uint8 RGB [480, 640, 3]."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(70, 160, (60, 80, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    ground[: HEIGHT // 3] = (140, 170, 200)
    found = []
    for i in range(DIFFERENT):
        picture = ground.copy()
        at = round(WIDTH * (0.5 + 0.4 * np.sin(2 * np.pi * i / DIFFERENT))), HEIGHT // 2
        cv2.circle(picture, at, 60, (200, 40, 30), -1)
        noisy = picture + rng.normal(0, 5, picture.shape)
        found.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return found


def write(folder: Path, seconds: int, jpeg: bool) -> Path:
    """A bag of that many seconds; an mcap without compression, as a camera's JPEG would gain nothing."""
    made = pictures()
    if jpeg:
        data = [cv2.imencode(".jpg", each[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].ravel() for each in made]
    else:
        data = [each.ravel() for each in made]
    fields = ("jpeg",) if jpeg else (HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH)
    kind = "sensor_msgs/msg/CompressedImage" if jpeg else "sensor_msgs/msg/Image"
    twist, vector = STORE.types["geometry_msgs/msg/Twist"], STORE.types["geometry_msgs/msg/Vector3"]
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/image", kind, typestore=STORE)
        commands = writer.add_connection("/cmd_vel", twist.__msgtype__, typestore=STORE)
        for i in tqdm(range(seconds * RATE_HZ), desc=folder.name, leave=False, disable=None):
            at_ns = START_NS + i * 10**9 // RATE_HZ
            stamp = STORE.types["builtin_interfaces/msg/Time"](*divmod(at_ns, 10**9))
            header = STORE.types["std_msgs/msg/Header"](stamp, "camera")
            image = STORE.types[kind](header, *fields, data[i % DIFFERENT])
            writer.write(images, at_ns + 5_000_000, STORE.serialize_cdr(image, kind))
            if i % 3 == 0:
                command = twist(vector(0.3, 0.0, 0.0), vector(0.0, 0.0, float(np.sin(i / 30))))
                writer.write(commands, at_ns + 9_000_000, STORE.serialize_cdr(command, twist.__msgtype__))
    return folder


def ours(bag: Path, policy: Path, out: Path | None, outputs: Outputs) -> dict[str, Any]:
    """Scores a bag; also what the whole took, opening and pages included, and the process's greatest resident size."""
    started_s = time.perf_counter()
    facts = score(Job(bag, policy, out, outputs), Options(), with_bar=False)
    wall_s = time.perf_counter() - started_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"times_real_time": facts["recorded_s"] / wall_s, "peak_mib": peak_mib, "ticks": facts["ticks"]}


def every_frame(bag: Path, policy_path: Path, seconds: int) -> dict[str, Any]:
    """The plain loop: every frame decoded in full, resized, and the policy on those that are due."""
    policy = OnnxPolicy.load(policy_path)
    camera = policy.spec.camera
    sampler = FrameSampler(policy.spec.control_period_ns)
    stack = FrameStack(policy.spec.frame_stack, camera.height, camera.width)
    started_s, ticks = time.perf_counter(), 0
    with AnyReader([bag]) as reader:
        images = [c for c in reader.connections if c.topic == "/image"]
        for connection, _, raw in itertools.islice(reader.messages(images), seconds * RATE_HZ):
            message: Any = reader.deserialize(raw, connection.msgtype)
            rgb = cv2.cvtColor(cv2.imdecode(message.data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            frame = fit(np.asarray(rgb, np.uint8), camera.height, camera.width, camera.crop)
            if sampler.due(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec) is not Due.NO:
                policy.act(stack.push(frame), True)
                ticks += 1
    return {"times_real_time": seconds / (time.perf_counter() - started_s), "ticks": ticks}


def apart(function: Any, *arguments: Any) -> Any:
    """The same in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(folder: Path, policy: Path, minutes: int) -> dict[str, Any]:
    """Everything, on bags written into `folder`."""
    nothing, everything = Outputs(page=False, video=False), Outputs()
    long = write(folder / "jpeg", 60 * minutes, jpeg=True)
    short = write(folder / "jpeg-minute", 60, jpeg=True)
    raw = write(folder / "raw", 60, jpeg=False)
    steps = {
        "jpeg": (ours, long, policy, None, nothing),
        "every frame": (every_frame, long, policy, 60),
        "raw, to fill the page cache": (ours, raw, policy, None, nothing),
        "raw": (ours, raw, policy, None, nothing),
        "with page": (ours, short, policy, folder / "out", everything),
    }
    found = {name: apart(*step) for name, step in tqdm(steps.items(), desc="scores", leave=False, disable=None)}
    return {
        "times_real_time": found["jpeg"]["times_real_time"],
        "raw_times_real_time": found["raw"]["times_real_time"],
        "every_frame_times_real_time": found["every frame"]["times_real_time"],
        "with_page_times_real_time": found["with page"]["times_real_time"],
        "peak_mib": max(found[name]["peak_mib"] for name in ("jpeg", "raw")),
        "with_page_peak_mib": found["with page"]["peak_mib"],
        "minutes": minutes,
        "jpeg_bytes_per_frame": round(sum(p.stat().st_size for p in long.glob("*.mcap")) / (60 * minutes * RATE_HZ)),
    }


def main() -> None:
    """Prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=ROOT / "models" / "rover_chase_ball.onnx", metavar="FILE")
    parser.add_argument("--minutes", type=int, default=10, help="of the JPEG bag (default: 10)")
    parser.add_argument("--folder", type=Path, help="where the bags are put, 3 GB (default: the temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args()
    if args.minutes < 1:
        parser.error(f"expected at least 1 minute, got {args.minutes}")
    with TemporaryDirectory(dir=args.folder) as folder:
        result = measure(Path(folder), args.policy, args.minutes)
    if args.json:
        print(json.dumps({**result, "policy": args.policy.stem, **machine.facts("cpu")}))
        return
    for name, value in result.items():
        print(f"{name:<30}{value:>10.1f}")


if __name__ == "__main__":
    main()
