"""Motion between all frames of a clip: its directions and order, against plain loops, and what clips share."""

import numpy as np
import torch
import torch.nn.functional as F

from sdatc_models import motion as motion_module
from sdatc_models.motion import Motion, clip_motion

CPU = torch.device("cpu")


def moving(frames: int, pixels: int) -> torch.Tensor:
    """(N, 3, 72, 96); what a frame shows at x, the next shows `pixels` further left."""
    cells = torch.rand(1, 3, 9, 18, generator=torch.Generator().manual_seed(4))
    wide = F.interpolate(cells, scale_factor=8, mode="bicubic").clamp(0, 1)
    return torch.cat([wide[..., 12 + pixels * i : 108 + pixels * i] for i in range(frames)])


def found(motion: Motion, clip: torch.Tensor, first: int = 0) -> torch.Tensor:
    return torch.stack([flows() for flows in motion.begin(clip, range(first, first + len(clip)), "dis", CPU)])


def test_motion_leads_from_each_frame_to_the_others_on_the_doubled_grid() -> None:
    motion = clip_motion(found(Motion(5), moving(3, 2)))
    assert motion.shape == (3, 2, 2, 144, 192)
    middle = motion[..., 24:-24, 24:-24].mean((3, 4))
    to_others = torch.tensor([[-4.0, -8.0], [4.0, -4.0], [8.0, 4.0]])
    torch.testing.assert_close(middle, torch.stack([to_others, torch.zeros(3, 2)], -1), atol=0.4, rtol=0)


def at(flow: np.ndarray, x: float, y: float) -> np.ndarray:
    """A flow (2, H, W) between its pixels, its edges repeated."""
    height, width = flow.shape[1:]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    across, down = x - left, y - top
    upper = flow[:, top, left] * (1 - across) + flow[:, top, left + 1] * across
    lower = flow[:, top + 1, left] * (1 - across) + flow[:, top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


def test_motion_follows_the_neighbours_one_after_the_other() -> None:
    steps = torch.randn(4, 2, 2, 7, 9, generator=torch.Generator().manual_seed(0)) * 2
    motion, plain = clip_motion(steps).numpy(), steps.double().numpy()
    for start in range(5):
        others = [index for index in range(5) if index != start]
        for place, end in enumerate(others):
            way = range(start, end) if end > start else range(start - 1, end - 1, -1)
            for x, y in ((0, 0), (4, 3), (8, 6)):
                moved = np.zeros(2)
                for pair in way:
                    moved = moved + at(plain[pair, 0 if end > start else 1], x + moved[0], y + moved[1])
                np.testing.assert_allclose(motion[start, place, :, y, x], moved, atol=1e-4)


def test_clips_that_share_frames_share_their_flows(monkeypatch) -> None:
    searched = []

    def counted(first: np.ndarray, second: np.ndarray, dis=motion_module.dis) -> np.ndarray:
        searched.append(first.shape)
        return dis(first, second)

    monkeypatch.setattr(motion_module, "dis", counted)
    film, motion = moving(8, 1), Motion(5)
    first, second = found(motion, film[:5]), found(motion, film[3:], first=3)
    assert len(searched) == 2 * (4 + 3)
    assert torch.equal(first[-1], second[0])
    alone = found(Motion(5), film[3:], first=3)
    assert torch.equal(second, alone)


def test_other_pictures_under_the_same_numbers_have_flows_of_their_own() -> None:
    motion = Motion(5)
    found(motion, moving(3, 1))
    assert torch.equal(found(motion, moving(3, 3)), found(Motion(5), moving(3, 3)))
