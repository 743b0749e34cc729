"""Motion error and guided step, eqs. (13) and (14)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdatc_models.flow import ClipFlow
from sdatc_models.guidance import error_gradient, guided, motion_error


def translation(frames: int, dx: int, dy: int, height: int = 12, width: int = 14) -> ClipFlow:
    """The flow of a clip whose content moves by (dx, dy) a frame; masks leave out what comes from outside."""

    def one_way(dx: int, dy: int) -> tuple[torch.Tensor, torch.Tensor]:
        flow = torch.tensor([dx, dy]).float().view(1, 2, 1, 1).expand(frames - 1, 2, height, width)
        y, x = np.mgrid[:height, :width]
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        return flow, torch.from_numpy(inside).float().expand(frames - 1, 1, height, width)

    to_next, next_mask = one_way(dx, dy)
    to_previous, previous_mask = one_way(-dx, -dy)
    return ClipFlow(to_next, to_previous, next_mask, previous_mask)


def moving_latents(frames: int, dx: int, dy: int) -> torch.Tensor:
    """(N, 4, 12, 14) of independent values that move by (dx, dy) a frame."""
    wide = torch.randn(4, 12 + 40, 14 + 40)
    return torch.stack([wide[:, 20 - i * dy : 32 - i * dy, 20 - i * dx : 34 - i * dx] for i in range(frames)])


@pytest.mark.parametrize("dx, dy", [(0, 0), (2, 0), (-1, 3)])
def test_error_is_zero_at_the_true_flow_and_only_there(dx: int, dy: int) -> None:
    z = moving_latents(5, dx, dy)
    assert motion_error(z, translation(5, dx, dy)).item() == pytest.approx(0, abs=1e-2)
    assert motion_error(z, translation(5, dx + 1, dy)).item() > 500
    assert motion_error(z, translation(5, -dx - 1, -dy)).item() > 500


def test_error_is_the_sum_of_both_directions() -> None:
    """Eq. (13) by loops: every frame against both neighbours, at the pixels the motion leads to."""
    torch.manual_seed(0)
    dx, dy, z = 2, -1, torch.randn(3, 4, 12, 14)
    expected = 0.0
    for i in range(3):
        for j, sign in ((i + 1, 1), (i - 1, -1)):
            for y in range(12):
                for x in range(14):
                    v, u = y + sign * dy, x + sign * dx
                    if 0 <= j < 3 and 0 <= v < 12 and 0 <= u < 14:
                        expected += (z[i, :, y, x] - z[j, :, v, u]).abs().sum().item()
    assert motion_error(z, translation(3, dx, dy)).item() == pytest.approx(expected, rel=1e-4)


def random_flow(frames: int, speed: float, generator: torch.Generator) -> ClipFlow:
    """Displacements of about `speed` pixels on a grid of 12x14; one pixel in five is not trusted."""
    flows = [torch.randn(frames - 1, 2, 12, 14, generator=generator) * speed for _ in range(2)]
    masks = [(torch.rand(frames - 1, 1, 12, 14, generator=generator) < 0.8).float() for _ in range(2)]
    return ClipFlow(flows[0], flows[1], masks[0], masks[1])


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 4.0, 100.0]))
def test_the_gradient_in_closed_form_is_that_of_autograd(frames: int, seed: int, speed: float) -> None:
    """Wherever flows lead: between pixels, several of them to one place, past the edges."""
    generator = torch.Generator().manual_seed(seed)
    z, flow = torch.randn(frames, 4, 12, 14, generator=generator), random_flow(frames, speed, generator)
    at = z.clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(motion_error(at, flow), at)
    found = error_gradient(z, flow)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)  # up to 168 places read from one pixel
    assert torch.equal(error_gradient(z, flow), found)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**31), st.floats(0.0, 4.0))
def test_a_guided_step_lowers_the_error(frames: int, seed: int, speed: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(frames, 4, 12, 14, generator=generator)
    flow = random_flow(frames, speed, generator)
    before = motion_error(z, flow)
    stepped = guided(z, flow, scale=0.01, variance=0.05)
    assert motion_error(stepped, flow) < before


def test_step_is_the_scaled_gradient() -> None:
    """Eq. (14) at still pixels: the gradient of |a - b| counted in both directions is 2 sign(a - b)."""
    z = torch.tensor([1.0, 4.0]).view(2, 1, 1, 1).expand(2, 1, 16, 16).contiguous()
    out = guided(z, translation(2, 0, 0, 16, 16), scale=0.5, variance=0.1)
    torch.testing.assert_close(out[0], z[0] + 0.5 * 0.1 * 2)
    torch.testing.assert_close(out[1], z[1] - 0.5 * 0.1 * 2)


def test_switched_off_guidance_changes_nothing() -> None:
    z, flow = torch.randn(3, 4, 12, 14), translation(3, 1, 0)
    assert guided(z, None, 1.0, 1.0) is z
    assert guided(z, flow, 0.0, 1.0) is z
    assert guided(z, flow, 1.0, 0.0) is z


def test_works_inside_inference_mode() -> None:
    with torch.inference_mode():
        z, flow = torch.randn(3, 4, 12, 14), translation(3, 1, 0)
        assert motion_error(guided(z, flow, 0.01, 0.1), flow) < motion_error(z, flow)
