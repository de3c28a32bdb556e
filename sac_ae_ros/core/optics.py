"""A camera's optics against those that a policy was trained with, compared in the policy's own picture.

Pinhole model without distortion. Image coordinates are continuous with their origin in the image's corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sac_ae_ros.core.errors import ImageError
from sac_ae_ros.core.image import View
from sac_ae_ros.core.spec import CameraSpec

ROUNDING = 1e-6


@dataclass(frozen=True)
class Intrinsics:
    """Focal lengths and principal point of height x width pixels, all in pixels."""

    height: int
    width: int
    fx: float
    fy: float
    cx: float
    cy: float


def differences(camera: CameraSpec, intrinsics: Intrinsics, view: View, tolerance: float) -> list[str]:
    """How a camera, of whose images as published `intrinsics` holds, differs from the policy's; empty if it fits.

    `tolerance` is the greatest relative difference of the focal lengths, and the greatest shift of the principal
    point as a fraction of the picture's side. Each text has both sides with numbers.
    """
    try:
        came = _in_policys_picture(camera, intrinsics, view)
    except ImageError as error:
        return [str(error)]
    trained = _trained(camera)
    after = _after(camera, view)
    texts = []
    for name, side, mine, its in (
        ("vertical", camera.height, trained.fy, came.fy),
        ("horizontal", camera.width, trained.fx, came.fx),
    ):
        if abs(its - mine) > (tolerance + ROUNDING) * mine:
            texts.append(
                f"{name} field of view: the policy was trained with {_degrees(side, mine):.1f} degrees,"
                f" this camera gives {_degrees(side, its):.1f}{after}"
            )
    for name, side, mine, its in (
        ("height", camera.height, trained.cy, came.cy),
        ("width", camera.width, trained.cx, came.cx),
    ):
        if abs(its - mine) > (tolerance + ROUNDING) * side:
            texts.append(
                f"optical axis: the policy was trained with it at {mine / side:.2f} of the image's {name},"
                f" this camera has it at {its / side:.2f}{after}"
            )
    return texts


def _trained(camera: CameraSpec) -> Intrinsics:
    """The optics of the policy's picture in training."""
    height, width = camera.height, camera.width
    if camera.fovy_deg is None:
        k = camera.k or (0.0,) * 9
        return Intrinsics(height, width, k[0], k[4], k[2], k[5])
    fy = height / 2 / math.tan(math.radians(camera.fovy_deg) / 2)
    squeezed = width / camera.source_width / (height / camera.source_height)  # its pixels had been square
    return Intrinsics(height, width, fy if camera.crop == "center" else fy * squeezed, fy, width / 2, height / 2)


def _in_policys_picture(camera: CameraSpec, optics: Intrinsics, view: View) -> Intrinsics:
    """The optics after the view's part, its rotation, the policy's crop and its resize.

    Raises:
        ImageError: the view's part lies outside of the image.
    """
    x, y, cols, rows = view.part(optics.height, optics.width)
    part = Intrinsics(rows, cols, optics.fx, optics.fy, optics.cx - x, optics.cy - y)
    for _ in range(view.rotate_deg // 90):
        part = Intrinsics(part.width, part.height, part.fy, part.fx, part.height - part.cy, part.cx)
    keep_rows, keep_cols = float(part.height), float(part.width)
    if camera.crop == "center":
        keep_rows = min(keep_rows, part.width * camera.height / camera.width)
        keep_cols = min(keep_cols, part.height * camera.width / camera.height)
    down, across = camera.height / keep_rows, camera.width / keep_cols
    return Intrinsics(
        camera.height,
        camera.width,
        part.fx * across,
        part.fy * down,
        (part.cx - (part.width - keep_cols) / 2) * across,
        (part.cy - (part.height - keep_rows) / 2) * down,
    )


def _after(camera: CameraSpec, view: View) -> str:
    done = {"roi": view.roi is not None, "rotation": view.rotate_deg != 0, "crop": camera.crop == "center"}
    names = [name for name, applies in done.items() if applies]
    return f" after {' and '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}" if names else ""


def _degrees(side: int, focal_px: float) -> float:
    return math.degrees(2 * math.atan2(side / 2, focal_px))
