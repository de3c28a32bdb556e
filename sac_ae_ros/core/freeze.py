"""Content freeze: a driver that goes on stamping the same picture counts as a camera that is silent."""

from __future__ import annotations

import zlib

import numpy as np

from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.image import CompressedImage, Image


class FreezeWatch:
    """Watches whether images change from stamp to stamp.

    Compared are checksums of the bytes as they came (1.2 ms for 1280x720 rgb8): sensor noise changes some byte of
    every live frame. A picture that is frozen inside a message that is not (padding, EXIF times) goes unnoticed.
    """

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: longest time for which identical pixels pass, by stamps; 0: any."""
        self._timeout_ns = round(timeout_s * 1e9)
        self._seen: tuple[int, int, str] | None = None
        self._since_ns = 0

    def check(self, image: Image | CompressedImage, stamp_ns: int) -> None:
        """Takes the images that count, in order of arrival.

        Raises:
            ImageError: the pixels have been the same for longer than the timeout; again for each image until they
                change.
        """
        if not self._timeout_ns:
            return
        seen = _fingerprint(image)
        if seen != self._seen or stamp_ns < self._since_ns:  # a clock that was set back begins anew
            self._seen, self._since_ns = seen, stamp_ns
        elif stamp_ns - self._since_ns > self._timeout_ns:
            raise ImageError(
                f"image: pixels have not changed for {(stamp_ns - self._since_ns) / 1e9:.1f} s, since stamp"
                f" {self._since_ns / 1e9:.3f}, expected a change within {self._timeout_ns / 1e9:g} s; restart the"
                " camera driver, or for a simulated camera set image.freeze_timeout_s: 0.0"
            )


def _fingerprint(image: Image | CompressedImage) -> tuple[int, int, str]:
    shape = "" if isinstance(image, CompressedImage) else f"{image.height}x{image.width} {image.encoding}"
    raw = np.frombuffer(image.data, np.uint8)
    return zlib.crc32(raw.data), raw.size, shape
