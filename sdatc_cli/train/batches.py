"""Training batches. Batch k of rank r is a function of (seed, r, k) and of the shards there are, so a resumed run sees
the same data. Shards that `prepare` adds meanwhile join in.
"""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdatc_cli.engine.cores import cores
from sdatc_cli.errors import InputError

from .degradation import SCALE
from .shards import Shard, open_shards
from .taught import read_taught, taught_frame, taught_pictures


@dataclass(frozen=True)
class Batch:
    """`hr` (B, N, 3, 4p, 4p) and `lq` (B, N, 3, p, p), float32 RGB in [0, 1]; a teacher has `taught`, as `hr`.

    `quantiser` (B,), NaN where it is not known.
    """

    hr: Tensor
    lq: Tensor
    quantiser: Tensor
    taught: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        taught = self.taught.to(device) if self.taught is not None else None
        return Batch(self.hr.to(device), self.lq.to(device), self.quantiser.to(device), taught)


def as_tensor(images: list[np.ndarray]) -> Tensor:
    """List of (N, h, w, 3) uint8 -> (B, N, 3, h, w) float in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 1, 4, 2, 3).float().div_(255)


def random_tint(rng: np.random.Generator) -> Tensor:
    """A 3x3 matrix for RGB: other colours and a lower contrast for half of the examples, the identity for the rest.

    What a few photographs show is soon learnt by heart; a network must not know a texture by its colour.
    """
    if rng.random() < 0.5:
        return torch.eye(3)
    saturation, gain = rng.uniform(0.3, 1.2), rng.uniform(0.6, 1.0) * np.exp(rng.normal(0, 0.1, 3))
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    return torch.from_numpy(gain[:, None] * (saturation * np.eye(3) + (1 - saturation) * grey)).float()


MOST_READERS = 8  # threads that load batches
LOOK_EVERY = 50  # batches, then the folder is looked at for new shards
FORGOTTEN = 0.15  # the share of examples whose quantiser is not told: many a decoder does not know it


class ClipSampler:
    """Draws random crops, flips, quarter turns and tints from shards."""

    def __init__(
        self, shards: Path, batch: int, frames: int, patch: int, seed: int, rank: int = 0, taught: bool = False
    ):
        """`patch`: HR edge of a crop, a multiple of 4; `frames`: consecutive frames of one example.

        `taught`: single frames, and only those of which a teacher's picture lies beside the shards.
        """
        self.folder, self.batch, self.frames, self.patch, self.key = shards, batch, frames, patch, (seed, rank)
        self.taught = taught_pictures(shards) if taught else None
        self.shards: list[Shard] = []
        self._open()
        if taught and (frames != 1 or not self.taught):
            raise InputError(f"no pictures of a teacher in {shards}; make some with: sdatc train teach {shards}")

    def _open(self) -> None:
        """The shards that the folder holds now."""
        self.shards = open_shards(self.folder, self.shards)
        for shard in self.shards:
            edge = shard.lq.shape[2] * SCALE
            if self.patch > edge or self.frames > shard.frames:
                have = f"{shard.frames} frames of {edge} pixels"
                raise InputError(
                    f"{shard.path} holds {have}, the stage asks for {self.frames} of {self.patch}; make such with "
                    "sdatc train prepare --patch, in another folder"
                )
        self.clips = [
            (shard, clip)
            for shard in self.shards
            for clip in range(len(shard))
            if self.taught is None or (shard.path.stem, clip) in self.taught
        ]

    def refresh(self) -> None:
        """Takes up the shards that were added to the folder. InputError for one that cannot be used."""
        if len(list(self.folder.glob("*.safetensors"))) != len(self.shards):
            self._open()

    def example(self, rng: np.random.Generator) -> tuple[list[np.ndarray], float]:
        """One crop: hr (N, 4p, 4p, 3), lq (N, p, p, 3) and, if asked for, the teacher's, like hr; uint8.

        And its quantiser, NaN where it is not told.
        """
        shard, clip = self.clips[int(rng.integers(len(self.clips)))]
        small = self.patch // SCALE
        first = int(rng.integers(shard.frames - self.frames + 1))
        if self.taught is not None:
            first = taught_frame(shard)
        y, x = (int(v) for v in rng.integers(0, shard.lq.shape[2] - small + 1, 2))
        lq = shard.lq[clip, first : first + self.frames, y : y + small, x : x + small]
        tall = [shard.hr_frame(clip, first + i) for i in range(self.frames)]
        y, x = y * SCALE, x * SCALE
        large = [np.stack(tall)]
        if self.taught is not None:
            large.append(read_taught(self.taught[shard.path.stem, clip])[None])
        hr, *taught = (images[:, y : y + self.patch, x : x + self.patch] for images in large)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))

        def turn(clip: np.ndarray) -> np.ndarray:
            clip = np.rot90(clip, turns, (1, 2))
            return clip[:, :, ::-1] if flip else clip

        quantiser = float("nan") if rng.random() < FORGOTTEN else float(shard.quantiser[clip])
        return [turn(images) for images in (hr, lq, *taught)], quantiser

    def load(self, step: int) -> Batch:
        rng = np.random.default_rng((*self.key, step))
        examples, quantisers = zip(*(self.example(rng) for _ in range(self.batch)), strict=True)
        tints = torch.stack([random_tint(rng) for _ in examples])
        images = (as_tensor(list(group)) for group in zip(*examples, strict=True))
        hr, lq, *taught = (torch.einsum("bij,bnjhw->bnihw", tints, group).clamp_(0, 1) for group in images)
        return Batch(hr, lq, torch.tensor(quantisers), *taught)

    def iterate(self, first_step: int) -> Generator[Batch]:
        """Endless batches from `first_step` on, the next ones loading while the current one is used."""
        readers = min(MOST_READERS, max(1, cores() // 4))
        with ThreadPoolExecutor(readers) as pool:
            pending = deque(pool.submit(self.load, first_step + i) for i in range(readers))
            for step in count(first_step + readers):
                if step % LOOK_EVERY == 0:
                    self.refresh()
                ready = pending.popleft()
                pending.append(pool.submit(self.load, step))
                yield ready.result()
