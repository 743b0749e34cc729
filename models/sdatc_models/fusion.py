"""The frames of a clip learn from each other (ours), as STAM, which sees each place by itself, cannot in motion.

Nothing here is trained. Every restored frame is compared with the others, brought onto it along the optical flow. Their
mean, where they agree, is nearer to the truth but softer, so the frame takes the coarse part of it alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import resample, warp

LIKENESS = 0.06  # frames that differ by this much, in the mean of 9x9 pixels, weigh 1/e
COARSE = 1.5  # pixels: the deviation of the Gaussian that passes the coarse part


def blur(image: Tensor, deviation: float) -> Tensor:
    """A Gaussian over (N, C, H, W) with repeated edges."""
    reach = round(3 * deviation)
    at = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    across = F.conv2d(padded, kernel, groups=image.shape[1])
    return F.conv2d(across, kernel.transpose(2, 3), groups=image.shape[1])


def agreement(image: Tensor, near: Tensor, motion: Tensor) -> Tensor:
    """The mean (1, 3, H, W) of a frame (1, 3, H, W) and the K others of its clip (K, 3, H, W), where they agree.

    `motion` (K, 2, h, w) leads from the frame to the others, on a grid of its own.
    """
    aligned = warp(near, resample(motion, image.shape[-2], image.shape[-1]))
    apart = (aligned - image).abs().mean(1, keepdim=True)
    apart = F.avg_pool2d(F.pad(apart, (4,) * 4, mode="replicate"), 9, 1)
    weight = torch.exp(-((apart / LIKENESS) ** 2))
    return (image + (weight * aligned).sum(0, keepdim=True)) / (1 + weight.sum(0, keepdim=True))


def fuse(clip: Tensor, motion: Tensor) -> Tensor:
    """Frames (N, 3, H, W) with what is coarse in them from all that agree.

    `motion` (N, N - 1, 2, h, w): the flows from each frame to the others in their order (motion.clip_motion).
    """
    fused = []
    for i in range(len(clip)):  # one after the other, in a fifth of the memory
        image, near = clip[i : i + 1], torch.cat([clip[:i], clip[i + 1 :]])
        fused.append(image + blur(agreement(image, near, motion[i]) - image, COARSE))
    return torch.cat(fused)
