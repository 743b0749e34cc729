"""Small helpers on layers that several networks share."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AT_ONCE = 65_535  # CUDA counts no further in the direction in which PyTorch 2.6 and 2.7 lay the batch


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of q, k, v (B, heads, N, D), B as large as it may be, with a `bias` (1 or B, heads,
    N, N) added to the products."""
    parts = []
    for first in range(0, len(q), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        own = bias if bias is None or len(bias) == 1 else bias[part]
        parts.append(F.scaled_dot_product_attention(q[part], k[part], v[part], attn_mask=own))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def unrounded(device: torch.device) -> AbstractContextManager:
    """A context that autocast does not reach, on devices that have it."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def zero_init(*layers: nn.Module) -> None:
    """Set every parameter of `layers` to zero, so that what they add is nothing at first."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def sublayers(block: nn.Module, name: str) -> list[nn.Module]:
    """The modules in the list `name` of a diffusers block ("resnets", "upsamplers", ...), none where it has no list."""
    return list(getattr(block, name) or ())
