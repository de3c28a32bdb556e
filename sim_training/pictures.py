"""What the autoencoder sees, as a small picture for each evaluation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from sim_training.agent import SacAeAgent


def draw_reconstructions(agent: SacAeAgent, stacks: NDArray[np.uint8], out: Path) -> NDArray[np.uint8]:
    """Newest frames of these stacks, uint8 [B, 3K, H, W], above what the autoencoder makes of them.

    Writes a PNG and returns the same picture, uint8 RGB [2H, B W, 3].
    """
    rows = [np.concatenate(list(pictures[:, -3:]), 2) for pictures in (stacks, agent.reconstruct(stacks))]
    picture = np.concatenate(rows, 1).transpose(1, 2, 0)
    out.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(out), picture[..., ::-1])
    return picture
