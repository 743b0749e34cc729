"""Distortion control module (DCM), eq. (5): x_HR = Up(RSTB(Conv3x3(x_LQ))).

The transformer blocks are those of SwinIR (Liang et al., 2021): attention inside 8x8 windows, every second layer
shifted by half a window, a convolution at the end of each block and a long skip around the body.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import DCMConfig
from .layers import attention, zero_init
from .padding import pad_to_multiple

TOLD = (10.0, 45.0)  # the range of quantisers in training; what lies beyond is taken for its end


def window_partition(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) with H, W multiples of `window` -> (B * windows, window**2, C)."""
    return rearrange(x, "b (y p) (x q) c -> (b y x) (p q) c", p=window, q=window)


def window_merge(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Inverse of `window_partition`."""
    y, x = height // window, width // window
    return rearrange(windows, "(b y x) (p q) c -> b (y p) (x q) c", y=y, x=x, p=window, q=window)


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Additive mask (windows, window**2, window**2): pixels that meet only through the cyclic shift do not attend."""

    def bands(size: int) -> Tensor:
        position = torch.arange(size, device=device)
        return (position >= size - window).long() + (position >= size - shift).long()

    region = bands(height)[:, None] * 3 + bands(width)[None, :]
    windows = window_partition(region[None, :, :, None], window)[..., 0]
    apart = windows[:, :, None] != windows[:, None, :]
    return torch.zeros(apart.shape, device=device).masked_fill(apart, float("-inf"))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias per relative position."""

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.relative_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_bias, std=0.02)
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offset = at[:, :, None] - at[:, None, :] + window - 1
        self.register_buffer("offset_index", offset[0] * (2 * window - 1) + offset[1], persistent=False)
        self.offset_index: Tensor

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B * windows, window**2, C), mask (windows, window**2, window**2) or None -> the shape of x."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        # Contiguous: a card's fast kernels refuse any other bias, and PyTorch then takes its slow one without a word.
        bias = self.relative_bias[self.offset_index].permute(2, 0, 1)[None].contiguous()
        if mask is not None:
            # In the format of q before it is repeated: half the memory where that is bf16.
            bias = (bias + mask[:, None]).to(q.dtype).repeat(x.shape[0] // mask.shape[0], 1, 1, 1)
        out = attention(q, k, v, bias.to(q.dtype))
        return self.proj(rearrange(out, "b h n d -> b n (h d)"))


class SwinLayer(nn.Module):
    """One Swin transformer layer: window attention and an MLP, each with a residual and a pre-norm."""

    def __init__(self, dim: int, heads: int, window: int, shift: int, mlp_ratio: float):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, heads, window)
        hidden = int(dim * mlp_ratio)
        project = nn.Linear(hidden, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), project)
        zero_init(self.attention.proj, project)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, H, W, C); mask from `shift_mask`, used by the shifted layers."""
        height, width = x.shape[1:3]
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        windows = self.attention(window_partition(y, self.window), mask if self.shift else None)
        y = window_merge(windows, self.window, height, width)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


def quantiser_code(quantiser: Tensor) -> Tensor:
    """Quantisers (N,) from 0 to 51 -> what Modulation takes, (N, 3): 1, u and u**2, or zeros for NaN, not known."""
    u = (quantiser.clamp(*TOLD) - 28) / 12
    code = torch.stack([torch.ones_like(u), u, u**2], 1)
    return code.where(quantiser.isfinite()[:, None], 0.0)


class Modulation(nn.Module):
    """Scales and shifts features by polynomials of the quantiser (ours), as FiLM (Perez et al., 2018) does.

    Where it is not known the features stay as they are; so they do at first.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.terms = nn.Linear(3, 2 * dim, bias=False)
        zero_init(self.terms)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x (N, C, H, W), code (N, 3) of `quantiser_code` -> the shape of x."""
        scale, shift = self.terms(code)[..., None, None].chunk(2, 1)
        return torch.addcmul(shift, x, 1 + scale)  # one pass over memory; a product and a sum take two


class ConvPair(nn.Module):
    """Two 3x3 convolutions with a residual; a modulation between them where the network is told the quantiser."""

    def __init__(self, dim: int, inside: int, told: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, inside, 3, padding=1)
        self.conv2 = nn.Conv2d(inside, dim, 3, padding=1)
        self.modulation = Modulation(inside) if told else None

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """x (B, C, H, W), code of `quantiser_code` -> the shape of x."""
        y = self.conv1(x)
        if self.modulation is not None:
            y = self.modulation(y, code)
        return x + self.conv2(F.leaky_relu(y, 0.1, inplace=True))


class RSTB(nn.Module):
    """Residual Swin transformer block: Swin layers, then pairs of convolutions, each with its own residual.

    Layers start as the identity (ours): a young network learns as fast as a convolutional one, several times faster
    than SwinIR's, and attention joins when it helps.
    """

    def __init__(self, config: DCMConfig, index: int):
        """`index` of the block: shifted layers alternate with plain ones across blocks too."""
        super().__init__()
        first, half = index * config.layers, config.window // 2
        self.layers = nn.ModuleList(
            SwinLayer(config.dim, config.heads, config.window, (first + i) % 2 * half, config.mlp_ratio)
            for i in range(config.layers)
        )
        inside = config.dim * config.expansion
        self.pairs = nn.ModuleList(ConvPair(config.dim, inside, config.quantiser) for _ in range(config.pairs))

    def forward(self, x: Tensor, mask: Tensor, code: Tensor) -> Tensor:
        """x (B, H, W, C), mask of `shift_mask`, code of `quantiser_code` -> the shape of x."""
        for layer in self.layers:
            x = layer(x, mask)
        x = x.permute(0, 3, 1, 2)
        for pair in self.pairs:
            x = pair(x, code)
        return x.permute(0, 2, 3, 1)


class DCM(nn.Module):
    """Removes compression damage and enlarges four times.

    A bicubic skip around everything (ours) and a zero last convolution make the untrained module exactly bicubic,
    which is also what the ablation `enabled=False` is.
    """

    scale = 4

    def __init__(self, config: DCMConfig):
        super().__init__()
        self.config = config
        if not config.enabled:
            return
        self.conv_first = nn.Conv2d(3, config.dim, 3, padding=1)
        self.blocks = nn.ModuleList(RSTB(config, i) for i in range(config.blocks))
        self.conv_body = nn.Conv2d(config.dim, config.dim, 3, padding=1)
        self.conv_up = nn.Conv2d(config.dim, config.up_dim * 16, 3, padding=1)
        self.up = nn.PixelShuffle(self.scale)
        self.modulation = Modulation(config.up_dim) if config.quantiser else None
        self.conv_last = nn.Conv2d(config.up_dim, 3, 3, padding=1)
        zero_init(self.conv_last)

    def forward(self, x_lq: Tensor, quantiser: Tensor | None = None, mirror: bool = True) -> Tensor:
        """x_LQ (N, 3, h, w) RGB in [0, 1] -> x_HR (N, 3, 4h, 4w), not clamped, in the number format of x_LQ.

        `quantiser` (N,): the codec's on H.264's scale, 0 to 51, NaN or None where it is not known. Where the
        config says so, the detail is the mean of what is made of the frames and of their mirror images; not so without
        `mirror` here, which takes half the time, and is what training sees.
        """
        bicubic = self._bicubic(x_lq)
        if not self.config.enabled:
            return bicubic
        if quantiser is None:
            quantiser = x_lq.new_full(x_lq.shape[:1], torch.nan)
        detail = self._detail(x_lq, quantiser)
        if self.config.mirror and mirror:
            detail = (detail + self._detail(x_lq.flip(-1), quantiser).flip(-1)) / 2
        return bicubic + detail.to(bicubic.dtype)

    def _bicubic(self, x_lq: Tensor) -> Tensor:
        """In the format of x_LQ: weights in half precision round the detail, not the picture."""
        return F.interpolate(x_lq, scale_factor=self.scale, mode="bicubic", align_corners=False)

    def _detail(self, x_lq: Tensor, quantiser: Tensor) -> Tensor:
        """What is added to the bicubic enlargement, (N, 3, 4h, 4w), in the format of the weights."""
        code = quantiser_code(quantiser.float()).to(self.conv_first.weight.dtype)
        height, width = (edge * self.scale for edge in x_lq.shape[-2:])
        x = pad_to_multiple(x_lq, self.config.window) - 0.5
        shallow = self.conv_first(x.to(self.conv_first.weight.dtype))
        mask = shift_mask(x.shape[-2], x.shape[-1], self.config.window, self.config.window // 2, x.device)
        body = shallow.permute(0, 2, 3, 1)
        for block in self.blocks:
            body = block(body, mask, code)
        body = self.conv_body(body.permute(0, 3, 1, 2)) + shallow
        fine = self.up(self.conv_up(body))
        if self.modulation is not None:
            fine = self.modulation(fine, code)
        return self.conv_last(F.leaky_relu(fine, 0.1, inplace=True))[..., :height, :width]
