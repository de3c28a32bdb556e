"""A policy file, untrusted: read whole, then vetted in a child process that may die of it.

A file can abort onnx's shape inference, keep it busy for ever or take all memory, and it holds Python's interpreter
meanwhile. So this process never parses it: `python -m sac_ae_ros.core.vetter` does, tries it once, and answers with the
contract and a graph of bounded size. See docs/architecture.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sac_ae_ros.core.errors import ModelError, SacAeError, SpecError, printable
from sac_ae_ros.core.share import ROOT
from sac_ae_ros.core.spec import PolicySpec

MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024
CPU_S = 20  # of the child; warming up a policy of the largest admitted work takes about half of it
WALL_S = 30.0
MEMORY_BYTES = 1024**3  # of the child, beside its libraries' and a few copies of the file
BACKGROUND_NICE = 10
LOOK_EVERY_S = 0.01
_ERRORS = {kind.__name__: kind for kind in (ModelError, SpecError)}


@dataclass(frozen=True)
class Weight:
    """A large weight that stays in the file's bytes: NumPy's name of its type, its shape, and the byte it begins at."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Vetted:
    """A file that passed: its contract, the ONNX bytes of its graph without large weights, and its bytes with them."""

    spec: PolicySpec
    skeleton: bytes
    weights: tuple[Weight, ...]
    data: bytes


def read_bytes(path: Path) -> bytes:
    """Reads a policy file whole, after a size check.

    Raises:
        ModelError: no such file, a folder, a pipe or a device, empty, or larger than 256 MiB.
    """
    if path.is_dir():
        raise ModelError(f"policy: expected an ONNX file, got the folder {path}")
    try:
        if path.exists() and not path.is_file():  # reading might wait for ever
            raise ModelError(f"policy: expected an ONNX file, got a pipe or device, {path}")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"policy: cannot read {path} ({reason}); give the path of an ONNX file") from None
    if not data:
        raise ModelError(f"policy: expected an ONNX file, got the empty file {path}; export or copy it again")
    if len(data) > MAX_FILE_BYTES:
        raise ModelError(f"policy: expected at most {MAX_FILE_BYTES >> 20} MiB, got a larger file, {path}")
    return data


def never() -> bool:
    """Nobody gives up."""
    return False


def vet(data: bytes, title: str, *, background: bool = False, given_up: Callable[[], bool] = never) -> Vetted:
    """Has a child process check the bytes of a policy file, load them and act three times.

    Args:
        data: the file's bytes; untrusted.
        title: what errors call it, usually its path.
        background: whether to leave the processor to others, such as a robot's nodes.
        given_up: asked every few milliseconds; once it is true the child is ended, and ModelError says so.

    Raises:
        ModelError: it is no policy, cannot be run, takes too much time or memory, or ends the process that vets it.
        SpecError: its contract is missing, malformed or contradicts its graph.
    """
    answer = os.memfd_create("vetted")
    try:
        code = _run(data, answer, title, background, given_up)
        size = os.fstat(answer).st_size
        reply = os.pread(answer, size, 0) if size <= MAX_ANSWER_BYTES else b""
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"{title}: cannot vet it in a process of its own ({reason}); free memory, try again") from None
    finally:
        os.close(answer)
    if code:
        raise ModelError(f"{title}: expected a policy, got a file {_death(code)}; do not use it, or export it again")
    return _read(reply, data, title)


def _run(data: bytes, answer: int, title: str, background: bool, given_up: Callable[[], bool]) -> int:
    """Runs the child; returns its exit code, or minus the signal that ended it."""
    deadline_s = time.monotonic() + WALL_S
    numbers = os.getpid(), BACKGROUND_NICE if background else 0, CPU_S, MEMORY_BYTES, len(data)
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "sac_ae_ros.core.vetter", *map(str, numbers), printable(title)],
        bufsize=0,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=answer,
        stderr=subprocess.DEVNULL,  # what a file makes libraries say is not for a terminal
        start_new_session=True,  # Ctrl-C reaches the parent alone
    )
    assert child.stdin is not None
    try:
        with child.stdin:
            _write(child.stdin.fileno(), data, deadline_s)
        while (code := child.poll()) is None:
            if given_up():
                raise ModelError(f"{title}: vetting it was given up")
            if time.monotonic() > deadline_s:
                return -signal.SIGALRM
            time.sleep(LOOK_EVERY_S)
        return code
    finally:
        child.kill()
        child.wait()


def _write(descriptor: int, data: bytes, deadline_s: float) -> None:
    """Writes until all is written, the reader is gone or it is too late; what became of the child tells which."""
    os.set_blocking(descriptor, False)
    rest = memoryview(data)
    with contextlib.suppress(BrokenPipeError):
        while rest and (left_s := deadline_s - time.monotonic()) > 0:
            if select.select([], [descriptor], [], left_s)[1]:
                rest = rest[os.write(descriptor, rest) :]


def _environment() -> dict[str, str]:
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # no other threads, whose stacks and arenas would count
    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return {**os.environ, **single, "PYTHONPATH": python_path}


def _death(code: int) -> str:
    """What became of the child, for people."""
    if code == -signal.SIGALRM:
        return f"that was not vetted within {WALL_S:g} s"
    if code == -signal.SIGXCPU:
        return f"that takes more than {CPU_S} s of processor time to vet"
    if code < 0:
        names = {number.value: number.name for number in signal.Signals}
        return f"that ends the process that vets it ({names.get(-code, f'signal {-code}')})"
    return f"that ends the process that vets it (exit code {code})"


def _read(reply: bytes, data: bytes, title: str) -> Vetted:
    head, _, skeleton = reply.partition(b"\n")
    try:
        value: dict[str, Any] = json.loads(head)
        if "module" in value:
            raise ModuleNotFoundError(f"no module named {value['module']!r}", name=value["module"])
        if "error" in value:
            raise _ERRORS[value["error"]](value["text"])
        spec = PolicySpec.from_json(value["spec"])
        weights = tuple(Weight(n, d, tuple(s), o) for n, d, s, o in value["weights"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, SacAeError):
            raise
        raise ModelError(f"{title}: expected an answer of the process that vets it, got none; try again") from None
    return Vetted(spec, skeleton, weights, data)


def answer_of(spec: PolicySpec, skeleton: bytes, weights: Sequence[Weight]) -> bytes:
    """What the child writes for a file that passed; `vet` reads it."""
    listed = [(weight.name, weight.dtype, weight.shape, weight.offset) for weight in weights]
    return json.dumps({"spec": spec.to_json(), "weights": listed}).encode() + b"\n" + skeleton
