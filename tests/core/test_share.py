"""The DDS profile that is set for whoever has not set one."""

import os

import pytest

from sac_ae_ros.core.share import PROFILE_VARIABLES, ROOT, ensure_dds_profile


@pytest.fixture(autouse=True)
def no_profile(monkeypatch):
    for name in PROFILE_VARIABLES:  # set first, so that whatever the test does is undone
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def profiles() -> dict[str, str]:
    return {name: os.environ[name] for name in PROFILE_VARIABLES if name in os.environ}


def test_a_profile_is_set_where_there_is_none():
    ensure_dds_profile()
    assert profiles() == {PROFILE_VARIABLES[0]: str(ROOT / "config" / "dds" / "fastdds_shm.xml")}


@pytest.mark.parametrize("name", PROFILE_VARIABLES)
def test_one_that_the_user_has_set_stays(name):
    os.environ[name] = "/mine.xml"
    ensure_dds_profile()
    assert profiles() == {name: "/mine.xml"}
