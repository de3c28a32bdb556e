"""Camera images from MuJoCo, fast enough for a CPU.

dm_control's own renderer spends its time on a 4096 x 4096 shadow map, multisampling and reflections; without them
small images come out 15 to 25 times faster and hardly change. `stock` keeps dm_control's.
"""

from __future__ import annotations

import ctypes.util
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError

INSTALL_HINT = "install Debian's libegl1 and libgl1-mesa-dri (or libosmesa6)"
RENDERERS = ("fast", "stock")


def choose_backend() -> str:
    """Sets MUJOCO_GL unless the user did; must run before mujoco is first imported.

    Raises:
        SimError: this machine has neither EGL nor OSMesa.
    """
    if not os.environ.get("MUJOCO_GL"):
        found = [name for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")) if ctypes.util.find_library(library)]
        if not found:
            raise SimError(f"rendering: expected EGL or OSMesa on this machine, found neither; {INSTALL_HINT}")
        os.environ["MUJOCO_GL"] = found[0]
    return os.environ["MUJOCO_GL"]


class Renderer(Protocol):
    """Draws one camera of one physics."""

    def render(self) -> NDArray[np.uint8]:
        """The picture of this moment, uint8 RGB [height, width, 3]."""

    def close(self) -> None:
        """Frees the OpenGL context."""


class FastRenderer:
    """Without shadow map, multisampling and reflections, into a buffer of the image's own size."""

    def __init__(self, physics, camera: int | str, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
        """Draws `camera` (index or name) of a dm_control Physics; changes the model's visual settings."""
        import mujoco

        self._physics, self._camera = physics, camera
        model = physics.model.ptr
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        self._off = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
        self._renderer = mujoco.Renderer(model, height, width)
        self._free = weakref.finalize(self, self._renderer.close)  # left to the interpreter's exit, EGL raises

    def render(self) -> NDArray[np.uint8]:
        """See Renderer."""
        self._renderer.update_scene(self._physics.data.ptr, camera=self._camera)
        for flag in self._off:  # update_scene sets them again
            self._renderer.scene.flags[flag] = 0
        return np.asarray(self._renderer.render())

    def close(self) -> None:
        """Frees the context."""
        self._free()


class StockRenderer:
    """dm_control's own, with everything on."""

    def __init__(self, physics, camera: int | str, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
        """Draws `camera` (index or name) of a dm_control Physics."""
        self._physics, self._camera, self._height, self._width = physics, camera, height, width
        # dm_control keeps its own books of which OpenGL context is current and draws into another renderer's
        # if one was used in between; a thread of its own keeps them apart.
        self._thread = ThreadPoolExecutor(max_workers=1)

    def render(self) -> NDArray[np.uint8]:
        """See Renderer."""
        return np.asarray(self._thread.submit(self._draw).result())

    def _draw(self) -> NDArray[np.uint8]:
        return np.asarray(self._physics.render(self._height, self._width, camera_id=self._camera))

    def close(self) -> None:
        """Frees the physics and its contexts."""
        self._thread.submit(self._physics.free).result()
        self._thread.shutdown()


def make_renderer(kind: str, physics, camera: int | str, height: int, width: int) -> Renderer:  # type: ignore[no-untyped-def]
    """The renderer called `kind`, "fast" or "stock".

    Raises:
        SimError: unknown kind, or this machine cannot render.
    """
    kinds: dict[str, type[FastRenderer] | type[StockRenderer]] = {"fast": FastRenderer, "stock": StockRenderer}
    if kind not in kinds:
        raise SimError(f"renderer: expected one of {RENDERERS}, got {kind!r}")
    try:
        return kinds[kind](physics, camera, height, width)
    except Exception as error:  # OpenGL's loaders raise many kinds
        raise SimError(f"rendering through {os.environ.get('MUJOCO_GL')} failed ({error}); {INSTALL_HINT}") from error
