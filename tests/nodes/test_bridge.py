"""cv_bridge is tried in a process of its own; stand-ins for good and bad builds of it are real packages."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.image import decode
from sac_ae_ros.nodes.bridge import CvBridge, find_fault
from sac_ae_ros.nodes.convert import to_image

BRIDGE = """
import numpy as np
class CvBridge:
    def imgmsg_to_cv2(self, message, desired_encoding="passthrough"):
        assert desired_encoding == "rgb8"
        if message.encoding == "16SC1":
            raise ValueError("[16SC1] is not a color format\\nno conversion")
        if message.encoding == "8UC2":
            return np.zeros((message.height, message.width, 2), np.uint8)
        order = {"bgr8": [2, 1, 0], "rgb16": [1, 3, 5]}[message.encoding]
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)
        return pixels[..., order]
"""
CRASHES = "import os\nclass CvBridge:\n    def __init__(self):\n        os.abort()\n"
RAISES = "raise ImportError('numpy.core.multiarray failed to import')\n"
HANGS = "import time\ntime.sleep(60)\n"
MIXES_UP = BRIDGE.replace("[2, 1, 0]", "[0, 1, 2]")
MESSAGE = Image(header=Header(frame_id="lens"), height=1, width=2, encoding="rgb16", step=12, data=list(range(12)))


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Writes a cv_bridge that this process and its children find first."""

    def write(code: str) -> None:
        (tmp_path / "cv_bridge").mkdir()
        (tmp_path / "cv_bridge" / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)

    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    yield write
    sys.modules.pop("cv_bridge", None)


def answer(bridge: CvBridge, message: Image) -> Image | str:
    """What it makes of the message once it has been tried: an image or the words of the error."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return bridge.to_rgb8(message)
        except ImageError as error:
            if "is being tried" not in str(error):
                return str(error)
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_good_one_converts_what_core_cannot(install):
    install(BRIDGE)
    bridge = CvBridge()
    rgb = answer(bridge, MESSAGE)
    assert (rgb.header.frame_id, rgb.encoding, rgb.step) == ("lens", "rgb8", 6)
    assert decode(to_image(rgb)).tolist() == [[[1, 3, 5], [7, 9, 11]]]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (CRASHES, r"cv_bridge crashes its process \(signal 6\); was it built for another numpy\?"),
        (RAISES, r"cv_bridge does not work \(ImportError: numpy.core.multiarray failed to import\)"),
        (MIXES_UP, r"cv_bridge does not work \(AssertionError: it made \[\[\[1, 2, 3\], \[4, 5, 6\]\]\] of bgr8\)"),
    ],
)
def test_a_broken_one_becomes_a_reason(install, code, says):
    install(code)
    with pytest.raises(ImageError, match=rf"^image encoding: expected one of 16UC1, .*; got 'rgb16', and {says}; set"):
        raise ImageError(answer(CvBridge(), MESSAGE))
    assert "cv_bridge" not in sys.modules  # this process never came near it


def test_one_that_hangs_keeps_nobody_waiting(install):
    install(HANGS)
    bridge = CvBridge(timeout_s=2)
    began = time.monotonic()
    with pytest.raises(ImageError, match="got 'rgb16', and cv_bridge, which may know it, is being tried"):
        bridge.to_rgb8(MESSAGE)
    assert time.monotonic() - began < 1
    assert "cv_bridge gave no answer within 2 s" in answer(bridge, MESSAGE)


@pytest.mark.skipif(importlib.util.find_spec("cv_bridge") is not None, reason="this machine has cv_bridge")
def test_without_one_the_error_says_so():
    assert "and cv_bridge, which may know it, is not installed; set the camera driver" in answer(CvBridge(), MESSAGE)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Image(height=1, width=2, encoding="16SC1", step=4), r"cv_bridge cannot convert it \(no conversion\)"),
        (Image(height=1, width=2, encoding="rgb17", step=4), r"cv_bridge cannot convert it \('rgb17'\)"),
        (Image(height=1, width=2, encoding="rgb16", step=4, data=[1]), "cv_bridge cannot convert it"),
        (
            Image(height=1, width=2, encoding="8UC2", step=4),
            r"expected uint8 \[1, 2, 3\] of cv_bridge, got .*\[1, 2, 2\]",
        ),
        (Image(height=1, width=2**32 - 1, encoding="rgb16"), "expected sides of"),
    ],
)
def test_what_it_cannot_convert_is_an_image_error(install, message, says):
    install(BRIDGE)
    bridge = CvBridge()
    answer(bridge, MESSAGE)
    with pytest.raises(ImageError, match=says):
        bridge.to_rgb8(message)


def test_it_is_tried_once(install, tmp_path):
    install(f"open({str(tmp_path / 'tried')!r}, 'a').write('x')\nraise ImportError('no')\n")
    bridge = CvBridge()
    for _ in range(3):
        answer(bridge, MESSAGE)
    assert Path(tmp_path / "tried").read_text() == "x"


def test_the_fault_is_empty_where_it_works(install):
    install(BRIDGE)
    assert find_fault() == ""
