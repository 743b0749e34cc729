"""A guess of how coarsely pictures were compressed, from nothing but themselves (ours; not in the paper).

A codec tells of the last compression only, and some tell nothing. What an earlier one did shows in the pictures: in how
the coefficients of their frequencies are distributed, how many have vanished, and what stands at the borders of blocks.
A small network learnt what such numbers mean (tools/train_quantiser.py).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .weights import ZOO, WeightsError

WEIGHTS = ZOO / "quantiser" / "weights.safetensors"
FINEST = 6.0  # what a picture that was never compressed counts as: finer steps do not show
LEAST = 32  # edge of the smallest picture, in pixels, of which a guess is made
BLOCK = 8
FEATURES = 218


class Guess(NamedTuple):
    """A quantiser on H.264's scale, and about how far it may be off."""

    quantiser: float
    deviation: float


def features(images: Tensor) -> Tensor:
    """(N, 3, h, w) RGB from 0 to 255, edges of at least LEAST, the corner on the codec's grid of blocks -> (N, 218)."""
    red, _, blue = images.unbind(1)
    luma = torch.einsum("nchw,c->nhw", images, images.new_tensor([0.299, 0.587, 0.114]))
    planes = luma - 128, 0.564 * (blue - luma), 0.713 * (red - luma)
    found = [*_frequencies(planes[0], range(1, 13)), *_frequencies(planes[0][:, 4:, 4:], range(2, 13, 2))]
    for chroma in planes[1:]:
        found += _frequencies(chroma, (1, 2, 4, 6))
    for plane in (planes[0], planes[0].transpose(1, 2)):
        found += _borders(plane)
    for axis in (2, 1):
        found += _flatness(planes[0].diff(dim=axis).abs().flatten(1))
    found += _frequencies(F.avg_pool2d(planes[0][:, None], 2)[:, 0], (1, 2, 3, 4, 6, 8))
    found += [(luma.flatten(1).std(1) + 1).log(), luma.mean((1, 2)) / 255]
    return torch.stack(found, 1)


def _frequencies(plane: Tensor, diagonals: Sequence[int]) -> Iterator[Tensor]:
    """Of the coefficients of blocks (N, h, w) whose two frequencies add up to each of `diagonals`: how large they are
    by three means, whose ratios tell how they are distributed, and how many are small."""
    basis = _cosines().to(plane)
    coefficients = F.conv2d(plane[:, None], basis[:, None], stride=BLOCK).flatten(2).abs()
    sums = torch.arange(BLOCK)[:, None] + torch.arange(BLOCK)
    for diagonal in diagonals:
        own = coefficients[:, (sums == diagonal).flatten()].flatten(1)
        yield (own.mean(1) + 0.05).log()
        yield (own.square().mean(1).sqrt() + 0.05).log()
        yield from ((own < level).float().mean(1) for level in (0.6, 1.8, 5))
        yield (own.sqrt().mean(1) ** 2 + 0.02).log()


def _cosines() -> Tensor:
    """The pictures (64, 8, 8) whose products with a block are its discrete cosine transform, orthonormal."""
    index = torch.arange(BLOCK)
    rows = torch.cos(math.pi * (2 * index + 1) * index[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return torch.einsum("ui,vj->uvij", rows, rows).reshape(-1, BLOCK, BLOCK)


def _borders(plane: Tensor) -> Iterator[Tensor]:
    """Whether neighbours (N, h, w) along w differ more where blocks of 8 or 4 meet: by first and third differences."""
    for order in (1, 3):
        steps = plane.diff(order).abs().mean(1)
        places = [steps[:, (place - 1 - order // 2) % BLOCK :: BLOCK].mean(1) for place in range(BLOCK)]
        levels = (torch.stack(places, 1) + 0.02).log()
        levels = levels - levels.mean(1, keepdim=True)
        yield from (levels[:, 0], levels[:, BLOCK // 2], levels.amax(1), levels.amin(1))


def _flatness(steps: Tensor) -> Iterator[Tensor]:
    """How many neighbours differ little (N, pixels), and by how much all do."""
    yield from ((steps < level).float().mean(1) for level in (0.5, 1.5, 3))
    yield (steps.mean(1) + 0.05).log()


class QuantiserEstimator(nn.Module):
    """From features to a quantiser and the logarithm of how far it may be off."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.deviation = nn.Buffer(torch.zeros(FEATURES)), nn.Buffer(torch.ones(FEATURES))
        self.head = nn.Sequential(
            nn.Linear(FEATURES, 128), nn.GELU(), nn.Dropout(0.15),
            nn.Linear(128, 128), nn.GELU(), nn.Dropout(0.15),
            nn.Linear(128, 2),
        )  # fmt: skip

    def forward(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """`features` (N, 218) -> quantisers (N,) and the logarithms of their deviations (N,)."""
        known = ((found - self.mean) / self.deviation).clamp(-6, 6)
        quantiser, deviation = self.head(known).unbind(1)
        return 25 + 10 * quantiser, deviation.clamp(-2, 3)

    @torch.inference_mode()
    def guess(self, pictures: Sequence[np.ndarray]) -> Guess | None:
        """One for pictures (h, w, 3) uint8 of the same video, each counting the more the surer it is; None where none
        has LEAST pixels along its edges."""
        found = []
        for picture in pictures:
            if min(picture.shape[:2]) >= LEAST:
                quantiser, deviation = self(features(torch.from_numpy(picture).permute(2, 0, 1)[None].float()))
                found.append((quantiser.item(), deviation.exp().item()))
        if not found:
            return None
        values, deviations = np.array(found).T
        weights = deviations**-2 / (deviations**-2).sum()
        return Guess(float(values @ weights), float(deviations @ weights))


def load_estimator(path: Path = WEIGHTS) -> QuantiserEstimator:
    """The embedded one, on the CPU. WeightsError when its file is missing or damaged."""
    estimator = QuantiserEstimator()
    try:
        estimator.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise WeightsError(f"{path} is missing or damaged; install sdatc again") from error
    return estimator.eval().requires_grad_(False)
