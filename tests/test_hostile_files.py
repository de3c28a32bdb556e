"""Every verb that reads a policy, given a hostile one: exit code 2, one line, and nothing is written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_policy import CHECKS_OFF, KINDS, checks_off, write_hostile
from tiny_bag import START_NS, image, write
from tiny_policy import write_policy

ROOT = Path(__file__).resolve().parents[1]
VERBS = {
    "info": lambda policy, folder: ["info", policy],
    "publish": lambda policy, folder: ["publish", policy, "--policy-dir", folder / "versions"],
    "eval": lambda policy, folder: ["eval", policy],
    "bag-eval": lambda policy, folder: ["bag-eval", folder / "bag", "--policy", policy, "--out", folder / "scores"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_hostile_policy_is_one_line_and_nothing_is_written(tmp_path, verb, kind):
    refused(tmp_path, verb, kind, KINDS[kind])


@pytest.mark.parametrize("kind", ["abort", "memory"])
@pytest.mark.parametrize("verb", VERBS)
def test_so_is_one_that_no_check_knows(tmp_path, verb, kind):
    refused(tmp_path, verb, kind, CHECKS_OFF[kind], PYTHONPATH=checks_off(tmp_path))


def sac_ae(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sac_ae_ros.cli", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False)


def refused(folder: Path, verb: str, kind: str, says: str, **env: str) -> None:
    policy = write_hostile(folder / "it.onnx", kind)
    if verb == "bag-eval":
        write(
            folder / "bag", [(START_NS + i * 10**8, "/image", image(START_NS + i * 10**8, 100 + i)) for i in range(5)]
        )
    before = sorted(folder.rglob("*"))
    done = sac_ae(*VERBS[verb](policy, folder), **env)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert says in done.stderr
    assert sorted(folder.rglob("*")) == before


def test_what_files_and_arguments_say_is_printed_escaped(tmp_path):
    """A file's name, and an image's encoding, that would forge a line and colour it."""
    forged = "a\x1b[31m\nerror: forged"
    policy = write_policy(tmp_path / f"{forged}.onnx")
    bag = write(
        tmp_path / forged, [(START_NS + i * 10**8, "/image", image(START_NS + i * 10**8, 90)) for i in range(5)]
    )
    for arguments, code in (
        (["info", tmp_path / forged], 2),
        (["info", policy], 0),
        (["info", tmp_path / f"no {forged}"], 2),
        (["publish", policy, "--policy-dir", tmp_path / f"versions {forged}"], 0),
        (["bag-eval", bag, "--policy", policy], 0),
        (["bag-eval", bag, bag, "--policy", policy, "--image-topic", forged], 2),
        (["info", policy, f"--{forged}"], 2),
    ):
        done = sac_ae(*arguments)
        assert done.returncode == code, done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        assert all(line.isprintable() for line in lines), lines
        assert not any(line.startswith("error: forged") for line in lines), lines
