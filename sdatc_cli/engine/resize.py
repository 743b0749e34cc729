"""Reduction by a Lanczos kernel, for the scales between the input's and the network's."""

import numpy as np
import torch
from torch import Tensor

LOBES = 3


def lanczos_matrix(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in) float32 weights that reduce a line of n_in pixels to n_out <= n_in; each row sums to one.

    The kernel is widened by n_in / n_out, so that nothing above the new Nyquist frequency is left to alias.
    """
    ratio = n_in / n_out
    centres = (np.arange(n_out)[:, None] + 0.5) * ratio
    distance = (np.arange(n_in)[None] + 0.5 - centres) / ratio
    weights = np.where(np.abs(distance) < LOBES, np.sinc(distance) * np.sinc(distance / LOBES), 0.0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def reduce(images: Tensor, height: int, width: int) -> Tensor:
    """(N, 3, H, W) in [0, 1] -> (N, 3, height, width) in [0, 1]; the same tensor when the size is already right."""
    if images.shape[-2:] == (height, width):
        return images
    rows = torch.from_numpy(lanczos_matrix(images.shape[-2], height)).to(images)
    columns = torch.from_numpy(lanczos_matrix(images.shape[-1], width)).to(images)
    return (rows @ images @ columns.T).clamp(0, 1)
