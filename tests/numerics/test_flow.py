"""Optical flow: direction conventions, resampling, occlusion, and OpenCV's DIS on a known translation."""

import cv2
import numpy as np
import pytest
import torch

from sdatc_models.flow import clip_flow, flows, resample, trusted, warp


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random grey in [0, 1]."""
    noise = np.random.default_rng(seed).random((height, width), np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return (soft - soft.min()) / (soft.max() - soft.min())


def moving_clip(frames: int, dx: int, dy: int, height: int = 64, width: int = 80) -> torch.Tensor:
    """(N, 3, H, W); what frame i shows at (x, y), frame i + 1 shows at (x + dx, y + dy)."""
    margin = frames * max(abs(dx), abs(dy)) + 1
    wide = texture(height + 2 * margin, width + 2 * margin)
    cut = [
        wide[margin - i * dy : margin - i * dy + height, margin - i * dx : margin - i * dx + width]
        for i in range(frames)
    ]
    return torch.from_numpy(np.stack(cut))[:, None].expand(-1, 3, -1, -1)


def constant(dx: float, dy: float, height: int, width: int) -> torch.Tensor:
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, height, width).contiguous()


@pytest.mark.parametrize("dx, dy", [(3, 0), (0, 2), (-2, 1)])
def test_warping_the_next_frame_by_the_flow_to_it_gives_this_frame(dx: int, dy: int) -> None:
    clip = moving_clip(2, dx, dy)
    flow = constant(dx, dy, 64, 80)
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(warp(clip[1:], flow)[inner], clip[:1][inner])
    torch.testing.assert_close(warp(clip[:1], -flow)[inner], clip[1:][inner])


def test_warp_samples_between_pixels_by_hand() -> None:
    image = torch.rand(1, 2, 5, 6)
    flow = torch.rand(1, 2, 5, 6) * 3 - 1.5
    out = warp(image, flow)
    for y in range(5):
        for x in range(6):
            at_x = min(max(x + flow[0, 0, y, x].item(), 0), 5)
            at_y = min(max(y + flow[0, 1, y, x].item(), 0), 4)
            x0, y0 = min(int(at_x), 4), min(int(at_y), 3)
            fx, fy = at_x - x0, at_y - y0
            top = image[0, :, y0, x0] * (1 - fx) + image[0, :, y0, x0 + 1] * fx
            bottom = image[0, :, y0 + 1, x0] * (1 - fx) + image[0, :, y0 + 1, x0 + 1] * fx
            torch.testing.assert_close(out[0, :, y, x], top * (1 - fy) + bottom * fy, rtol=1e-4, atol=1e-5)


def test_resampling_scales_each_component_by_its_own_axis() -> None:
    small = resample(constant(8.0, 6.0, 32, 40), 8, 20)
    assert small.shape == (1, 2, 8, 20)
    torch.testing.assert_close(small, constant(4.0, 1.5, 8, 20))


@pytest.mark.parametrize("dx, dy", [(3, 0), (0, -2), (2, 1)])
def test_dis_finds_a_translation_in_both_directions(dx: int, dy: int) -> None:
    clip = moving_clip(3, dx, dy)
    to_next, to_previous = flows(clip, [(0, 1), (1, 2)], "dis"), flows(clip, [(1, 0), (2, 1)], "dis")
    assert to_next.shape == to_previous.shape == (2, 2, 64, 80)
    for flow, sign in ((to_next, 1), (to_previous, -1)):
        middle = flow[..., 12:-12, 12:-12].mean((0, 2, 3))
        torch.testing.assert_close(middle, torch.tensor([dx, dy]) * float(sign), rtol=0, atol=0.15)


def test_clip_flow_lies_on_the_latent_grid_in_its_pixels() -> None:
    flow = clip_flow(moving_clip(5, 4, 2), (32, 40), "dis")
    assert flow is not None
    assert flow.to_next.shape == (4, 2, 32, 40)
    assert flow.next_mask.shape == (4, 1, 32, 40)
    middle = flow.to_next[..., 8:-8, 8:-8].mean((0, 2, 3))
    torch.testing.assert_close(middle, torch.tensor([2.0, 1.0]), rtol=0, atol=0.15)
    assert flow.next_mask[..., 8:-8, 8:-8].mean() > 0.95


def test_no_flow_for_one_frame_or_when_switched_off() -> None:
    assert clip_flow(moving_clip(1, 1, 1), (8, 8), "dis") is None
    assert clip_flow(moving_clip(3, 1, 1), (8, 8), "none") is None


def test_tiny_frames_have_no_motion() -> None:
    assert torch.equal(flows(torch.rand(2, 3, 12, 40), [(0, 1)], "dis"), torch.zeros(1, 2, 12, 40))


def test_flow_is_trusted_where_it_leads_back() -> None:
    """|f + warp(b)| <= 0.01 (|f| + |b|) + 0.5, each side of the bound."""
    there = constant(10.0, 0.0, 12, 40)
    for back, expected in ((-10.0, 1), (-9.35, 1), (-9.25, 0), (10.0, 0)):
        mask = trusted(there, constant(back, 0.0, 12, 40))
        assert mask.shape == (1, 1, 12, 40)
        assert torch.equal(mask, torch.full_like(mask, float(expected))), back


def test_an_uncovered_background_is_not_trusted() -> None:
    """A square moves right over a still background: the background it is about to hide has no counterpart."""
    there, back = torch.zeros(1, 2, 16, 32), torch.zeros(1, 2, 16, 32)
    there[:, 0, 4:12, 8:16] = 6
    back[:, 0, 4:12, 14:22] = -6
    mask = trusted(there, back)[0, 0]
    assert mask[4:12, 8:16].all()
    assert not mask[5:11, 17:21].any()
    assert mask[:3].all() and mask[13:].all()
