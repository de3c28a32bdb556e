"""What works on this machine, and how to mend what does not.

Anything that may crash or restart the interpreter (OpenGL, cv_bridge, rclpy) is tried in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sac_ae_ros.core.share import PROFILE_VARIABLES, share_file

SEGMENT_BYTES = 32 * 1024 * 1024
PROBE_TIMEOUT_S = 60
BAG_MODULES = ("apsw", "av", "jinja2", "lz4", "matplotlib", "mcap", "rosbags", "tqdm", "zstandard")  # the extra `bag`
OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Check:
    """One finding: status "ok", "warn" (something optional is missing) or "fail"; `fix` says what to do."""

    name: str
    status: str
    detail: str
    fix: str = ""


def examine() -> list[Check]:
    """Runs every check; takes a few seconds."""
    return [check() for check in CHECKS]


def to_dict(checks: list[Check]) -> dict[str, object]:
    """The JSON object that `sac-ae doctor --json` prints."""
    return {"ok": all(check.status != FAIL for check in checks), "checks": [asdict(check) for check in checks]}


def render(checks: list[Check]) -> str:
    """One line for each check, and one more for each fix."""
    lines = []
    for check in checks:
        lines.append(f"{check.status:<5} {check.name:<14} {check.detail}")
        if check.fix:
            lines.append(f"{'':<20} -> {check.fix}")
    return "\n".join(lines)


def _python() -> Check:
    version = platform.python_version()
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    fix = "" if fits else "use Python 3.11 or 3.12: the pinned wheels exist for these"
    return Check("python", OK if fits else WARN, f"{version}, {sys.executable}", fix)


def _renderer() -> Check:
    if importlib.util.find_spec("dm_control") is None:
        return Check("renderer", WARN, "dm_control is not installed", "for simulation: pip install '.[sim]'")
    code = (
        "from sim_training.envs.pixel_env import PixelEnv; import os\n"
        "env = PixelEnv('rover/chase_ball', height=48, width=48); obs, _ = env.reset(seed=0); env.close()\n"
        "assert obs.std() > 1, 'the picture is empty'\n"
        "print(os.environ['MUJOCO_GL'])"
    )
    done, text = _probe(code)
    if done:
        return Check("renderer", OK, f"MuJoCo draws through {text}")
    unset = "unset MUJOCO_GL, or " if os.environ.get("MUJOCO_GL") else ""
    return Check("renderer", FAIL, text, f"{unset}install Debian's libegl1 and libgl1-mesa-dri (or libosmesa6)")


def _onnxruntime() -> Check:
    if importlib.util.find_spec("onnxruntime") is None:
        return Check("onnxruntime", FAIL, "not installed", "pip install '.[cpu]' (or '.[gpu]')")
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(both) == 2:
        detail = "onnxruntime and onnxruntime-gpu are both installed and hide each other"
        return Check("onnxruntime", WARN, detail, "pip uninstall one of them, then reinstall the other")
    code = (
        "import onnxruntime as ort; from onnx import TensorProto as T, helper as h\n"
        "x, y = (h.make_tensor_value_info(n, T.FLOAT, [1]) for n in 'xy')\n"
        "g = h.make_graph([h.make_node('Relu', ['x'], ['y'])], 'g', [x], [y])\n"
        "m = h.make_model(g, opset_imports=[h.make_opsetid('', 18)], ir_version=9).SerializeToString()\n"
        "so = ort.SessionOptions(); so.log_severity_level = 4\n"
        "for p in ort.get_available_providers():\n"
        "    if p in ort.InferenceSession(m, so, providers=[p]).get_providers(): print(p, end=' ')"
    )
    done, text = _probe(code)
    status = OK if done and "CPUExecutionProvider" in text else FAIL
    fix = "" if status == OK else "reinstall onnxruntime: pip install --force-reinstall '.[cpu]'"
    return Check("onnxruntime", status, f"{_version(both[0]) if both else ''} active: {text}", fix)


def _torch() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("torch", WARN, "not installed; policies run, training does not", "pip install '.[sim,train]'")
    done, text = _probe("import torch; print(torch.__version__, 'cuda' if torch.cuda.is_available() else 'cpu only')")
    return Check("torch", OK if done else FAIL, text, "" if done else "pip install --force-reinstall torch==2.13.0")


def _ros() -> Check:
    code = (
        "import os, rclpy; from rclpy.utilities import get_rmw_implementation_identifier as rmw\n"
        "from sensor_msgs.msg import Image; rclpy.init(); n = rclpy.create_node('sac_ae_doctor')\n"
        "n.create_publisher(Image, 'image', 1); n.destroy_node(); print(rmw())\n"
        "rclpy.shutdown()"
    )
    done, text = _probe(code)
    distribution = os.environ.get("ROS_DISTRO", "")
    source = f"distribution {distribution}" if distribution else f"wheels, rclpy {_version('ros-rclpy') or 'absent'}"
    if done:
        return Check("ros", OK, f"{source}, {text}")
    fix = "source the distribution's setup.bash, or without one: pip install '.[ros]'"
    return Check("ros", FAIL, f"{source}: {text}", fix)


def _dds_profile() -> Check:
    for name in PROFILE_VARIABLES:
        path = os.environ.get(name)
        if path and os.path.isfile(path):
            return Check("dds profile", OK, f"{name}={path}")
        if path:
            return Check("dds profile", FAIL, f"{name}={path} is no file", f"unset {name}, or correct it")
    detail = "Fast DDS defaults; 640x480 images at 30 Hz then lose 24-45 % of the frames between processes"
    profile = share_file("config/dds/fastdds_shm.xml") or "config/dds/fastdds_shm.xml of this package's sources"
    fix = f"export {PROFILE_VARIABLES[0]}={profile}, in the camera's process too"
    return Check("dds profile", WARN, detail, fix)


def _shared_memory() -> Check:
    try:
        total = shutil.disk_usage("/dev/shm").total
    except OSError:
        return Check("/dev/shm", WARN, "absent; images go through sockets")
    enough = total >= 4 * SEGMENT_BYTES
    fix = "" if enough else "Docker: run with --shm-size=512m or --ipc=host; each process takes 32 MiB"
    return Check("/dev/shm", OK if enough else WARN, f"{total >> 20} MiB", fix)


def _opencv() -> Check:
    done, text = _probe("import cv2; print(cv2.__version__)")
    return Check("opencv", OK if done else FAIL, text, "" if done else "pip install opencv-python-headless")


def _bag() -> Check:
    absent = [name for name in BAG_MODULES if importlib.util.find_spec(name) is None]
    if not absent:
        return Check("bag", OK, "recordings are read and written")
    detail = f"{', '.join(absent)} not installed; recording, replaying and scoring drives does not work"
    return Check("bag", WARN, detail, "pip install '.[bag]'")


def _cv_bridge() -> Check:
    if importlib.util.find_spec("cv_bridge") is None:
        return Check("cv_bridge", OK, "absent; not needed for the encodings that this package decodes itself")
    done, text = _probe("import sys; from sac_ae_ros.nodes.bridge import find_fault; sys.exit(find_fault() or 0)")
    if done:
        return Check("cv_bridge", OK, "works")
    fix = "it was likely built for another numpy: use the distribution's numpy and cv2 in a venv with system packages"
    return Check("cv_bridge", WARN, text, fix)


CHECKS: tuple[Callable[[], Check], ...] = (
    _python,
    _opencv,
    _onnxruntime,
    _torch,
    _renderer,
    _ros,
    _dds_profile,
    _shared_memory,
    _bag,
    _cv_bridge,
)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _probe(code: str) -> tuple[bool, str]:
    """Runs Python code in a process of its own; returns whether it worked, and its last line."""
    try:
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {PROBE_TIMEOUT_S} s"
    lines = (result.stdout if result.returncode == 0 else result.stderr).strip().splitlines()
    last = lines[-1].strip() if lines else f"exit code {result.returncode}"
    return result.returncode == 0, last[:200]
