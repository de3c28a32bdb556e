"""The browser's eyes: what is wrong with a page is seen, and nothing is seen in a sound one."""

import base64

import cv2
import numpy as np
import pytest
from browser import open_browser

PIXEL = "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1]).decode()


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(tmp_path):
    def write(body: str):
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><title>x</title><body>{body}")
        return path

    return write


def test_a_sound_page_has_no_complaints(browser, page):
    visit = browser.visit(page(f"<img src='{PIXEL}'><script>console.log('fine')</script>"), script="document.title")
    assert (visit.complaints, visit.requests, visit.value) == ([], [], "x")


@pytest.mark.parametrize(
    ("body", "where", "says"),
    [
        ("<script>console.error('so bad')</script>", "console", "so bad"),
        ("<script>nothing.at.all</script>", "console", "nothing is not defined"),
        ("<script>setTimeout(() => { throw Error('later') })</script>", "console", "later"),
        ("<img src='none.png'>", "failed", "ERR_FILE_NOT_FOUND"),
        ("<img src='none.png'>", "broken", "none.png"),
        ("<img src='data:image/png;base64,AAAA'>", "broken", "data:image/png"),
        ("<video src='data:video/mp4;base64,AAAA'></video>", "broken", "data:video/mp4"),
        ("<video><source src='data:video/mp4;base64,AAAA'></video>", "broken", "data:video/mp4"),
        ("<link rel=stylesheet href='none.css'>", "failed", "ERR_FILE_NOT_FOUND"),
        ("<script src='http://127.0.0.1:9/x.js'></script>", "requests", "127.0.0.1:9"),
    ],
)
def test_what_is_wrong_is_seen(browser, page, body, where, says):
    assert says in " ".join(getattr(browser.visit(page(body)), where))


def test_visits_do_not_see_each_others_complaints(browser, page):
    assert browser.visit(page("<script>console.error('first')</script>")).complaints
    assert browser.visit(page("second")).complaints == []


def test_a_phone_shows_what_does_not_fit(browser, page):
    wide = page("<meta name=viewport content='width=device-width'><div style='width:700px'>wide</div>")
    assert browser.visit(wide, width=400).width > 400
    fitting = page("<meta name=viewport content='width=device-width'><div>narrow</div>")
    assert browser.visit(fitting, width=400).width == 400


def test_the_screenshot_is_of_the_whole_page_and_of_the_users_colours(browser, page):
    tall = page(
        "<style>:root{color-scheme:light dark;background:#fff}"
        "@media(prefers-color-scheme:dark){:root{background:#000}}</style><div style='height:2000px'></div>"
    )
    light, dark = (
        cv2.imdecode(np.frombuffer(browser.visit(tall, width=700, dark=dark).png, np.uint8), cv2.IMREAD_COLOR)
        for dark in (False, True)
    )
    assert light.shape[1] == 700
    assert light.shape[0] > 2000
    assert (light[1000, 350].max(), dark[1000, 350].max()) == (255, 0)
