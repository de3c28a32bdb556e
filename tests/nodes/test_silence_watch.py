"""Which topics count as steady, and after how long they count as silent."""

import pytest

from sac_ae_ros.nodes.silence_watch import LEAST_S, LONGEST_GAP_S, SLEPT_S, SilenceWatch

LOOK_S = 0.2


def silences(watch: SilenceWatch, from_s: float, to_s: float) -> list[tuple[str, float]]:
    """Topics, and when they were said to be silent."""
    found = []
    for i in range(round((to_s - from_s) / LOOK_S) + 1):
        now_s = from_s + i * LOOK_S
        found += [(silence.topic, now_s) for silence in watch.look(now_s)]
    return found


def hear(watch: SilenceWatch, topic: str, period_s: float, until_s: float) -> float:
    """Messages from 0 on; returns when the last one came."""
    count = int(until_s / period_s) + 1
    for i in range(count):
        watch.look(i * period_s)
        assert watch.heard(topic, i * period_s) is None
    return (count - 1) * period_s


@pytest.mark.parametrize("rate_hz", [1.0, 2.0, 10.0, 30.0, 200.0])
def test_a_steady_topic_is_silent_within_three_seconds_and_told_once(rate_hz):
    watch = SilenceWatch()
    last_s = hear(watch, "image", 1 / rate_hz, 12.0)
    ((topic, at_s),) = silences(watch, last_s, last_s + 30.0)
    assert topic == "image"
    assert LEAST_S < at_s - last_s < 3.0


def test_it_tells_the_rate_and_how_long_the_silence_lasted():
    watch = SilenceWatch()
    last_s = hear(watch, "image", 0.05, 10.0)
    (silence,) = watch.look(last_s + 0.9) or watch.look(last_s + 1.8)
    assert silence.rate_hz == pytest.approx(20.0)
    assert silence.for_s == pytest.approx(1.8)
    assert watch.heard("image", last_s + 7.0) == pytest.approx(7.0)
    assert watch.heard("image", last_s + 7.05) is None


def test_what_comes_rarely_may_pause():
    watch = SilenceWatch()
    last_s = hear(watch, "episode_end", 2 * LONGEST_GAP_S, 60.0)
    assert silences(watch, last_s, last_s + 60.0) == []


def test_a_burst_is_no_steady_rate():
    watch = SilenceWatch()
    for i in range(100):  # the history of a latched topic
        watch.heard("tf_static", i * 0.001)
    assert silences(watch, 0.1, 60.0) == []


def test_who_has_slept_counts_anew():
    watch = SilenceWatch()
    last_s = hear(watch, "image", 0.1, 5.0)
    woke_s = last_s + 60.0
    assert watch.look(last_s) == watch.look(woke_s) == watch.look(woke_s + SLEPT_S) == []
    ((_, at_s),) = silences(watch, woke_s + SLEPT_S, woke_s + 10.0)
    assert at_s - woke_s > LEAST_S
