"""The same pixels under new stamps count as no camera, after a time."""

import pytest

from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.freeze import FreezeWatch
from sac_ae_ros.core.image import CompressedImage, Image

S = 1_000_000_000


def image(level: int, encoding: str = "mono8") -> Image:
    return Image(2, 2, encoding, 2, False, bytes([level] * 4))


def test_identical_pixels_pass_until_the_timeout_and_fail_until_they_change():
    watch = FreezeWatch(2.0)
    for stamp_s in (10, 11, 12):
        watch.check(image(1), stamp_s * S)
    for stamp_s in (13, 14):
        with pytest.raises(ImageError, match=rf"changed for {stamp_s - 10}\.0 s, since stamp 10\.000, .* within 2 s"):
            watch.check(image(1), stamp_s * S)
    watch.check(image(2), 15 * S)
    watch.check(image(2), 17 * S)


def test_the_message_says_what_a_simulation_should_do():
    watch = FreezeWatch(0.5)
    watch.check(image(1), 0)
    with pytest.raises(ImageError, match=r"for a simulated camera set image\.freeze_timeout_s: 0\.0"):
        watch.check(image(1), S)


def test_one_byte_is_a_change_and_so_are_size_and_encoding():
    watch = FreezeWatch(1.0)
    other_size = Image(1, 4, "mono8", 4, False, bytes([1] * 4))
    pictures = [image(1), Image(2, 2, "mono8", 2, False, bytes([1, 1, 1, 2])), image(1, "8UC1"), other_size]
    for i in range(8):
        watch.check(pictures[i % 4], i * 10 * S)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_compressed_images_freeze_too(kind):
    watch = FreezeWatch(1.0)
    watch.check(CompressedImage(kind(b"\xff\xd8\xff")), 0)
    with pytest.raises(ImageError):
        watch.check(CompressedImage(kind(b"\xff\xd8\xff")), 2 * S)


def test_zero_never_freezes():
    watch = FreezeWatch(0.0)
    for i in range(3):
        watch.check(image(1), i * 1000 * S)


def test_a_clock_that_was_set_back_begins_anew():
    watch = FreezeWatch(1.0)
    watch.check(image(1), 100 * S)
    watch.check(image(1), 5 * S)
    watch.check(image(1), 6 * S)
    with pytest.raises(ImageError):
        watch.check(image(1), 7 * S)
