"""Motion error and the guided step, eqs. (13) and (14)."""

import torch
from torch import Tensor

from .flow import ClipFlow, sampled


def motion_error(z: Tensor, flow: ClipFlow) -> Tensor:
    """E_t of eq. (13): latents z (N, c, H, W), each frame against its neighbours warped onto it, over trusted pixels.

    The sum is over frames, channels and pixels, so its gradient does not shrink with the frame's size.
    """
    (next_grid, previous_grid), (next_mask, previous_mask) = flow.grids, flow.masks
    onto_earlier = (sampled(z[1:], next_grid) - z[:-1]).abs() * next_mask
    onto_later = (sampled(z[:-1], previous_grid) - z[1:]).abs() * previous_mask
    return onto_earlier.sum() + onto_later.sum()


def guided(z: Tensor, flow: ClipFlow | None, scale: float, variance: float) -> Tensor:
    """Eq. (14): Z - s sigma_t^2 grad_Z E_t, the gradient taken at the latent alone. Unchanged without flow or scale."""
    if flow is None or scale == 0 or variance == 0:
        return z
    with torch.inference_mode(False), torch.enable_grad():
        at = z.detach().clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(motion_error(at, flow), at)
    return z - scale * variance * gradient
