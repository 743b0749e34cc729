"""Controllable feature warping (CFW), eq. (12), after StableSR (Wang et al., 2024)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from .layers import zero_init


class CFW(nn.Module):
    """Res = CFW(F_e, F_d): what the encoder's features of x_HR add to the decoder's. Starts at zero."""

    idle = False  # see untrained.pass_over_identities

    def __init__(self, channels: int):
        super().__init__()
        self.fuse = nn.Conv2d(channels * 2, channels, 3, padding=1)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        zero_init(self.out)

    def forward(self, f_e: Tensor, f_d: Tensor) -> Tensor:
        """F_e, F_d (N, C, H, W) -> residual of the same shape."""
        fused = self.fuse(torch.cat([f_e, f_d], 1))
        return self.out(silu(fused + self.inner(silu(fused))))
