"""The video is H.264 in MP4 of the right length, and its bars follow the commands."""

import av
import cv2
import numpy as np
import pytest

from sac_ae_ros import video
from sac_ae_ros.core.spec import ActionSpec

ACTIONS = (ActionSpec("linear", "m/s", -0.2, 0.6), ActionSpec("angular", "rad/s", -1.5, 1.5))
PICTURE = np.full((36, 64, 3), 80, np.uint8)


def colored(moment: video.Moment, color: tuple[int, int, int]) -> int:
    return int((video.draw(moment, ACTIONS) == color).all(-1).sum())


def test_bars_grow_with_the_command_and_show_its_sign():
    small, large, back = (video.Moment(PICTURE, np.array([value, 0.0]), "") for value in (0.1, 0.5, -0.2))
    assert 0 < colored(small, video.FORWARD) < colored(large, video.FORWARD)
    assert colored(large, video.BACKWARD) == 0 < colored(back, video.BACKWARD)


def test_no_command_is_not_drawn_as_zero():
    nothing, zero = video.Moment(PICTURE, None, ""), video.Moment(PICTURE, np.zeros(2), "")
    assert (video.draw(nothing, ACTIONS) != video.draw(zero, ACTIONS)).any()


def test_a_browser_can_play_it(tmp_path):
    path = tmp_path / "out.mp4"
    video.write(path, [video.Moment(PICTURE, np.zeros(2), f"{i}") for i in range(12)], ACTIONS, 20)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, float(stream.average_rate)) == (
            "h264",
            "yuv420p",
            20,
        )
        assert sum(1 for _ in container.decode(stream)) == 12
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays before it is loaded whole


def test_nothing_to_show_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        video.write(tmp_path / "out.mp4", [], ACTIONS, 20)
    assert list(tmp_path.iterdir()) == []


def test_the_poster_is_the_middle_of_the_video(tmp_path):
    levels = [0, 60, 120, 180, 240]
    moments = [video.Moment(np.full((36, 64, 3), level, np.uint8), None, "") for level in levels]
    video.write(tmp_path / "it.mp4", moments, (ActionSpec("a", "1", -1.0, 1.0),), 10)
    picture = cv2.imdecode(np.frombuffer(video.poster(tmp_path / "it.mp4"), np.uint8), cv2.IMREAD_COLOR)
    with av.open(str(tmp_path / "it.mp4")) as container:
        stream = container.streams.video[0]
        assert picture.shape[:2] == (stream.height, stream.width)
    assert abs(int(picture[100, 300].mean()) - 120) < 4


def test_long_names_end_before_their_bar_and_large_numbers_have_an_exponent():
    plain, long = (ActionSpec(name, "m", -8e307, 8e307) for name in ("n", "n" * 200))
    moment = video.Moment(PICTURE, np.array([4e307]), "")
    shown = [video.draw(moment, [action])[-video.BAR_HEIGHT_PX - 10 :] for action in (plain, long)]
    assert (shown[0][:, :144] != shown[1][:, :144]).any()
    np.testing.assert_array_equal(shown[0][:, 144:], shown[1][:, 144:])
    bar = (shown[0] == video.FORWARD).all(-1).any(axis=0)
    assert np.flatnonzero(bar).tolist() == list(range(321, 406))  # from the middle to three quarters
    ink = (shown[0] == video.INK).all(-1).any(axis=0)
    assert not ink[-10:].any()  # 4.00e+307 ends within the picture
