"""The page of a score, opened in a real browser, and the files beside it."""

import json
import os
import re
from functools import partial

import av
import numpy as np
import pytest
import tiny_bag
from browser import open_browser
from tiny_bag import START_NS
from tiny_policy import SPEC, write_policy

from sac_ae_ros.bag.evaluate import Options
from sac_ae_ros.bag.many import check_index, finished, plan, score_all
from sac_ae_ros.bag.overview import write_index
from sac_ae_ros.bag.score import Job, Outputs, render, score
from sac_ae_ros.core.errors import RunError
from sac_ae_ros.core.spec import ActionSpec

CAMERA_NS = 25_000_000
GAP_NS = 1_000_000_000
SECOND_NS, DAY_NS = 1_000_000_000, 86_400_000_000_000
# Clicks what the argument selects, and tells the times that the page then shows.
CLICK = """
new Promise(resolve => {
    const video = document.querySelector('video');
    video.addEventListener('seeked', () => setTimeout(() => resolve([
        video.currentTime, Number(document.querySelector('.timeline').ariaValueNow),
        parseFloat(document.querySelector('.cursor').style.left), document.querySelector('.readout').textContent,
    ]), 50), {once: true});
    %s
})
"""


def drive(commands: bool = True) -> list:
    """Six seconds with a gap of one in the middle."""
    stamps = [START_NS + i * CAMERA_NS + (GAP_NS if i >= 100 else 0) for i in range(200)]
    greys = np.random.default_rng(0).integers(60, 200, 200).tolist()
    messages = [(at + 3_000_000, "/image", tiny_bag.image(at, grey)) for at, grey in zip(stamps, greys, strict=True)]
    return messages + [(at + 5_000_000, "/cmd_vel", tiny_bag.twist(0.25, 0.5)) for at in stamps if commands]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return write_policy(tmp_path_factory.mktemp("policy") / "tiny.onnx")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, policy):
    folder = tmp_path_factory.mktemp("whole")
    bag = tiny_bag.write(folder / "a <b>drive", drive())
    return score(Job(bag, policy, folder / "out"), Options(), with_bar=False), folder / "out"


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def test_every_file_is_there_and_nothing_half_written(whole):
    _, out = whole
    assert sorted(path.name for path in out.iterdir()) == [
        "foxglove_layout.json", "frames.csv", "metrics.json", "overlay.mp4", "policy_bag", "report.html",
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["desktop", "phone"])
def test_the_page_opens_without_complaints_and_asks_for_nothing(whole, browser, width, dark):
    facts, out = whole
    visit = browser.visit(out / "report.html", width=width, dark=dark, script="document.body.innerText")
    assert visit.complaints == []
    assert visit.requests == []
    assert visit.width <= width
    assert "tiny 1 on a <b>drive" in visit.value
    assert "limits.* (slew, jerk, low pass, deadband, ends) are not applied" in visit.value
    assert f"{facts['actions']['linear']['mae']:.3g}" in visit.value
    assert len(re.findall(r"^at [\d.]+ s$", visit.value, re.MULTILINE)) >= 2 * 5


def test_moments_plots_and_video_show_the_same_time(whole, browser):
    _, out = whole
    ticks = json.loads(re.search(r'id="ticks">(.*?)</script>', (out / "report.html").read_text()).group(1))
    assert ticks["end_s"] == pytest.approx(5.9)
    at_s, time_s, left, text = _by_moment(browser, out)
    assert time_s == pytest.approx(at_s, abs=0.06)
    axes = [float(each) for each in re.findall(r'data-(?:left|right)="([\d.]+)"', (out / "report.html").read_text())]
    assert left == pytest.approx(100 * (axes[0] + (axes[1] - axes[0]) * at_s / ticks["end_s"]), abs=1.1)
    nearest = int(np.searchsorted(ticks["at_s"], time_s + 1e-3, side="right")) - 1
    policy, recorded = (ticks["actions"][0][name][nearest] for name in ("policy", "recorded"))
    assert f"policy {policy:g} m/s, recorded {'none' if recorded is None else f'{recorded:g} m/s'}" in text

    place = axes[0] + (axes[1] - axes[0]) * 0.25
    click = f"""
    const box = document.querySelector('.timeline').getBoundingClientRect();
    const where = {{clientX: box.left + box.width * {place}, clientY: box.top + 5, pointerId: 1, buttons: 1}};
    document.querySelector('.timeline').setPointerCapture = () => {{}};  // there is no pointer 1
    document.querySelector('.timeline').dispatchEvent(new PointerEvent('pointerdown', where));
    """
    time_s, shown_s, *_ = browser.visit(out / "report.html", script=CLICK % click).value
    assert time_s == pytest.approx(0.25 * 5.9, abs=0.11)
    assert shown_s == pytest.approx(time_s, abs=0.06)


