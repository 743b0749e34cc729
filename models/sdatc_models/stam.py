"""Spatio-temporal attention module (STAM), eqs. (10) and (11), between the residual blocks of a decoder scale."""

import torch
from einops import rearrange
from torch import Tensor, nn

from .layers import attention


class TemporalAttention(nn.Module):
    """Self-attention over the N frames of a clip, for each pixel by itself."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, channels * 3)
        self.project = nn.Linear(channels, channels)

    def forward(self, z: Tensor, frames: int) -> Tensor:
        """(B * N, C, H, W) -> same shape."""
        height = z.shape[2]
        tokens = rearrange(z, "(b n) c h w -> (b h w) n c", n=frames)
        q, k, v = rearrange(self.qkv(self.norm(tokens)), "b n (three a d) -> three b a n d", three=3, a=self.heads)
        out = attention(q, k, v)
        out = self.project(rearrange(out, "b a n d -> b n (a d)"))
        return rearrange(out, "(b h w) n c -> (b n) c h w", h=height, b=z.shape[0] // frames).contiguous()


class STAM(nn.Module):
    """Blends a temporal convolution by alpha_T and temporal attention by beta_T.

    Both tensors have one value a channel and start at zero, where the module is exactly the identity.
    """

    idle = False  # see untrained.pass_over_identities

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.conv3d = nn.Conv3d(channels, channels, 3, padding=1)
        self.attention = TemporalAttention(channels, heads)
        self.alpha_t = nn.Parameter(torch.zeros(channels, 1, 1))
        self.beta_t = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, z: Tensor, frames: int) -> Tensor:
        """Z'_0 (B * N, C, H, W), N = `frames` -> beta_T TA(Z''_0) + (1 - beta_T) Z''_0, same shape."""
        if self.idle:
            return z
        video = rearrange(z, "(b n) c h w -> b c n h w", n=frames)
        mixed = rearrange(self.conv3d(video), "b c n h w -> (b n) c h w")
        z = self.alpha_t * mixed + (1 - self.alpha_t) * z  # eq. (10)
        return self.beta_t * self.attention(z, frames) + (1 - self.beta_t) * z  # eq. (11)
