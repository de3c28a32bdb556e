"""What happens to the rover's camera, its light and its ball in benchmarks/novelty.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim_training.envs.pixel_env import PixelEnv
from sim_training.envs.rendering import make_renderer

Picture = NDArray[np.uint8]  # RGB [H, W, 3], as the camera gives it


class Scene:
    """The simulated room: its lights, the ball's colour and the rover's camera; `restore` undoes everything."""

    def __init__(self, env: PixelEnv) -> None:
        """`env` is of rover/chase_ball."""
        model = env.task.env.physics.model.ptr
        self._camera, self._ball = model.camera(env.task.camera).id, model.material("ball").id
        self._lights = (model.vis.headlight.ambient, model.vis.headlight.diffuse, model.light_diffuse)
        self._colors, self._fovy, self._quat = model.mat_rgba, model.cam_fovy, model.cam_quat
        self._kept = [(array, array.copy()) for array in (*self._lights, self._colors, self._fovy, self._quat)]

    def restore(self) -> None:
        """Puts everything back."""
        for array, before in self._kept:
            array[:] = before

    def light(self, factor: ArrayLike) -> None:
        """Multiplies all lights, by one factor or by one for each colour. The sky shines by itself and stays."""
        for array in self._lights:
            array *= factor

    def ball(self, rgba: ArrayLike) -> None:
        """Paints the ball; alpha 0 hides it."""
        self._colors[self._ball] = rgba

    def field_of_view(self, fovy_deg: float) -> None:
        """Another lens."""
        self._fovy[self._camera] = fovy_deg

    def tilt(self, up_deg: float) -> None:
        """A camera mount that has turned."""
        import mujoco  # which reads MUJOCO_GL when first imported, and tasks sets that

        turn, turned = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, np.array([1.0, 0.0, 0.0]), np.deg2rad(up_deg))
        mujoco.mju_mulQuat(turned, self._quat[self._camera], turn)
        self._quat[self._camera] = turned


@dataclass(frozen=True)
class Disturbance:
    """Something that begins in the middle of an episode: in the scene, once, or in every picture from then on.

    shown: whether it stands on the sheet of pictures.
    """

    group: str
    name: str
    scene: Callable[[Scene], None] | None = None
    picture: Callable[[Picture], Picture] | None = None
    shown: bool = False


NOTHING = Disturbance("nothing", "nothing", shown=True)


@contextmanager
def disturbances(env: PixelEnv) -> Iterator[list[Disturbance]]:
    """All of them, NOTHING first, for this environment; a context, as two of them draw with cameras of their own."""
    with ExitStack() as stack:
        yield [NOTHING, *_light(), *_covers(), *_cameras(env, stack), *_blurs(), *_balls()]


def _light() -> list[Disturbance]:
    lamps: dict[str, ArrayLike] = {f"lamps ×{factor:g}": factor for factor in (0.25, 0.5, 0.75, 0.9, 1.5)}
    lamps |= {"warm lamps (1, 0.75, 0.5)": (1.0, 0.75, 0.5), "cold lamps (0.5, 0.75, 1)": (0.5, 0.75, 1.0)}
    shown = ("lamps ×0.5", "lamps ×1.5", "warm lamps (1, 0.75, 0.5)")
    return [
        *(Disturbance("light", n, scene=lambda s, f=f: s.light(f), shown=n in shown) for n, f in lamps.items()),
        *(Disturbance("light", f"exposure ×{f:g}", picture=_gain(f), shown=f == 0.5) for f in (0.5, 0.9, 1.1, 1.5)),
    ]


def _covers() -> list[Disturbance]:
    def film(picture: Picture) -> Picture:
        return cv2.addWeighted(cv2.GaussianBlur(picture, (0, 0), 12), 0.5, np.full_like(picture, 160), 0.5, 0)

    def half(picture: Picture) -> Picture:
        covered = picture.copy()
        covered[:, picture.shape[1] // 2 :] = 0
        return covered

    return [
        Disturbance("cover", "black", picture=_uniform((0, 0, 0)), shown=True),
        Disturbance("cover", "dark, with the sensor's noise", picture=_noise(3)),
        Disturbance("cover", "grey, with the sensor's noise", picture=_noise(128), shown=True),
        Disturbance("cover", "white (glare)", picture=_uniform((255, 255, 255))),
        Disturbance("cover", "red cloth", picture=_uniform((120, 10, 10))),
        Disturbance("cover", "translucent film", picture=film, shown=True),
        Disturbance("cover", "right half black", picture=half, shown=True),
    ]


def _cameras(env: PixelEnv, stack: ExitStack) -> list[Disturbance]:
    height, width, _ = env.camera_image.shape
    room = make_renderer("fast", env.task.env.physics, "overview", height, width)
    stack.callback(room.close)
    other = PixelEnv("cheetah/run", height=height, width=width)
    stack.callback(other.close)
    other.reset(seed=0)
    other.action_space.seed(0)

    def elsewhere(_: Picture) -> Picture:
        if other.step(other.action_space.sample())[3]:
            other.reset(seed=0)
        return other.camera_image

    return [
        Disturbance("camera", "overlooks the room", picture=lambda _: room.render(), shown=True),
        Disturbance("camera", "another robot's", picture=elsewhere, shown=True),
        Disturbance("camera", "upside down", picture=lambda picture: picture[::-1, ::-1], shown=True),
        Disturbance("camera", "mirrored", picture=lambda picture: picture[:, ::-1], shown=True),
        Disturbance("camera", "red and blue swapped", picture=lambda picture: picture[:, :, ::-1], shown=True),
        *(
            Disturbance("camera", f"{fovy:g}° instead of 75°", scene=lambda s, f=fovy: s.field_of_view(f))
            for fovy in (45.0, 60.0, 90.0, 100.0)
        ),
        *(
            Disturbance("camera", f"tilted {abs(up):g}° {'up' if up > 0 else 'down'}", scene=lambda s, u=up: s.tilt(u))
            for up in (5.0, 15.0, -5.0, -15.0)
        ),
    ]


def _blurs() -> list[Disturbance]:
    def blur(sigma: float) -> Callable[[Picture], Picture]:
        return lambda picture: cv2.GaussianBlur(picture, (0, 0), sigma)

    return [
        Disturbance("blur", f"σ = {sigma:g} of 128 px", picture=blur(sigma), shown=sigma in (2, 4))
        for sigma in (1, 2, 4, 8)
    ]


def _balls() -> list[Disturbance]:
    colors = {
        "blue": (0.08, 0.08, 0.85, 1),
        "green": (0.08, 0.7, 0.08, 1),
        "yellow": (0.85, 0.85, 0.08, 1),
        "white": (0.9, 0.9, 0.9, 1),
        "invisible": (0, 0, 0, 0),
    }
    shown = ("blue", "invisible")
    return [
        Disturbance("ball", name, scene=lambda s, c=color: s.ball(c), shown=name in shown)
        for name, color in colors.items()
    ]


def _gain(factor: float) -> Callable[[Picture], Picture]:
    return lambda picture: cv2.convertScaleAbs(picture, alpha=factor)


def _uniform(color: tuple[int, int, int]) -> Callable[[Picture], Picture]:
    return lambda picture: np.full_like(picture, color)


def _noise(level: int, sd: float = 2.0) -> Callable[[Picture], Picture]:
    rng = np.random.default_rng(0)
    return lambda picture: np.clip(rng.normal(level, sd, picture.shape), 0, 255).astype(np.uint8)
