"""`sac-ae report` as a user meets it; the page itself is tested in tests/sim_training/test_report.py."""

import pytest
from tiny_config import TINY

from sac_ae_ros.cli import main
from sim_training import config as configs


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    configs.save(TINY, folder / "config.yaml")
    return folder


def sac_ae_report(capfd, *arguments) -> tuple[int, str, str]:
    code = main(["report", *map(str, arguments)])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def test_the_page_is_made_again_as_the_run_goes_on(run_dir, capfd):
    for _ in range(2):
        code, out, _ = sac_ae_report(capfd, run_dir)
        assert (code, out) == (0, f"{run_dir / 'report.html'}\n")
    (run_dir / "train.csv").write_text("env_step,agent_step,q\n40,40,1.5\n")
    sac_ae_report(capfd, run_dir)
    assert "40 of 60" in (run_dir / "report.html").read_text()


def test_a_file_of_the_users_is_kept_unless_forced(run_dir, tmp_path, capfd):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    code, out, err = sac_ae_report(capfd, run_dir, "--out", mine)
    assert (code, out, mine.read_text()) == (2, "", "mine")
    assert err.startswith("error: report: ")
    assert "--force" in err
    assert sac_ae_report(capfd, run_dir, "--out", mine, "--force", "--no-video")[0] == 0
    assert "Left out on request." in mine.read_text()


@pytest.mark.parametrize("out", ["none/page.html", "run"])
def test_a_page_goes_into_a_folder_that_exists(run_dir, tmp_path, capfd, out):
    code, _, err = sac_ae_report(capfd, run_dir, "--out", tmp_path / out)
    assert (code, err.count("\n")) == (2, 1)
    assert "expected --out to name a file in an existing folder" in err


def test_what_is_no_run_folder_is_one_line(tmp_path, capfd):
    code, out, err = sac_ae_report(capfd, tmp_path / "none")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "expected a run folder with config.yaml" in err
