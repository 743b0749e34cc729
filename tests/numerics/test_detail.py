"""How much of the networks' detail is kept or raised: against a plain loop, and by how coarse compression was."""

import torch
import torch.nn.functional as F

from sdatc_models.config import DetailConfig
from sdatc_models.detail import amplify, kept

UNKNOWN = torch.tensor([torch.nan])


def test_gain_follows_the_detail_around() -> None:
    """Against a plain loop over windows; flat parts are damped, textured ones raised."""
    torch.manual_seed(0)
    detail = torch.randn(1, 3, 20, 30) * torch.where(torch.arange(30) < 12, 0.001, 0.2)
    raised = amplify(detail, DetailConfig((0.7, 1.5)), UNKNOWN)
    padded = F.pad(detail, (8, 8, 8, 8), mode="replicate")
    for y, x in ((0, 0), (11, 7), (19, 29)):
        activity = padded[0, :, y : y + 17, x : x + 17].abs().mean()
        gain = 0.7 + 0.8 * activity / (activity + 0.01)
        torch.testing.assert_close(raised[0, :, y, x], gain * detail[0, :, y, x])
    assert raised[..., :2].norm() < detail[..., :2].norm() and raised[..., -2:].norm() > detail[..., -2:].norm()


def test_coarsely_compressed_frames_get_more_of_it() -> None:
    torch.manual_seed(0)
    detail = torch.randn(1, 3, 16, 24)
    config = DetailConfig((0.7, 1.5), coarse=2.0)
    for quantiser, textured in ((20.0, 1.5), (33.0, 1.5 * 2**0.5), (45.0, 3.0), (torch.nan, 1.5)):
        expected = amplify(detail, DetailConfig((0.7, textured)), UNKNOWN)
        torch.testing.assert_close(amplify(detail, config, torch.tensor([quantiser])), expected)


def test_finely_compressed_frames_keep_less_of_what_diffusion_adds() -> None:
    quantiser = torch.tensor([0.0, 20.0, 22.5, 25.0, 51.0, torch.nan])
    torch.testing.assert_close(kept(DetailConfig(fine=0.4), quantiser), torch.tensor([0.4, 0.4, 0.7, 1.0, 1.0, 1.0]))
    assert kept(DetailConfig(), quantiser).eq(1).all(), "all of it, to the bit"


def test_without_a_gain_the_detail_stays_to_the_bit() -> None:
    detail = torch.randn(2, 3, 16, 24)
    assert torch.equal(amplify(detail, DetailConfig(), torch.tensor([20.0, 45.0])), detail)
