#!/usr/bin/env python3
"""Packs what a bare GPU machine without a network lacks, as wheels, and prints the command to run there.

Such a machine has CPython 3.12 on x86-64 Linux with PyTorch 2.11 or newer, NumPy, SciPy, lxml, OpenCV, ONNX,
onnxruntime, Matplotlib, TensorBoard and pytest. The pack adds MuJoCo, dm_control without its locomotion models,
Gymnasium, jsonargparse and what they need. Nothing is left behind where the pack and the repository together exceed
the size.

Examples:
  make gpu-pack
  make gpu-pack ARGS=--rehearse               # also runs the command, small and on the CPU, in an empty environment
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
COMMAND_LIMIT = 2000  # characters
PLATFORMS = ("2_28", "2_27", "2_24", "2_17")
WHEELS = (
    "absl-py docstring_parser dm-env dm-tree etils Farama-Notifications glfw gymnasium jsonargparse mujoco"
    " PyOpenGL typeshed_client importlib_resources zipp"
).split()
TRIMMED = "dm_control"
LEFT_OUT = tuple(f"dm_control/{part}/" for part in ("locomotion", "manipulation", "blender"))  # 80 MB, never loaded
# What the machine has, for a rehearsal; torch comes by itself.
THERE = (
    "cloudpickle jinja2 lxml matplotlib numpy onnx onnxruntime opencv-python-headless protobuf pytest pytest-timeout"
    " PyYAML requests scipy tensorboard tqdm typing_extensions"
).split()


class PackError(Exception):
    """What went wrong, in one line."""


def download(target: Path, names: Sequence[str]) -> None:
    """Wheels for CPython 3.12 in the versions of constraints.txt, without what they require.

    Raises:
        PackError: pip found none.
    """
    tags = [f"manylinux_{version}_x86_64" for version in PLATFORMS] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    python = ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *python, "-d", str(target)]
    done = subprocess.run([*command, *pinned(names)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackError(f"pip found no wheels ({(done.stderr.strip().splitlines() or ['no message'])[-1]})")


def pinned(names: Sequence[str]) -> list[str]:
    """`name` -> `name==version` where constraints.txt has it."""
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    versions = {line.partition("==")[0].lower(): line for line in lines if "==" in line and not line.startswith("#")}
    return [versions.get(name.lower(), name) for name in names]


def trim(source: Path, target: Path) -> None:
    """Copies a wheel without LEFT_OUT, also in its list of files."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for item in old.infolist():
            if item.filename.startswith(LEFT_OUT):
                continue
            data = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                data = b"".join(line for line in data.splitlines(True) if not line.decode().startswith(LEFT_OUT))
            new.writestr(item, data)


def repository_bytes() -> int:
    """Of all files that git knows or would take.

    Raises:
        PackError: this is no git checkout.
    """
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PackError("expected git, which says which files are to travel, found none; install it") from None
    if done.returncode:
        raise PackError(f"expected a git checkout in {ROOT}, whose files are to travel, got none")
    names = done.stdout.split("\0")
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file())


def pack(target: Path, limit_bytes: int) -> int:
    """Fills `target` with wheels, replacing an older pack; returns the bytes of pack and repository.

    Raises:
        PackError: too large, or something cannot be had; an older pack stays.
    """
    with tempfile.TemporaryDirectory(prefix=".gpu-", dir=target.parent) as folder:
        wheels, raw = Path(folder, "wheels"), Path(folder, "raw")
        download(wheels, WHEELS)
        download(raw, [TRIMMED])
        for wheel in raw.iterdir():
            trim(wheel, wheels / wheel.name)
        total = sum(path.stat().st_size for path in wheels.iterdir()) + repository_bytes()
        if total > limit_bytes:
            raise PackError(
                f"expected at most {limit_bytes / MIB:.0f} MiB with the repository, got {total / MIB:.1f};"
                " nothing was kept: leave wheels out, or raise --limit-mib"
            )
        shutil.rmtree(target, ignore_errors=True)
        wheels.rename(target)
    return total


