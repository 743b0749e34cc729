"""Run a function over overlapping tiles of a large frame and blend the results with Gaussian weights."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ALIGN = 8  # LR pixels: frames are padded to multiples of it
STEP = 16  # LR pixels: sizes of tiles, so that every scale of the largest network divides them


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along an axis: every `tile` - `overlap`, the last one flush with the end."""
    if tile >= length:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def blend_weight(size: int, device: torch.device) -> Tensor:
    """A Gaussian over `size` pixels, never zero, so that every pixel is covered.

    Sigma is an eighth of `size`: where a tile ends its neighbour outweighs it some hundred times, so no step shows.
    """
    at = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size - 0.5
    return torch.exp(-0.5 * (at / 0.125) ** 2)


def tiled(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], scales: Sequence[float], scale: float, tile: int | None
) -> Tensor:
    """`function` applied to `inputs`, by tiles when `tile` (LR pixels) is smaller than the frame.

    Each input (N, C, H_i, W_i) lies on a grid `scales[i]` times the LR grid, the output on one `scale` times it. LR
    sizes are multiples of ALIGN; tiles become multiples of STEP. The weights of all tiles at a pixel are divided by
    their sum, so they add up to one.
    """
    height, width = (round(edge / scales[0]) for edge in inputs[0].shape[-2:])
    if tile is None or (tile >= height and tile >= width):
        return function(*inputs)
    tile = max(STEP * 2, tile // STEP * STEP)
    overlap = max(STEP, tile // 4 // STEP * STEP)
    size_y, size_x = min(tile, height), min(tile, width)
    total = weight_sum = None
    for y in starts(height, size_y, overlap):
        for x in starts(width, size_x, overlap):
            pieces = [
                image[..., round(y * s) : round((y + size_y) * s), round(x * s) : round((x + size_x) * s)]
                for image, s in zip(inputs, scales, strict=True)
            ]
            piece = function(*pieces).float()
            weight = torch.outer(*(blend_weight(edge, piece.device) for edge in piece.shape[-2:]))
            if total is None or weight_sum is None:
                full = (round(height * scale), round(width * scale))
                total = piece.new_zeros(*piece.shape[:2], *full)
                weight_sum = piece.new_zeros(full)
            where = (..., slice(round(y * scale), round((y + size_y) * scale)))
            where = (*where, slice(round(x * scale), round((x + size_x) * scale)))
            total[where] += piece * weight
            weight_sum[where] += weight
    assert total is not None and weight_sum is not None
    return total / weight_sum
