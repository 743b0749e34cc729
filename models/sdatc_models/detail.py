"""How much of what the networks add is kept or raised (ours)."""

import torch.nn.functional as F
from torch import Tensor

from .config import DetailConfig


def coarseness(quantiser: Tensor) -> Tensor:
    """Quantisers (N,) -> 0 up to 28 and where it is not known (NaN), 1 from 38 on, a straight line between."""
    return ((quantiser - 28) / 10).clamp(0, 1).nan_to_num(0.0)


def kept(config: DetailConfig, quantiser: Tensor) -> Tensor:
    """The share (N,) of what diffusion adds to C_HR that frames of some quantisers (N,) keep: `fine` up to 20, all from
    25 on and where it is not known (NaN), a straight line between."""
    return config.fine + (1 - config.fine) * ((quantiser - 20) / 5).clamp(0, 1).nan_to_num(1.0)


def amplify(detail: Tensor, config: DetailConfig, quantiser: Tensor) -> Tensor:
    """Detail (N, 3, H, W) times flat + (textured - flat) a / (a + 0.01), where a is the mean of |detail| around.

    flat, textured = `gain`, the latter times `coarse` ** coarseness(quantiser), `quantiser` (N,). More detail helps
    footage that is full of it and hurts what is smooth, and coarse compression takes more of it away; the card of
    `lite` has the figures.
    """
    (flat, textured), coarse = config.gain, config.coarse
    if flat == textured == coarse == 1:
        return detail
    reach = 8  # the mean is over 17x17 pixels, a few of the small frame's
    padded = F.pad(detail.abs().mean(1, keepdim=True), (reach,) * 4, mode="replicate")
    activity = F.avg_pool2d(F.avg_pool2d(padded, (1, 2 * reach + 1), 1), (2 * reach + 1, 1), 1)
    raised = (textured * coarse ** coarseness(quantiser))[:, None, None, None]
    return detail * (flat + (raised - flat) * activity / (activity + 0.01))
