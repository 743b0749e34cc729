"""Motion error and the guided step, eqs. (13) and (14)."""

import torch
from torch import Tensor

from .flow import ClipFlow, warp


def motion_error(z: Tensor, flow: ClipFlow) -> Tensor:
    """E_t of eq. (13): latents z (N, c, H, W), each frame against its neighbours warped onto it, over trusted pixels.

    The sum is over frames, channels and pixels, so its gradient does not shrink with the frame's size.
    """
    onto_earlier = (warp(z[1:], flow.to_next) - z[:-1]).abs() * flow.next_mask
    onto_later = (warp(z[:-1], flow.to_previous) - z[1:]).abs() * flow.previous_mask
    return onto_earlier.sum() + onto_later.sum()


def guided(z: Tensor, flow: ClipFlow | None, scale: float, variance: float) -> Tensor:
    """Eq. (14): Z - s sigma_t^2 grad_Z E_t, the gradient taken at the latent alone. Unchanged without flow or scale."""
    if flow is None or scale == 0 or variance == 0:
        return z
    with torch.inference_mode(False), torch.enable_grad():
        at = z.detach().clone().requires_grad_(True)
        own = ClipFlow(*(f.clone() for f in (flow.to_next, flow.to_previous, flow.next_mask, flow.previous_mask)))
        (gradient,) = torch.autograd.grad(motion_error(at, own), at)
    return z - scale * variance * gradient
