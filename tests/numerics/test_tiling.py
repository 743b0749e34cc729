"""Tiles: full coverage, weights that sum to one, no step at a border."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdatc_models.tiling import ALIGN, blend_weight, starts, tiled

edges = st.integers(2, 20).map(lambda n: n * ALIGN)


@settings(max_examples=60, deadline=None)
@given(edges, edges, st.integers(1, 120), st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([0.5, 1.0, 4.0]))
def test_weights_sum_to_one_everywhere(height: int, width: int, tile: int, scale_in: float, scale: float) -> None:
    """A function that returns ones gives ones, and one that returns positions gives each pixel its own."""
    y = torch.arange(height * scale)[:, None].expand(-1, int(width * scale))
    x = torch.arange(width * scale)[None].expand(int(height * scale), -1)
    grid = torch.stack([torch.ones_like(y), y, x])[None]
    other = torch.zeros(1, 1, int(height * scale_in), int(width * scale_in))

    def read(other_tile: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        assert other_tile.shape[-1] * scale == tile.shape[-1] * scale_in
        return tile

    out = tiled(read, [other, grid], [scale_in, scale], scale, tile)
    torch.testing.assert_close(out, grid, rtol=1e-4, atol=1e-3)


@given(edges, edges, st.integers(16, 160))
def test_tiles_cover_the_axis_and_end_flush(length: int, tile: int, overlap: int) -> None:
    tile, overlap = max(tile, 32), 16
    at = starts(length, tile, overlap)
    assert at[0] == 0
    assert at[-1] == max(0, length - tile)
    assert all(0 < b - a <= tile - overlap for a, b in pairwise(at))
    assert all(a % ALIGN == 0 for a in at)


def test_whole_frame_when_it_fits() -> None:
    calls = []
    frame = torch.rand(2, 3, 32, 48)
    out = tiled(lambda x: calls.append(x.shape) or x, [frame], [1], 1, 48)
    assert calls == [frame.shape]
    assert torch.equal(out, frame)


@pytest.mark.parametrize("tile", [32, 48, 64])
def test_no_step_where_tiles_disagree(tile: int) -> None:
    """Each tile is off by a constant of its own: the blend runs smoothly from one to the next."""
    count = iter(range(1000))
    frame = torch.zeros(1, 1, 16, 160)
    out = tiled(lambda x: x + next(count) % 2, [frame.repeat_interleave(4, 2).repeat_interleave(4, 3)], [4], 4, tile)
    assert out.min() >= 0 and out.max() <= 1
    assert out.max() - out.min() > 0.9
    assert out.diff(dim=-1).abs().max() < 0.08


def test_weight_peaks_in_the_middle_and_never_vanishes() -> None:
    weight = blend_weight(64, torch.device("cpu"))
    torch.testing.assert_close(weight, weight.flip(0))
    assert weight.argmax() in (31, 32)
    assert 0 < weight[0] < 0.01
