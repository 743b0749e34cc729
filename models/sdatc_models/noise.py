"""Noise that belongs to a frame: a function of (seed, absolute frame index, step) alone."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from .sending import sent


def frame_noise(
    seed: int, frames: Sequence[int], step: int, shape: tuple[int, int, int], device: torch.device
) -> Tensor:
    """Standard normal (N, c, H, W) for the absolute indices `frames`; `step` counts the draws of one frame.

    Drawn on the CPU, so that every device, clip, segment and machine gives a frame the same noise.
    """

    def draw(frame: int) -> Tensor:
        key = np.random.SeedSequence((seed, frame, step)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(key >> np.uint64(1)))
        return torch.randn(shape, generator=generator)

    if len(frames) == 1:
        return sent(draw(frames[0])[None], device)
    with ThreadPoolExecutor(len(frames)) as pool:  # a card would wait for one thread
        return sent(torch.stack(list(pool.map(draw, frames))), device)
