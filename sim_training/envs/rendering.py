"""Camera images from MuJoCo, fast enough for a CPU.

dm_control's own renderer spends its time on a 4096 x 4096 shadow map, multisampling and reflections; without them
small images come out 15 to 25 times faster and hardly change. `stock` keeps dm_control's.
"""

from __future__ import annotations

import atexit
import ctypes.util
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sac_ae_ros.core.errors import SimError, quote

INSTALL_HINT = "install Debian's libegl1 and libgl1-mesa-dri (or libosmesa6)"
UNSET_HINT = "unset MUJOCO_GL, and what draws here without a display is chosen"
LIBRARIES = {
    "egl": ("EGL", "libegl1 and libgl1-mesa-dri"),
    "osmesa": ("OSMesa", "libosmesa6"),
}  # the first is preferred
ON_DISPLAY = ("glfw", "on", "enable", "enabled", "true", "1")
NO_RENDERING = ("off", "disable", "disabled", "false", "0")
RENDERERS = ("fast", "stock")
MAX_GEOMS = 10_000  # that a scene has room for


def choose_backend() -> str:
    """Sets MUJOCO_GL unless the user did; must run before mujoco is first imported.

    Raises:
        SimError: MUJOCO_GL names nothing that could draw here, or this machine has neither EGL nor OSMesa.
    """
    if not os.environ.get("MUJOCO_GL"):
        found = [name for name in LIBRARIES if _has_library(name)]
        if not found:
            raise SimError(f"rendering: expected EGL or OSMesa on this machine, found neither; {INSTALL_HINT}")
        os.environ["MUJOCO_GL"] = found[0]
    _require_usable(os.environ["MUJOCO_GL"])
    return os.environ["MUJOCO_GL"]


def _require_usable(backend: str) -> None:
    """What mujoco and dm_control would end with a traceback for, when they are imported or asked to draw."""
    if backend not in (*LIBRARIES, *ON_DISPLAY, *NO_RENDERING):
        raise SimError(f"rendering: expected MUJOCO_GL to be egl, osmesa or glfw, got {quote(backend)}; {UNSET_HINT}")
    if backend in ON_DISPLAY and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SimError(f"rendering: MUJOCO_GL={backend} expects a display, DISPLAY is not set; {UNSET_HINT}")
    if backend in LIBRARIES and not _has_library(backend):
        library, package = LIBRARIES[backend]
        raise SimError(
            f"rendering: MUJOCO_GL={backend} expects lib{library} on this machine, found none; install Debian's"
            f" {package}, or unset MUJOCO_GL"
        )
    platform = os.environ.get("PYOPENGL_PLATFORM")
    if backend in LIBRARIES and platform and platform != backend:
        raise SimError(
            f"rendering: expected PYOPENGL_PLATFORM to be {backend} as MUJOCO_GL, got {quote(platform)}; unset it"
        )


def _has_library(backend: str) -> bool:
    return ctypes.util.find_library(LIBRARIES[backend][0]) is not None


class Renderer(Protocol):
    """Draws one camera of one physics."""

    def render(self) -> NDArray[np.uint8]:
        """The picture of this moment, uint8 RGB [height, width, 3]."""

    def restart(self) -> None:
        """An episode starts: what its reset changed in the model is to be seen."""

    def close(self) -> None:
        """Frees the OpenGL context."""


class FastRenderer:
    """Without shadow map, multisampling and reflections, into a buffer of the image's own size."""

    def __init__(self, physics, camera: int | str, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
        """Draws `camera` (index or name) of a dm_control Physics; changes the model's visual settings."""
        import mujoco

        self._mujoco, self._physics, self._model = mujoco, physics, physics.model.ptr
        self._model.vis.quality.shadowsize = 0
        self._model.vis.quality.offsamples = 0
        self._model.vis.global_.offheight, self._model.vis.global_.offwidth = height, width
        self._camera, self._option = mujoco.MjvCamera(), mujoco.MjvOption()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, self._model.camera(camera).id
        self._area, self._pixels = mujoco.MjrRect(0, 0, width, height), np.empty((height, width, 3), np.uint8)
        self._scene = mujoco.MjvScene(self._model, maxgeom=MAX_GEOMS)
        # mujoco.Renderer's close would free its objects' numbers in whichever context is current, and so break another
        # renderer's pictures; hence a context of our own.
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._free = weakref.finalize(self, _free, self._gl, self._context)
        self._free.atexit = False
        atexit.register(self._free)  # comes before mujoco's own end of EGL, which finalize's might not

    def render(self) -> NDArray[np.uint8]:
        """See Renderer."""
        mujoco = self._mujoco
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._physics.data.ptr, self._option, None, self._camera, everything, self._scene
        )
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0  # mjv_updateScene sets them again
        self._gl.make_current()
        mujoco.mjr_render(self._area, self._scene, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._area, self._context)
        return np.flipud(self._pixels).copy()  # OpenGL's first row is the lowest

    def restart(self) -> None:
        """See Renderer: terrain is drawn from a copy that the context has."""
        self._gl.make_current()
        for terrain in range(self._model.nhfield):
            self._mujoco.mjr_uploadHField(self._model, self._context, terrain)

    def close(self) -> None:
        """Frees the context."""
        atexit.unregister(self._free)
        self._free()


def _free(gl, context) -> None:  # type: ignore[no-untyped-def]
    gl.make_current()
    context.free()
    gl.free()


class StockRenderer:
    """dm_control's own, with everything on."""

    def __init__(self, physics, camera: int | str, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
        """Draws `camera` (index or name) of a dm_control Physics."""
        self._physics, self._camera, self._height, self._width = physics, camera, height, width
        # dm_control keeps its own books of which OpenGL context is current and draws into another renderer's
        # if one was used in between; a thread of its own keeps them apart.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._closed = False

    def render(self) -> NDArray[np.uint8]:
        """See Renderer."""
        return np.asarray(self._thread.submit(self._draw).result())

    def restart(self) -> None:
        """See Renderer; there is nothing to do, as make_renderer keeps tasks with terrain out."""

    def _draw(self) -> NDArray[np.uint8]:
        return np.asarray(self._physics.render(self._height, self._width, camera_id=self._camera))

    def close(self) -> None:
        """Frees the physics and its contexts."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._physics.free).result()
            self._thread.shutdown()


def make_renderer(kind: str, physics, camera: int | str, height: int, width: int) -> Renderer:  # type: ignore[no-untyped-def]
    """The renderer called `kind`, "fast" or "stock".

    Raises:
        SimError: unknown kind, stock for a task with terrain, or this machine cannot render.
    """
    kinds: dict[str, type[FastRenderer] | type[StockRenderer]] = {"fast": FastRenderer, "stock": StockRenderer}
    if kind not in kinds:
        raise SimError(f"renderer: expected one of {RENDERERS}, got {kind!r}")
    if kind == "stock" and physics.model.nhfield:
        raise SimError("renderer: expected fast for a task with terrain, got 'stock'; choose fast")
    backend = os.environ.get("MUJOCO_GL", "")
    if backend in NO_RENDERING:
        raise SimError(f"rendering: MUJOCO_GL={backend} turns it off; {UNSET_HINT}")
    try:
        return kinds[kind](physics, camera, height, width)
    except Exception as error:  # OpenGL's loaders raise many kinds
        hint = INSTALL_HINT if backend in LIBRARIES else f"is the display there? Else {UNSET_HINT}"
        raise SimError(f"rendering through {backend} failed ({error}); {hint}") from error
