"""Environment variables under which nothing can be drawn are told in one line, with what to do."""

import os
import subprocess
import sys

import pytest
from own_robots import robot
from tiny_config import TINY

from sac_ae_ros.core.errors import SimError
from sim_training.config import EnvConfig, save
from sim_training.envs import rendering, tasks
from sim_training.envs.make import make_env
from sim_training.envs.state_env import StateEnv


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"MUJOCO_GL": "bogus"}, "expected MUJOCO_GL to be egl, osmesa or glfw, got 'bogus'; unset MUJOCO_GL"),
        pytest.param({"MUJOCO_GL": "EGL"}, "got 'EGL'; unset MUJOCO_GL", marks=pytest.mark.slow),
        ({"MUJOCO_GL": "glfw"}, "MUJOCO_GL=glfw expects a display, DISPLAY is not set; unset MUJOCO_GL"),
        pytest.param(
            {"MUJOCO_GL": "on"},
            "MUJOCO_GL=on expects a display, DISPLAY is not set; unset MUJOCO_GL",
            marks=pytest.mark.slow,
        ),
        pytest.param({"MUJOCO_GL": "off"}, "MUJOCO_GL=off turns it off; unset MUJOCO_GL", marks=pytest.mark.slow),
        (
            {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "glx"},
            "expected PYOPENGL_PLATFORM to be egl as MUJOCO_GL, got 'glx'",
        ),
    ],
)
def test_a_training_run_says_what_to_do_and_leaves_nothing(tmp_path, variables, says):
    save(TINY, tmp_path / "config.yaml")
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    command = [sys.executable, "-m", "sac_ae_ros.cli", "train", "--config", str(tmp_path / "config.yaml")]
    done = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "run")],
        env={**environment, "PYOPENGL_PLATFORM": "", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: rendering: ")
    assert says in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("backend", "says"), [("osmesa", "expects libOSMesa .* install Debian's libosmesa6"), ("egl", "expects libEGL")]
)
def test_a_library_that_is_missing_is_named_with_its_package(monkeypatch, backend, says):
    monkeypatch.setattr(rendering.ctypes.util, "find_library", lambda name: None)
    monkeypatch.setenv("MUJOCO_GL", backend)
    with pytest.raises(SimError, match=says):
        rendering.choose_backend()
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(SimError, match="expected EGL or OSMesa on this machine, found neither; install Debian's"):
        rendering.choose_backend()


def test_states_need_no_rendering():
    code = (
        "from sim_training.envs.state_env import StateEnv\nprint(StateEnv('rover/chase_ball').reset(seed=0)[0].shape)"
    )
    environment = {**os.environ, "MUJOCO_GL": "off"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "(4,)\n"


def test_an_action_repeat_has_to_fit_episodes_and_contract(monkeypatch):
    with pytest.raises(SimError, match=r"env.action_repeat: expected at most 100, .* got 101"):
        make_env(EnvConfig(height=8, width=8, action_repeat=101))
    StateEnv("rover/chase_ball", action_repeat=100)
    monkeypatch.setitem(tasks.OWN_TASKS, "arm/hold", robot(time_limit=1000))
    with pytest.raises(SimError, match=r"expected a policy period of 1e-06\.\.10 s, got 10\.05 s: 201 control steps"):
        StateEnv("arm/hold", action_repeat=201)
