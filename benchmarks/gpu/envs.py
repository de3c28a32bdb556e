"""Env steps a second with the GPU's renderer and with the CPU's: `python -m gpu.envs`."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from gpu import store
from gpu.child import Pool

MESA = "/usr/share/glvnd/egl_vendor.d/50_mesa.json"
KINDS: dict[str, tuple[dict[str, str], ...]] = {
    "gpu": ({"MUJOCO_GL": "egl"},),
    "cpu": (
        {"MUJOCO_GL": "egl", "LIBGL_ALWAYS_SOFTWARE": "1", "__EGL_VENDOR_LIBRARY_FILENAMES": MESA},
        {"MUJOCO_GL": "osmesa"},
    ),
}
IN_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")
START_S = 6.0  # a renderer that takes longer to start is left out
SHARE = 0.25  # of the time, for each of a kind's two counts and each of its two rounds


def measure(kind: str, count: int, size: int, seconds: float) -> dict[str, Any]:
    """Of one renderer: steps a second of one process and of `count`; or why there is none."""
    errors = []
    for env in KINDS[kind]:
        try:
            return {"environment": env, **_measure(kind, env, count, size, seconds)}
        except RuntimeError as error:
            errors.append(f"MUJOCO_GL={env['MUJOCO_GL']}: {error}")
    return {"missing": "; ".join(errors)}


def _measure(kind: str, env: dict[str, str], count: int, size: int, seconds: float) -> dict[str, Any]:
    arguments = [f"--size={size}"]
    with Pool("gpu.env_worker", count, arguments, sys.stderr, env) as pool:
        name = pool.answers(count, START_S)[0]["renderer"]
        if (kind == "cpu") != any(word in name.lower() for word in IN_SOFTWARE):
            raise RuntimeError(f"{name} came, which does not draw on the {kind.upper()}")
        rates: dict[int, list[float]] = {1: [], count: []}
        for _ in range(2):
            for workers, found in rates.items():
                answers = pool.work(workers, SHARE * seconds)
                found.append(sum(answer["count"] / answer["seconds"] for answer in answers))
    return {
        "renderer": name,
        "env_steps_per_s": {str(workers): statistics.median(found) for workers, found in rates.items()},
    }


def main() -> int:
    """Measures, stores, and names the faster renderer as the default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="speed.json")
    parser.add_argument("--count", type=int, default=16, help="processes side by side (default: 16)")
    parser.add_argument("--size", type=int, default=84, help="pixels (default: 84)")
    parser.add_argument("--seconds", type=float, default=2.4, help="measured for each renderer (default: 2.4)")
    args = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        found[kind] = measure(kind, args.count, args.size, args.seconds)
        usable = {name: row["env_steps_per_s"][str(args.count)] for name, row in found.items() if "renderer" in row}
        best = max(usable, key=lambda name: usable[name]) if usable else None
        store.put(args.out, envs={"processes": args.count, "renderers": found, "default": best})
    if best is None:
        print(f"error: no renderer works here: {found}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
