"""The doctor survives what it examines, and every finding that is not fine says how to mend it."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from sac_ae_ros import doctor


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os; os.abort()", "exit code -6"),
        ("raise RuntimeError('no display')", "no display"),
        ("import nowhere", "No module named 'nowhere'"),
    ],
)
def test_a_probe_that_dies_is_a_finding(code, says):
    done, text = doctor._probe(code)
    assert not done
    assert says in text


def test_a_probe_that_hangs_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_TIMEOUT_S", 1)
    done, text = doctor._probe("import time; time.sleep(60)")
    assert (done, text) == (False, "no answer within 1 s")


def test_the_dds_profile_in_use_is_named(monkeypatch, tmp_path):
    for name in doctor.PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    unset = doctor._dds_profile()
    assert unset.status == doctor.WARN
    assert Path(unset.fix.partition("=")[2].partition(",")[0]).is_file()  # one may paste it
    monkeypatch.setenv(doctor.PROFILE_VARIABLES[0], str(tmp_path / "gone.xml"))
    assert doctor._dds_profile().status == doctor.FAIL
    (tmp_path / "gone.xml").touch()
    found = doctor._dds_profile()
    assert (found.status, str(tmp_path) in found.detail) == (doctor.OK, True)


def test_the_extra_bag_is_looked_for(monkeypatch):
    assert doctor._bag().status == doctor.OK
    required = [each for each in importlib.metadata.requires("sac_ae_ros") if each.endswith('extra == "bag"')]
    assert {re.match(r"\w+", each)[0].lower() for each in required} == set(doctor.BAG_MODULES)
    monkeypatch.setattr(doctor, "BAG_MODULES", ("mcap", "no_such_module"))
    missing = doctor._bag()
    assert (missing.status, missing.fix) == (doctor.WARN, "pip install '.[bag]'")
    assert missing.detail.startswith("no_such_module not installed")


def test_a_machine_is_fit_unless_something_failed():
    fine, missing = doctor.Check("a", doctor.OK, "x"), doctor.Check("b", doctor.WARN, "y", "do z")
    broken = doctor.Check("c", doctor.FAIL, "w", "do v")
    assert doctor.to_dict([fine, missing])["ok"] is True
    assert doctor.to_dict([fine, broken])["ok"] is False
    assert "-> do z" in doctor.render([fine, missing])


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("import os; os.abort()", doctor.WARN, "crashes its process (signal 6)"),
        ("raise ImportError('built for numpy 1')", doctor.WARN, "ImportError: built for numpy 1"),
    ],
)
def test_a_cv_bridge_that_does_not_convert_is_a_warning(monkeypatch, tmp_path, code, status, says):
    (tmp_path / "cv_bridge.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    found = doctor._cv_bridge()
    assert found.status == status
    assert says in found.detail
    assert "numpy" in found.fix


def test_a_backend_that_does_not_exist_is_named_and_to_be_unset(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    found = doctor._renderer()
    assert found.status == doctor.FAIL
    assert "got 'bogus'" in found.detail
    assert found.fix.startswith("unset MUJOCO_GL, or install")
