"""Prompt-based compression-aware module (PCAM), eqs. (7) and (8)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import PCAMConfig
from .layers import zero_init


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (N, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def unit(x: Tensor) -> Tensor:
    """x divided by its length along the last axis; nothing stays nothing in half precision too, in which 1e-12 is 0."""
    return F.normalize(x, dim=-1, eps=1e-6)


class ChannelAttention(nn.Module):
    """Restormer's MDTA (Zamir et al., 2022): attention between channels, so its cost is linear in pixels."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, channels * 3, 1)
        self.local = nn.Conv2d(channels * 3, channels * 3, 3, padding=1, groups=channels * 3)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        q, k, v = rearrange(self.local(self.qkv(x)), "n (three a c) h w -> three n a c (h w)", three=3, a=self.heads)
        weights = (unit(q) @ unit(k).mT * self.temperature).softmax(-1)
        return self.project(rearrange(weights @ v, "n a c (h w) -> n (a c) h w", h=height))


class GatedFeedForward(nn.Module):
    """Restormer's GDFN: one half gates the other."""

    def __init__(self, channels: int, expansion: float):
        super().__init__()
        hidden = int(channels * expansion)
        self.inner = nn.Conv2d(channels, hidden * 2, 1)
        self.local = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2)
        self.project = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.local(self.inner(x)).chunk(2, 1)
        return self.project(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward with residuals; zero output projections make a new one the identity."""

    def __init__(self, channels: int, heads: int, expansion: float):
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.attention = ChannelAttention(channels, heads)
        self.feed_forward = GatedFeedForward(channels, expansion)
        zero_init(self.attention.project, self.feed_forward.project)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class PCAM(nn.Module):
    """Weighs K prompts by what the features say of their compression and mixes them in. A new one is the identity.

    `kind` of the config: "pcam" is the paper's; "softmax" normalises v (Table 3, +Softmax); "prompt" takes v from the
    average feature by a linear map (+Prompt); "none" leaves the features alone (baseline).
    """

    idle = False  # see untrained.pass_over_identities

    def __init__(self, channels: int, config: PCAMConfig):
        super().__init__()
        self.kind = config.kind
        if self.kind == "none":
            return
        width = channels // 2
        self.prompts = nn.Parameter(torch.rand(config.length, width, config.size, config.size))
        self.weigh = nn.Linear(channels, config.length) if self.kind == "prompt" else None
        self.estimate = nn.Conv2d(channels, config.length, 3, padding=1) if self.kind != "prompt" else None
        self.conv_prompt = nn.Conv2d(width, width, 3, padding=1)
        self.transformer = TransformerBlock(channels + width, config.heads, config.expansion)
        self.conv_out = nn.Conv2d(channels + width, channels, 3, padding=1)
        zero_init(self.conv_out)
        nn.init.dirac_(self.conv_out.weight)  # the delta kernel on Z; the prompt's channels start at zero

    def prompt_weights(self, z: Tensor) -> Tensor:
        """v of eq. (7), (N, K): AAP(Conv3x3(Z))."""
        if self.weigh is not None:
            return self.weigh(z.mean((2, 3)))
        assert self.estimate is not None
        v = F.adaptive_avg_pool2d(self.estimate(z), 1).flatten(1)
        return v.softmax(1) if self.kind == "softmax" else v

    def prompt(self, z: Tensor) -> Tensor:
        """P_C of eq. (7), (N, C / 2, H, W): the weighted sum of the prompts, enlarged to Z's size."""
        p = torch.einsum("nk,kchw->nchw", self.prompt_weights(z), self.prompts)
        return self.conv_prompt(F.interpolate(p, size=z.shape[-2:], mode="bilinear", align_corners=False))

    def forward(self, z: Tensor) -> Tensor:
        """Z (N, C, H, W) -> Z_C of eq. (8), same shape."""
        if self.kind == "none" or self.idle:
            return z
        return self.conv_out(self.transformer(torch.cat([z, self.prompt(z)], 1)))