def _by_moment(browser, out):
    script = CLICK % "document.querySelectorAll('.jump')[3].click();"
    jump = "Number(document.querySelectorAll('.jump')[3].dataset.at)"
    at_s = browser.visit(out / "report.html", script=jump).value
    time_s, _, left, text = browser.visit(out / "report.html", script=script).value
    return at_s, time_s, left, text


def test_videos_run_by_the_recording_s_time(whole):
    _, out = whole
    with av.open(str(out / "overlay.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    assert len(times) == 50
    assert times[0] == 0
    assert times[24:26] == pytest.approx([2.4, 3.5], abs=2e-3)  # the gap is as long as it was
    assert times[-1] == pytest.approx(5.9, abs=2e-3)


def test_a_page_without_commands_video_and_statistics(tmp_path, policy, browser):
    blind = write_policy(tmp_path / "blind.onnx", spec={"novelty": type(SPEC.novelty)(0, {})})
    bag = tiny_bag.write(tmp_path / "bag", drive(commands=False))
    score(Job(bag, blind, tmp_path / "out", Outputs(video=False)), Options(), with_bar=False)
    assert not (tmp_path / "out" / "overlay.mp4").exists()
    visit = browser.visit(tmp_path / "out" / "report.html", script="document.body.innerText")
    assert visit.complaints == []
    for text in ("No commands were recorded", "left out on request", "no statistics", "None."):
        assert text in visit.value


def test_damage_is_told_on_the_page(tmp_path, policy):
    bag = tiny_bag.write(tmp_path / "bag", drive())
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 7 // 10])
    facts = score(Job(bag, policy, tmp_path / "out", Outputs(video=False)), Options(), with_bar=False)
    text = (tmp_path / "out" / "report.html").read_text()
    assert "The recording is damaged." in text
    assert f"{facts['salvaged']} messages" in text


def test_what_is_no_damage_is_told_in_text_and_on_the_page(tmp_path, policy):
    bag = tiny_bag.write(tmp_path / "bag", drive())
    (bag / "metadata.yaml").unlink()
    facts = score(Job(bag, policy, tmp_path / "out", Outputs(video=False)), Options(), with_bar=False)
    assert (facts["remarks"], facts["salvaged"]) == (["no metadata.yaml"], 0)
    assert "note      no metadata.yaml" in render(facts).splitlines()
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Of the recording: no metadata.yaml" in text
    assert "is damaged" not in text


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "unit", "low", "high"),
    [
        (r"$\frac$", r"$\sqrt$", -1.0, 1.0),
        ("速度 🚗 </script>", "m/s", -1.0, 1.0),
        ("n" * 200, "m", -8e307, 8e307),
        ("tiny", "m", -5e-324, 5e-324),
    ],
    ids=["formula", "glyphs", "wide", "narrow"],
)
def test_names_are_shown_letter_for_letter_and_every_range_has_a_video(tmp_path, browser, name, unit, low, high):
    actions = (ActionSpec(name, unit, low, high), SPEC.actions[1])
    policy = write_policy(tmp_path / "odd.onnx", spec={"actions": actions})
    bag = tiny_bag.write(tmp_path / "bag", drive())
    facts = score(Job(bag, policy, tmp_path / "out"), Options(), with_bar=False)
    assert set(facts["actions"]) == {name, "angular"}
    titles = "[...document.querySelectorAll('svg text')].map(each => each.textContent)"
    visit = browser.visit(tmp_path / "out/report.html", script=titles)
    assert visit.complaints == []
    assert f"{name}, {unit}" in visit.value
    with av.open(str(tmp_path / "out/overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 50


@pytest.mark.filterwarnings("error")
def test_commands_from_the_least_to_the_largest_number_make_a_page(tmp_path, browser):
    largest = np.finfo(np.float64).max
    actions = (ActionSpec("linear", "m", -8e307, 8e307), SPEC.actions[1])
    policy = write_policy(tmp_path / "wide.onnx", spec={"actions": actions})
    stamps = [START_NS + i * 100_000_000 for i in range(20)]
    messages = [(at, "/image", tiny_bag.image(at, 255 * (i // 5 % 2))) for i, at in enumerate(stamps)]
    messages += [(at, "/cmd_vel", tiny_bag.twist(largest * (-1) ** i, 0.0)) for i, at in enumerate(stamps)]
    score(Job(tiny_bag.write(tmp_path / "bag", messages), policy, tmp_path / "out"), Options(), with_bar=False)
    visit = browser.visit(tmp_path / "out/report.html", script="JSON.parse(document.querySelector('#ticks').text)")
    assert visit.complaints == []
    assert visit.value["actions"][0]["recorded"][:2] == [largest, -largest]


def test_file_names_that_are_no_utf_8_are_shown_escaped(tmp_path, policy, browser):
    bag = tiny_bag.write(tmp_path / "bag", drive()).rename(tmp_path / os.fsdecode(b"dr\xffive"))
    options = Options(duration_s=1.0)
    score(Job(bag, policy, tmp_path / "out", Outputs(video=False)), options, with_bar=False)
    visit = browser.visit(tmp_path / "out/report.html", script="document.querySelector('h1').textContent")
    assert (visit.complaints, visit.value) == ([], r"tiny 1 on dr\udcffive")
    jobs = plan([bag], [policy, policy], tmp_path / "many", Outputs(page=False, video=False))
    write_index(score_all(jobs, options, 2), tmp_path / "many")
    visit = browser.visit(tmp_path / "many/index.html", script="[...document.links].map(each => each.href)")
    assert [href.rpartition("/many/")[2] for href in visit.value] == [
        "dr%FFive-tiny/report.html", "dr%FFive-tiny-2/report.html",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stamp_ns", "log_ns", "seconds", "leaps"),
    [
        ({30: 6 * DAY_NS}, {}, 5.9, 1),
        ({30: -6 * DAY_NS}, {}, 5.9, 1),
        ({59: 100 * DAY_NS}, {}, 5.9, 1),
        ({20: DAY_NS, 21: 0}, {}, 5.9, 2),
        ({30: 3000 * SECOND_NS}, {30: 3000 * SECOND_NS}, 3005.9, 0),
    ],
    ids=["ahead", "back", "the last stamp", "one stamp", "a pause"],
)
def test_days_between_stamps_take_no_days_of_page_and_video(tmp_path, policy, stamp_ns, log_ns, seconds, leaps):
    def after(leaps, i):
        return next((leaps[k] for k in sorted(leaps, reverse=True) if k <= i), 0)

    times = [(START_NS + i * 100_000_000, i) for i in range(60)]
    frames = [(at + after(log_ns, i), "/image", tiny_bag.image(at + after(stamp_ns, i), 60 + i)) for at, i in times]
    score(Job(tiny_bag.write(tmp_path / "bag", frames), policy, tmp_path / "out"), Options(), with_bar=False)
    with av.open(str(tmp_path / "out/overlay.mp4")) as film:
        assert max(float(frame.pts * frame.time_base) for frame in film.decode(video=0)) == pytest.approx(seconds)
    page = (tmp_path / "out/report.html").read_text()
    assert json.loads(re.search(r'id="ticks">(.*?)</script>', page)[1])["end_s"] == pytest.approx(seconds)
    assert (f"{leaps} leaps of stamps left out" in page) == ("leaps of stamps" in page) == (leaps > 0)


def test_log_times_beyond_what_a_stamp_holds_make_a_page_too(tmp_path, policy):
    """Of images without a stamp, which count by their log times."""
    frames = [(2**31 * 10**9 + i * 100_000_000, "/image", tiny_bag.image(0, 60 + i)) for i in range(12)]
    score(Job(tiny_bag.write(tmp_path / "bag", frames), policy, tmp_path / "out"), Options(), with_bar=False)
    assert (tmp_path / "out/report.html").exists()


def test_a_scoring_that_fails_leaves_what_was_there(tmp_path, policy, monkeypatch):
    bag = tiny_bag.write(tmp_path / "bag", drive())
    job = Job(bag, policy, tmp_path / "out", Outputs(page=False, video=False))
    score(job, Options(), with_bar=False)
    before = {path.name: path.read_bytes() for path in job.out.iterdir()}
    monkeypatch.setattr("sac_ae_ros.bag.report.write", partial(_raise, OSError("No space left on device")))
    with pytest.raises(OSError, match="No space"):
        score(Job(bag, policy, job.out), Options(stamp_source="log"), with_bar=False)
    assert {path.name: path.read_bytes() for path in job.out.iterdir()} == before


def _raise(error: Exception, *_: object) -> None:
    raise error


def test_metrics_only_and_then_the_page_is_asked_for_by_force(tmp_path, policy):
    bag = tiny_bag.write(tmp_path / "bag", drive())
    bare = Job(bag, policy, tmp_path / "out", Outputs(page=False, video=False))
    score(bare, Options(), with_bar=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["frames.csv", "metrics.json"]
    assert finished(bare, Options(), False) is not None
    with pytest.raises(RunError, match="--force"):
        finished(Job(bag, policy, tmp_path / "out"), Options(), False)


def test_a_pipe_in_place_of_earlier_results_is_not_waited_for(tmp_path, policy):
    os.mkfifo(tmp_path / "metrics.json")
    with pytest.raises(RunError, match="--force"):
        finished(Job(tmp_path / "bag", policy, tmp_path), Options(), False)


@pytest.mark.parametrize("name", ["report.html", "frames.csv", "overlay.mp4", "policy_bag", "foxglove_layout.json"])
def test_what_somebody_else_wrote_is_replaced_by_force_only(tmp_path, policy, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    bag = tiny_bag.write(tmp_path / "bag", drive()[:40])
    job = Job(bag, policy, tmp_path / "out", Outputs(video=name == "overlay.mp4"))
    with pytest.raises(RunError, match=rf"has {name}, but no metrics\.json of a finished scoring; give --force"):
        score_all([job], Options(), 1)
    assert [(path.name, path.read_text()) for path in job.out.iterdir()] == [(name, "mine")]
    if name == "policy_bag":  # a folder is never taken for ours by its name alone
        with pytest.raises(RunError, match="move it away"):
            score_all([job], Options(), 1, force=True)
    else:
        score_all([job], Options(), 1, force=True)
        assert sorted(path.name for path in job.out.iterdir()) == sorted(job.outputs.names)
        assert score_all([job], Options(), 1)[0].facts is not None  # one's own are taken as they are


def test_a_folder_is_replaced_by_nothing(tmp_path, policy):
    (tmp_path / "out/report.html").mkdir(parents=True)
    bag = tiny_bag.write(tmp_path / "bag", drive()[:40])
    with pytest.raises(RunError, match=r"expected no folder .*report\.html; move it away"):
        score(Job(bag, policy, tmp_path / "out", Outputs(video=False)), Options(), with_bar=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_the_table_of_several_replaces_no_other_page(tmp_path, policy):
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(RunError, match=r"index\.html is there, but no table of bag-eval; give --force"):
        check_index(tmp_path, force=False)
    check_index(tmp_path, force=True)
    write_index([], tmp_path)
    check_index(tmp_path, force=False)
