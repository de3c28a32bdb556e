"""Other encodings through cv_bridge, where it works.

A cv_bridge that was built for numpy 1 crashes the process under numpy 2. So it is tried in a process of its own first,
in a thread, so that no callback waits for it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from typing import Any

import numpy as np
from sensor_msgs.msg import Image as ImageMsg

from sac_ae_ros.core.encodings import check_size, unknown_encoding
from sac_ae_ros.core.errors import ImageError, quote
from sac_ae_ros.nodes.convert import from_rgb

PROBE_TIMEOUT_S = 30
# What to_rgb8 does, on two pixels, with the caller's own paths. The alarm ends it even when nobody is left to.
_PROBE = """
import signal, sys
signal.alarm(int(sys.argv[1]))
sys.path[:] = sys.argv[2:]
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = Image(height=1, width=2, encoding="bgr8", step=6, data=[1, 2, 3, 4, 5, 6])
rgb = CvBridge().imgmsg_to_cv2(image, desired_encoding="rgb8")
assert rgb.dtype == "uint8" and rgb.tolist() == [[[3, 2, 1], [6, 5, 4]]], f"it made {rgb.tolist()} of bgr8"
"""


def find_fault(timeout_s: int = PROBE_TIMEOUT_S) -> str:
    """What is wrong with this machine's cv_bridge, in words; empty if it converts. Takes about a second."""
    if importlib.util.find_spec("cv_bridge") is None:
        return "cv_bridge, which may know it, is not installed"
    command = [sys.executable, "-c", _PROBE, str(timeout_s + 5), *sys.path]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return f"cv_bridge gave no answer within {timeout_s} s"
    except OSError as error:
        return f"cv_bridge cannot be tried ({error})"
    if done.returncode < 0:
        return f"cv_bridge crashes its process (signal {-done.returncode}); was it built for another numpy?"
    if done.returncode:
        return f"cv_bridge does not work ({_last_line(done.stderr)})"
    return ""


class CvBridge:
    """Converts what core.image cannot; costs nothing until the first such image."""

    def __init__(self, timeout_s: int = PROBE_TIMEOUT_S) -> None:
        """`timeout_s`: how long cv_bridge may take to convert two pixels when it is tried."""
        self._timeout_s = timeout_s
        self._bridge: Any = None
        self._why_not = ""
        self._trial: threading.Thread | None = None

    def to_rgb8(self, message: ImageMsg) -> ImageMsg:
        """A message in rgb8 with the same header.

        Raises:
            ImageError: cv_bridge is absent, broken, still being tried, or cannot convert this; names what is supported.
        """
        check_size(message.height, message.width, f"image {quote(message.encoding)}")
        if self._trial is None:
            self._trial = threading.Thread(target=self._try, name="cv_bridge trial", daemon=True)
            self._trial.start()
        if self._bridge is None:
            raise unknown_encoding(message.encoding, self._why_not or "cv_bridge, which may know it, is being tried")
        try:
            rgb = np.asarray(self._bridge.imgmsg_to_cv2(message, desired_encoding="rgb8"))
        except Exception as error:  # whatever it raises, the node goes on
            raise unknown_encoding(
                message.encoding, f"cv_bridge cannot convert it ({_last_line(str(error))})"
            ) from None
        if rgb.dtype != np.uint8 or rgb.shape != (message.height, message.width, 3):
            raise ImageError(
                f"image {quote(message.encoding)}: expected uint8 [{message.height}, {message.width}, 3] of cv_bridge,"
                f" got {rgb.dtype} {list(rgb.shape)}"
            )
        return from_rgb(rgb, message.header)

    def _try(self) -> None:
        why_not = find_fault(self._timeout_s)
        if not why_not:
            try:
                from cv_bridge import CvBridge as Bridge

                self._bridge = Bridge()
            except Exception as error:  # worked in its own process, but not beside what this one has loaded
                why_not = f"cv_bridge cannot be loaded ({_last_line(str(error))})"
        self._why_not = why_not


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:200] if lines else "without a word"
