"""Noise that belongs to a frame: a function of (seed, absolute frame index, step) alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def frame_noise(
    seed: int, frames: Sequence[int], step: int, shape: tuple[int, int, int], device: torch.device
) -> Tensor:
    """Standard normal (N, c, H, W) for the absolute indices `frames`; `step` counts the draws of one frame.

    Drawn on the CPU, so that every device, clip, segment and machine gives a frame the same noise.
    """
    draws = []
    for frame in frames:
        key = np.random.SeedSequence((seed, frame, step)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(key >> np.uint64(1)))
        draws.append(torch.randn(shape, generator=generator))
    # Waiting for the copy, a card would run out of work.
    return torch.stack(draws).to(device, non_blocking=device.type == "cuda")
