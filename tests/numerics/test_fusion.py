"""Frames that learn from each other: against plain loops, and what must not change."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sdatc_models.fusion import COARSE, LIKENESS, agreement, blur, fuse


def soft(height: int, width: int, seed: int) -> torch.Tensor:
    """A smooth picture, (1, 3, 8 height, 8 width)."""
    cells = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(cells, scale_factor=8, mode="bicubic").clamp(0, 1)


def still(frames: int) -> torch.Tensor:
    """The flows of a clip where nothing moves."""
    return torch.zeros(frames, frames - 1, 2, 24, 24)


def test_blur_is_opencvs_gaussian() -> None:
    image = torch.rand(2, 3, 24, 31)
    for deviation, size in ((COARSE, 9), (2.5, 17)):
        for ours, theirs in zip(blur(image, deviation), image, strict=True):
            picture = theirs.permute(1, 2, 0).numpy()
            plain = cv2.GaussianBlur(picture, (size, size), deviation, borderType=cv2.BORDER_REPLICATE)
            np.testing.assert_allclose(ours.permute(1, 2, 0).numpy(), plain, atol=1e-6)


def test_agreement_by_hand() -> None:
    """Nothing moves: at some places, the mean by weights that a loop over the window gives."""
    torch.manual_seed(0)
    image = torch.rand(1, 3, 16, 20)
    near = image + (torch.rand(2, 3, 16, 20) - 0.5) * torch.tensor([0.05, 0.4]).view(2, 1, 1, 1)
    mean = agreement(image, near, torch.zeros(2, 2, 8, 10)).numpy()
    apart, pictures = (near - image).abs().numpy(), near.numpy()
    for y, x in ((0, 0), (7, 9), (15, 19)):
        rows, columns = np.clip(np.arange(y - 4, y + 5), 0, 15), np.clip(np.arange(x - 4, x + 5), 0, 19)
        weights = np.exp(-((apart[:, :, rows][:, :, :, columns].mean((1, 2, 3)) / LIKENESS) ** 2))
        total = image[0, :, y, x].numpy() + (weights[:, None] * pictures[:, :, y, x]).sum(0)
        np.testing.assert_allclose(mean[0, :, y, x], total / (1 + weights.sum()), rtol=1e-4)


def test_others_are_brought_onto_the_frame() -> None:
    """A picture that moves by two pixels a frame: along its flow the others are the frame itself."""
    wide = soft(6, 14, seed=2)
    clip = torch.cat([wide[..., 2 * i : 2 * i + 96] for i in range(5)])
    right = torch.tensor([4.0, 2.0, -2.0, -4.0]).view(4, 1, 1, 1).expand(4, 1, 24, 48)  # half of a grid of its own
    flow = torch.cat([right / 2, torch.zeros_like(right)], 1)
    mean = agreement(clip[2:3], clip[[0, 1, 3, 4]], flow)
    torch.testing.assert_close(mean[..., 8:-8], clip[2:3, ..., 8:-8], atol=1e-3, rtol=0)


def test_only_the_coarse_part_of_the_mean_is_taken() -> None:
    image, other = torch.rand(2, 1, 3, 24, 24).mul(0.02).add(0.5)
    fused = fuse(torch.cat([image, other]), still(2))
    expected = blur(agreement(image, other, torch.zeros(1, 2, 24, 24)) - image, COARSE)
    torch.testing.assert_close(fused[:1] - image, expected)
    fine = image - blur(image, COARSE)
    assert ((fused[:1] - blur(fused[:1], COARSE)) - fine).norm() < 0.5 * fine.norm()


def test_another_scene_changes_nothing() -> None:
    dark, bright = torch.rand(1, 3, 24, 24) * 0.2, 1 - torch.rand(1, 3, 24, 24) * 0.2
    clip = torch.cat([dark, bright])
    torch.testing.assert_close(fuse(clip, still(2)), clip, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.005, 0.03), st.integers(2, 5))
def test_noise_falls_in_every_frame_that_others_show_too(seed: int, noise: float, frames: int) -> None:
    true = soft(3, 3, seed) * 0.8 + 0.1
    clip = true + noise * torch.randn(frames, 3, 24, 24, generator=torch.Generator().manual_seed(seed))
    fused = fuse(clip, still(frames))
    errors = (blur(image - true, COARSE).square().mean((1, 2, 3)) for image in (fused, clip))
    assert (torch.div(*errors) < 1).all()
