"""Colour correction: AdaIN's statistics and the wavelet's bands."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdatc_models.color import adain, correct, enlarge, low_pass, wavelet


def halved(x: torch.Tensor) -> np.ndarray:
    return F.interpolate(x, scale_factor=0.5, mode="bicubic", align_corners=False, antialias=True).numpy()


def test_adain_gives_each_frame_and_channel_the_reference_statistics() -> None:
    torch.manual_seed(0)
    image, reference = torch.rand(3, 3, 20, 24) * 0.3 + 0.5, torch.rand(3, 3, 20, 24)
    out = adain(image, reference)
    small, wanted, before = halved(out), halved(reference), halved(image)
    for n in range(3):
        for c in range(3):
            assert small[n, c].mean() == pytest.approx(wanted[n, c].mean(), abs=1e-5)
            assert small[n, c].std() == pytest.approx(wanted[n, c].std(), rel=1e-3)
            scale = wanted[n, c].std() / before[n, c].std()
            expected = (image[n, c].numpy() - before[n, c].mean()) * scale + wanted[n, c].mean()
            np.testing.assert_allclose(out[n, c].numpy(), expected, atol=1e-4)


def test_adain_keeps_a_frame_that_already_agrees_and_a_flat_one() -> None:
    image = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(adain(image, image), image, rtol=0, atol=1e-4)
    flat = torch.full((1, 3, 16, 16), 0.25)
    torch.testing.assert_close(adain(flat, flat + 0.5), flat + 0.5)


def test_adain_keeps_the_contrast_of_a_sharp_image_and_of_a_blurred_one() -> None:
    sharp = torch.rand(2, 3, 64, 64)
    reduced = F.interpolate(sharp, size=(16, 16), mode="bicubic", align_corners=False, antialias=True)
    for image in (sharp, enlarge(reduced, (64, 64))):
        kept = adain(image, reduced).std() / image.std()
        assert kept == pytest.approx(1, abs=0.06)
    assert enlarge(reduced, (64, 64)).std() / sharp.std() < 0.8  # what a comparison at full size would do to it


def low_pass_by_hand(row: np.ndarray, levels: int) -> np.ndarray:
    """One dimension: the image below varies along one axis only, so the other one has nothing to blur."""
    for level in range(levels):
        reach = 2**level
        at = np.arange(len(row))
        before, after = row[np.maximum(at - reach, 0)], row[np.minimum(at + reach, len(row) - 1)]
        row = before / 4 + row / 2 + after / 4
    return row


@pytest.mark.parametrize("vertical", [False, True])
def test_low_pass_is_a_dilated_binomial_blur(vertical: bool) -> None:
    row = np.random.default_rng(0).random(40)
    image = torch.from_numpy(np.tile(row, (30, 1)))[None, None]
    out = low_pass(image.mT if vertical else image, levels=3)
    out = out.mT if vertical else out
    np.testing.assert_allclose(out[0, 0].numpy(), np.tile(low_pass_by_hand(row, 3), (30, 1)), atol=1e-12)


def test_wavelet_takes_low_frequencies_from_the_reference_and_keeps_detail() -> None:
    image, reference = torch.rand(2, 3, 48, 48), torch.rand(2, 3, 48, 48)
    torch.testing.assert_close(wavelet(image, image), image)
    out = wavelet(image, reference)
    torch.testing.assert_close(out - low_pass(reference), image - low_pass(image))
    torch.testing.assert_close(wavelet(image + 0.2, image), image)


def test_correct_undoes_a_colour_shift() -> None:
    x_lq = torch.rand(2, 3, 16, 16)
    good = enlarge(x_lq, (64, 64))
    shifted = good * 0.8 + torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1)
    assert torch.equal(correct(shifted, x_lq, "none"), shifted)
    for method in ("adain", "wavelet"):
        assert (correct(shifted, x_lq, method) - good).abs().mean() < 0.5 * (shifted - good).abs().mean()
