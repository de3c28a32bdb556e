"""A run's page: what it tells, that it is whole in itself, and how it looks to a browser on a desk and on a phone."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import open_browser
from tiny_config import TINY

from sac_ae_ros import report as command
from sac_ae_ros.core.errors import RunError
from sim_training import config as configs
from sim_training import curves, report
from sim_training.trainer import Trainer

HOSTILE = "<script>alert('x')</script>"
# Plays a moment of the video, to be sure that it is one.
PLAY = "document.querySelector('video').play().then(() => document.querySelector('video').videoWidth)"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / f"a run & {HOSTILE.replace('/', '')}"
    trainer = Trainer(replace(TINY, run=replace(TINY.run, env_steps=200, eval_every=100)), folder)
    try:
        trainer.run()
    finally:
        trainer.close()
    return folder


@pytest.fixture(scope="module")
def page(run_dir) -> Path:
    path = run_dir / "report.html"
    command.make(run_dir, path)
    return path


@pytest.fixture
def fresh(tmp_path) -> Path:
    """A run that has just begun: nothing but its config."""
    configs.save(TINY, tmp_path / "config.yaml")
    return tmp_path


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def test_the_page_tells_the_run(page, run_dir):
    text = page.read_text()
    evals = report.read(run_dir).evals
    best = max(row["mean_return"] for row in evals)
    assert "<h1>rover/chase_ball</h1>" in text
    assert f"<dd>{best:.1f} ± " in text
    assert "<dd>200 of 200</dd>" in text
    assert "seed 2000001" in text
    assert "height: 12" in text
    assert len(re.findall("env step [12]00</figcaption>", text)) == 2
    for panel in curves.PANELS[:7]:
        assert f'aria-label="{panel.title} over env steps"' in text


def test_the_page_is_small_and_needs_nothing_else(page):
    text = page.read_text()
    without_video = re.sub(r"data:video/mp4;base64,[\w+/=]*", "", text)
    assert len(text) - len(without_video) > 1000
    assert len(without_video) < 2e6
    addresses = set(re.findall(r'(?:src|href|poster)="([^"]{0,12})', text))
    assert {address for address in addresses if not address.startswith(("data:", "#"))} == set()


def test_what_a_run_folder_says_is_text_and_no_markup(page):
    assert "<script" not in page.read_text()
    assert "a run &amp; &lt;script&gt;" in page.read_text()


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_a_browser_shows_it_without_complaint(browser, page, width, dark):
    visit = browser.visit(page, width=width, dark=dark, script=PLAY)
    assert (visit.complaints, visit.requests) == ([], [])
    assert visit.value == 640
    assert visit.width == width  # nothing sticks out
    picture = cv2.imdecode(np.frombuffer(visit.png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (np.median(picture) < 60) == dark


def test_a_run_that_has_just_begun_has_a_page(fresh, browser):
    command.make(fresh, fresh / "report.html")
    text = (fresh / "report.html").read_text()
    assert "<dd>0 of 60</dd>" in text
    assert "has not been evaluated" in text
    assert "<video" not in text
    assert browser.visit(fresh / "report.html").complaints == []


def test_networks_of_another_shape_cost_the_video_only(run_dir, fresh, capsys):
    (fresh / "best.pt").write_bytes((run_dir / "best.pt").read_bytes())
    configs.save(replace(TINY, network=replace(TINY.network, latent=5)), fresh / "config.yaml")
    command.make(fresh, fresh / "report.html")
    assert "None could be made: run folder:" in (fresh / "report.html").read_text()
    assert "warning: no video" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train.csv", "eval.csv"])
@pytest.mark.parametrize("cells", ["1,many\n", "1,2,3\n", "\0,\0\n", "\0" * 200_000])
def test_rows_that_are_no_numbers_are_refused(fresh, name, cells):
    (fresh / name).write_text(f"env_step,q\n{cells}")
    with pytest.raises(RunError, match=f"rows of numbers in .*{name}"):
        report.read(fresh)


@pytest.mark.parametrize("name", ["train.csv", "eval.csv"])
@pytest.mark.parametrize("cell", ["nan", "-inf", "1e400", "-1e308"])
def test_numbers_that_no_plot_can_hold_are_refused_by_row(fresh, name, cell):
    (fresh / name).write_text(f"env_step,q\n1,2\n3,{cell}\n")
    with pytest.raises(RunError, match=rf"report: expected finite numbers in .*{name}, got q \S+ in row 2"):
        report.read(fresh)


def test_pictures_that_are_none_or_claim_to_be_huge_are_left_out(tmp_path):
    header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR"
    (tmp_path / "000000001.png").write_bytes(header + (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0")
    (tmp_path / "000000002.png").write_bytes(b"")
    (tmp_path / "000000003.png").mkdir()
    cv2.imwrite(str(tmp_path / "000000004.png"), np.zeros((24, 96, 3), np.uint8))
    assert [(each.env_step, each.height, each.width) for each in report.pictures(tmp_path)] == [(4, 24, 96)]


def test_a_finished_run_is_told_how_to_go_on(run_dir):
    record = report.read(run_dir)
    resume = f"sac-ae train --resume {shlex.quote(str(run_dir))}"
    assert report.commands(record)["go on training"] == f"{resume} --run.env_steps=400"
    under_way = replace(record, train=record.train[:1], evals=[])
    assert report.commands(under_way)["go on training"] == resume


def test_a_run_on_states_is_not_told_to_be_exported(run_dir):
    record = report.read(run_dir)
    blind = replace(record, config=replace(TINY, env=replace(TINY.env, obs="state")))
    assert [what for what in report.commands(record) if what not in report.commands(blind)] == [
        "export them for a robot"
    ]


def test_a_folder_of_runs_is_refused_with_their_names(tmp_path):
    runs = [tmp_path / name for name in ("first", "second")]
    for run in runs:
        run.mkdir()
        configs.save(TINY, run / "config.yaml")
    names = re.escape(f"{runs[0]}, {runs[1]}")
    with pytest.raises(RunError, match=f"is none; name one of its runs, such as {names}$"):
        report.read(tmp_path)
    with pytest.raises(RunError, match="absent does not exist"):
        report.read(tmp_path / "absent")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="expected a run folder"):
        command.make(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_summary_counts_by_hand(tmp_path):
    config = replace(TINY, run=replace(TINY.run, env_steps=20_000))
    train = [
        {"env_step": 4000.0, "updates_per_s": 10.0, "env_steps_per_s": 30.0, "wait_share": 0.25},
        {"env_step": 8000.0, "updates_per_s": 30.0, "env_steps_per_s": 50.0, "wait_share": 0.75},
        {"env_step": 12000.0, "agent_step": 6000.0, "update_step": 5000.0, "seconds": 7384.0, "updates_per_s": 20.0},
    ]
    evals = [{"env_step": 4000.0, "mean_return": 7.0, "sd_return": 1.25, "episodes": 10.0}]
    evals.append({**evals[0], "env_step": 8000.0, "mean_return": 5.0})
    table = report.summary(report.Record(tmp_path, config, train, evals, {"revision": "abc"}))
    assert table == {
        "best evaluation": "7.0 ± 1.2 over 10 episodes, at env step 4\u202f000",
        "last evaluation": "5.0 ± 1.2 over 10 episodes, at env step 8\u202f000",
        "env steps": "12\u202f000 of 20\u202f000",
        "agent steps": "6\u202f000",
        "updates": "5\u202f000",
        "wall time": "2 h 3 min",
        "updates/s": "20 (median)",
        "env steps/s": "40 (median)",
        "learner waits": "50 % of the time",
        "device": "cpu, threads: 1",
        "source revision": "abc",
    }


def test_pictures_are_spread_over_the_run_and_broken_ones_left_out(tmp_path):
    png = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
    for step in range(500, 10500, 500):
        (tmp_path / f"{step:09d}.png").write_bytes(png)
    (tmp_path / "notes.png").write_bytes(png)
    steps = [picture.env_step for picture in report.pictures(tmp_path, most=3)]
    assert (len(steps), steps[0], steps[-1]) == (3, 500, 10000)
    (tmp_path / "000010000.png").write_bytes(png[:40])
    assert [(each.env_step, each.height, each.width) for each in report.pictures(tmp_path, most=3)][-1] == (
        steps[1],
        4,
        6,
    )
    assert report.pictures(tmp_path / "none") == []