def command(target: Path, *, budget_s: int = 540, options: Sequence[str] = (), out: str = '"${OUT:-gpu}"') -> str:
    """What to run in the repository's root on the machine.

    Raises:
        PackError: it is longer than such a machine takes.
    """
    revision = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    folder = shlex.quote(os.path.relpath(target, ROOT))
    pip = "pip install -q --no-index --no-deps --no-compile --upgrade --target"
    text = (
        f"python3 -m {pip} /tmp/gpu_site {folder}/*.whl && "
        "PYTHONPATH=/tmp/gpu_site MUJOCO_GL=egl ORT_DISABLE_TELEMETRY=1 python3 benchmarks/gpu_day.py"
        f" --budget-s {budget_s} --revision {revision or 'unknown'} {' '.join([*options, ''])}--out {out}"
    )
    if len(text) > COMMAND_LIMIT:
        raise PackError(f"expected a command of at most {COMMAND_LIMIT} characters, got {len(text)}")
    return text


def rehearse(target: Path, python: str, torch: str) -> int:
    """Runs the command in an empty environment that has only what the machine has and the pack; its exit code.

    Raises:
        PackError: there is no such Python, or the environment cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="gpu_pack_") as folder:
        venv, out = Path(folder, "venv"), Path(folder, "out")
        print(f"== An environment with {python}, {torch} and what the machine has: this takes some minutes", flush=True)
        try:
            if (
                subprocess.check_output([python, "-c", "import sys; print(sys.version_info[:2] == (3, 12))"])
                != b"True\n"
            ):
                raise PackError(f"--python: expected Python 3.12, {python} is another version")
            subprocess.run([python, "-m", "venv", venv], check=True)
            subprocess.run([venv / "bin/python", "-m", "pip", "install", "-qq", torch, *THERE], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise PackError(f"the environment cannot be made ({error}); --python and --torch choose others") from error
        line = command(target, budget_s=170, options=["--device", "cpu", "--tiny"], out=shlex.quote(str(out)))
        line = line.replace("/tmp/gpu_site", f"{folder}/site")
        print(f"== {line}", flush=True)
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env |= {"PATH": f"{venv}/bin:{env['PATH']}", "PIP_NO_INDEX": "1"}
        started = time.monotonic()
        code = subprocess.run(["bash", "-c", line], cwd=ROOT, env=env, check=False).returncode
        if (out / "day.json").exists():
            day = json.loads((out / "day.json").read_text())
            versions = ", ".join(f"{name} {version}" for name, version in day["versions"].items())
            print(f"== Exit code {code} after {time.monotonic() - started:.0f} s with {versions}")
        if code and (out / "log.txt").exists():
            print((out / "log.txt").read_text()[-4000:], file=sys.stderr)
        return code


def main() -> int:
    """Packs, says how large it is and what to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / ".gpu", help="folder of the wheels (default: .gpu)")
    parser.add_argument("--limit-mib", type=float, default=60, help="with the repository (default: 60)")
    parser.add_argument("--rehearse", action="store_true", help="run the command here, small, in an empty environment")
    parser.add_argument("--python", default="python3.12", help="for the rehearsal (default: python3.12)")
    parser.add_argument("--torch", default="torch==2.11.0", help="what pip installs for it (default: torch==2.11.0)")
    args = parser.parse_args()
    target = args.out.absolute()
    if not 0 < args.limit_mib < math.inf:
        parser.error(f"--limit-mib: expected a positive number, got {args.limit_mib:g}")
    if target.exists() and not target.is_dir():
        parser.error(f"--out: expected a folder, {target} is none")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if target.exists() and any(path.suffix != ".whl" for path in target.iterdir()):
        print(f"error: --out: expected a new folder or an older pack, {target} holds other files", file=sys.stderr)
        return 2
    try:
        total = pack(target, int(args.limit_mib * MIB))
        own = sum(path.stat().st_size for path in target.iterdir())
        count = len(list(target.iterdir()))
        print(f"{count} wheels in {target}: {own / MIB:.1f} MiB, with the repository {total / MIB:.1f} MiB")
        print(f"\nCarry the repository and that folder; run in the repository's root:\n\n{command(target)}\n")
        return rehearse(target, args.python, args.torch) if args.rehearse else 0
    except OSError as error:
        print(f"error: cannot write {target} ({error.strerror})", file=sys.stderr)
        return 2
    except PackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; an older pack is as it was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
