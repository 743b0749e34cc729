"""Reduction by a Lanczos kernel, for the scales between the input's and the network's."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

LOBES = 3
BAND = 64  # rows of a matrix that are multiplied at once

# (from, to, weights): pixels [from, to) of a line give the next pixels of the reduced one.
Bands = tuple[tuple[int, int, Tensor], ...]


def lanczos_matrix(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in) float32 weights that reduce a line of n_in pixels to n_out <= n_in; each row sums to one.

    The kernel is widened by n_in / n_out, so that nothing above the new Nyquist frequency is left to alias.
    """
    ratio = n_in / n_out
    centres = (np.arange(n_out)[:, None] + 0.5) * ratio
    distance = (np.arange(n_in)[None] + 0.5 - centres) / ratio
    weights = np.where(np.abs(distance) < LOBES, np.sinc(distance) * np.sinc(distance / LOBES), 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=8)
def lanczos_bands(n_in: int, n_out: int, device: torch.device, dtype: torch.dtype) -> Bands:
    """`lanczos_matrix` in bands of BAND rows, each without the columns that are zero in it, which are nearly all.

    Kept, for every clip of a video asks for the same.
    """
    bands = []
    for rows in np.split(lanczos_matrix(n_in, n_out), range(BAND, n_out, BAND)):
        used = np.flatnonzero(rows.any(0))
        start, stop = int(used[0]), int(used[-1]) + 1
        bands.append((start, stop, torch.from_numpy(rows[:, start:stop].copy()).to(device, dtype)))
    return tuple(bands)


def reduce(images: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 3, height, width) in [0, 1]; the same tensor when the size is already right."""
    if images.shape[-2:] == (height, width):
        return images
    rows = lanczos_bands(images.shape[-2], height, images.device, images.dtype)
    columns = lanczos_bands(images.shape[-1], width, images.device, images.dtype)
    images = torch.cat([weights @ images[..., start:stop, :] for start, stop, weights in rows], -2)
    return torch.cat([images[..., start:stop] @ weights.T for start, stop, weights in columns], -1).clamp(0, 1)
