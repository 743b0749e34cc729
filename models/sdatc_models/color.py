"""Colour correction of restored frames against their low-quality originals (the paper's appendix)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def enlarge(x_lq: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic (N, 3, h, w) -> (N, 3, *size)."""
    return F.interpolate(x_lq, size=size, mode="bicubic", align_corners=False)


def adain(image: Tensor, reference: Tensor) -> Tensor:
    """Give each frame and channel of `image` (N, C, H, W) the mean and spread of the `reference`'s (N, C, h, w).

    Both are compared at half the reference's size (ours), which neither lacks: against a reference without fine detail
    the contrast of a sharp image would be taken down to that of a blurred one.
    """
    size = (reference.shape[-2] // 2, reference.shape[-1] // 2)

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        small = F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)
        return torch.std_mean(small, (2, 3), keepdim=True)

    (std, mean), (wanted_std, wanted_mean) = statistics(image), statistics(reference)
    return (image - mean) / (std + 1e-6) * wanted_std + wanted_mean


def low_pass(image: Tensor, levels: int = 5) -> Tensor:
    """The low band of an a-trous wavelet: `levels` dilated binomial blurs with repeated edges, (N, C, H, W)."""
    channels = image.shape[1]
    tap = (2 - (torch.arange(3, device=image.device) - 1).abs()).to(image.dtype) / 4
    kernel = torch.outer(tap, tap).expand(channels, 1, 3, 3)
    for level in range(levels):
        radius = 2**level
        padded = F.pad(image, (radius,) * 4, mode="replicate")
        image = F.conv2d(padded, kernel, dilation=radius, groups=channels)
    return image


def wavelet(image: Tensor, reference: Tensor) -> Tensor:
    """The high bands of `image` on the low band of `reference`; both (N, C, H, W)."""
    return image - low_pass(image) + low_pass(reference)


def correct(image: Tensor, x_lq: Tensor, method: str) -> Tensor:
    """Apply `method` ("adain" | "wavelet" | "none") to `image` (N, 3, H, W) with `x_lq` (N, 3, h, w) as reference."""
    if method == "none":
        return image
    if method == "adain":
        return adain(image, x_lq)
    return wavelet(image, enlarge(x_lq, (image.shape[-2], image.shape[-1])))
