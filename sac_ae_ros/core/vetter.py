"""The process that vets one policy file and may die of it.

core.policy_file starts `python -m sac_ae_ros.core.vetter PARENT NICE CPU_S MEMORY SIZE TITLE`, writes the file's bytes
to its stdin and reads its stdout: one line of JSON, and after it the graph of a file that passed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence

from sac_ae_ros.core.errors import ModelError, SacAeError
from sac_ae_ros.core.policy_file import MAX_ANSWER_BYTES, Vetted, answer_of

PR_SET_PDEATHSIG = 1
FILE_COPIES = 6  # that parsing, checking and loading may make


def main(arguments: Sequence[str]) -> int:
    """Vets stdin; returns 0 where it could say what came of it."""
    parent, niceness, cpu_s, memory, size = map(int, arguments[:5])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    os.nice(niceness)
    try:
        import onnx.checker  # noqa: F401  (before memory is limited)
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        _say(json.dumps({"module": error.name}).encode() + b"\n")
        return 0
    limit(cpu_s, memory + FILE_COPIES * size)
    with open(0, "rb", closefd=False) as file:
        data = file.read()
    _say(answer(data, arguments[5]))
    return 0


def limit(cpu_s: int, memory: int) -> None:
    """Bounds what this process may take from now on: seconds of a processor, bytes of memory; output; no core dump."""
    with open("/proc/self/statm", "rb") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = (
        (resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + cpu_s),
        (resource.RLIMIT_AS, mapped + memory),
        (resource.RLIMIT_FSIZE, MAX_ANSWER_BYTES),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, most in limits:
        hard = resource.getrlimit(kind)[1]  # stays: at the soft one a signal tells which limit it was
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def answer(data: bytes, title: str) -> bytes:
    """Vets the bytes of a file, loads them and acts three times; returns what `policy_file.vet` reads."""
    from sac_ae_ros.core import policy_graph
    from sac_ae_ros.core.policy import OnnxPolicy

    try:
        try:
            spec, skeleton, weights = policy_graph.vet(data, title)
            OnnxPolicy.of(Vetted(spec, skeleton, tuple(weights), data), title)
        except MemoryError:
            raise ModelError(f"{title}: expected a policy that memory suffices for, got one that needs more") from None
        return answer_of(spec, skeleton, weights)
    except SacAeError as error:
        return json.dumps({"error": type(error).__name__, "text": str(error)}).encode() + b"\n"


def _say(text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
