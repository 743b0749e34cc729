"""Motion error and the guided step, eqs. (13) and (14)."""

import torch
from torch import Tensor

from .flow import ClipFlow, sampled


def motion_error(z: Tensor, flow: ClipFlow) -> Tensor:
    """E_t of eq. (13): latents z (N, c, H, W), each frame against its neighbours warped onto it, over trusted pixels.

    The sum is over frames, channels and pixels, so its gradient does not shrink with the frame's size.
    """
    next_grid, previous_grid = flow.grids
    onto_earlier = (sampled(z[1:], next_grid) - z[:-1]).abs() * flow.next_mask
    onto_later = (sampled(z[:-1], previous_grid) - z[1:]).abs() * flow.previous_mask
    return onto_earlier.sum() + onto_later.sum()


def error_gradient(z: Tensor, flow: ClipFlow) -> Tensor:
    """The gradient of `motion_error` by z (N, c, H, W), in closed form: with the same bits every time, as autograd's
    would not be on a card."""
    (next_grid, previous_grid), (from_next, from_previous) = flow.grids, flow.adjoints
    onto_earlier = (sampled(z[1:], next_grid) - z[:-1]).sign() * flow.next_mask
    onto_later = (sampled(z[:-1], previous_grid) - z[1:]).sign() * flow.previous_mask
    gradient = torch.zeros_like(z)
    gradient[1:] += from_next(onto_earlier) - onto_later
    gradient[:-1] += from_previous(onto_later) - onto_earlier
    return gradient


def guided(z: Tensor, flow: ClipFlow | None, scale: float, variance: float) -> Tensor:
    """Eq. (14): Z - s sigma_t^2 grad_Z E_t, the gradient taken at the latent alone. Unchanged without flow or scale."""
    if flow is None or scale == 0 or variance == 0:
        return z
    return z - scale * variance * error_gradient(z, flow)
