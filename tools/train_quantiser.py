"""Trains the guess of how coarsely pictures were compressed (models/sdatc_models/blind.py); its card has the figures.

    python tools/train_quantiser.py make EXAMPLES.npz --photos PHOTOS --videos VIDEOS [--count 2500] [--seed 0]
    python tools/train_quantiser.py train WEIGHTS.safetensors EXAMPLES.npz [EXAMPLES.npz ...]

An example is three frames of a clip of 128x128 pixels that was made small as training clips are, sometimes softened,
enlarged or made noisy, and then compressed once by a video codec, once as JPEG, twice by video codecs, or not at all.
"""

import argparse
import functools
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from av.video.frame import VideoFrame
from safetensors.torch import save_file
from torch import Tensor

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.media.color import Converter, resolve  # noqa: E402
from sdatc_cli.media.info import ColorInfo  # noqa: E402
from sdatc_cli.train.clips import (  # noqa: E402
    PHOTO_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
    photo_clip,
    read_photo,
    sharpened,
    video_clip,
    video_frames,
)
from sdatc_cli.train.degradation import Damage, compress, jpegs, random_damage, reduce_clip, swscaled  # noqa: E402
from sdatc_models.blind import BLOCK, FINEST, QuantiserEstimator, features  # noqa: E402

HR_EDGE, EDGE, RUN, KEPT = 512, 128, 15, 3
KINDS = ("compressed once", "not compressed", "JPEG", "compressed twice")
HELD_OUT = 400  # examples, for the report
EPOCHS, BATCH, RATE = 40, 512, 2e-3


def softened(lq: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip (n, h, w, 3) uint8 as it is, or blurred, out of focus or by motion, or enlarged from a smaller one; with
    noise or without."""
    chance = rng.random()
    if chance < 0.2:
        radius = float(np.exp(rng.uniform(np.log(0.4), np.log(3))))
        lq = np.stack([cv2.GaussianBlur(frame, (0, 0), radius) for frame in lq])
    elif chance < 0.35:
        line, reach = np.zeros((31, 31), np.float32), rng.uniform(1, 12) * np.exp(1j * rng.uniform(0, 2 * np.pi))
        ends = [(round(15 + sign * reach.real), round(15 + sign * reach.imag)) for sign in (-1, 1)]
        cv2.line(line, *ends, 1.0)
        lq = np.stack([cv2.filter2D(frame, -1, line / line.sum()) for frame in lq])
    elif chance < 0.45:
        factor, size = float(rng.uniform(0.4, 0.9)), lq.shape[2:0:-1]
        small = [cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for frame in lq]
        lq = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in small])
    if rng.random() < 0.3:
        strength = float(np.exp(rng.uniform(np.log(0.7), np.log(9))))
        noise = rng.normal(0, strength, lq.shape[:3] + ((1,) if rng.random() < 0.5 else (3,)))
        if rng.random() < 0.4:
            grain = [cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 0.7) for frame in noise]
            noise = np.stack(grain).reshape(noise.shape) * 1.8
        lq = np.clip(lq + noise, 0, 255).round().astype(np.uint8)
    return lq


def together(*quantisers: float | None) -> float | None:
    """The one whose step is the root of the sum of the squares of these quantisers' steps."""
    steps = [4.0 ** (value / 6) for value in quantisers if value is not None]
    return 3 * math.log2(sum(steps)) if len(steps) == len(quantisers) else None


def read(frame: VideoFrame) -> np.ndarray:
    """As `sdatc upscale` converts it, whose values are finer than those of swscale's quick conversion."""
    color = resolve(ColorInfo(), frame.width, frame.height, False)
    return Converter(color).to_rgb(frame, frame.width, frame.height, deep=False)


def damaged(hr: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float | None, int]:
    """A clip (n, 4h, 4w, 3) uint8, reduced and compressed, its quantiser, and which of KINDS was done to it."""
    hr = sharpened(hr, rng)
    damage = random_damage(rng, EDGE**2)
    lq = softened(reduce_clip(hr, damage.kernel), rng)
    chance = rng.random()
    if chance < 0.5:
        return *compress(lq, damage, read), 0
    if chance < 0.58:
        exact = Damage("bicubic", "ffv1", 0, None, 25)
        return compress(lq, exact, read)[0] if rng.random() < 0.5 else lq, FINEST, 1
    if chance < 0.72:
        return *jpegs(lq, int(rng.integers(20, 99))), 2
    between = read if rng.random() < 0.5 else swscaled
    lq, first = compress(lq, Damage("bicubic", "libx264", int(rng.integers(18, 43)), None, 25), between)
    codec = str(rng.choice(["libx264", "libx264", "libx265"]))
    lq, second = compress(lq, Damage("bicubic", codec, int(rng.integers(8, 33)), None, 25), read)
    return lq, together(first, second), 3


@functools.cache
def runs_of(video: Path) -> list[np.ndarray]:
    return list(video_frames(video, 1.5, RUN))


def clips(photos: list[Path], videos: list[Path], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A few clips (RUN, HR_EDGE, HR_EDGE, 3) of one source."""
    if rng.random() < 0.6:
        photo = read_photo(photos[rng.integers(len(photos))])
        if min(photo.shape[:2]) >= HR_EDGE:
            yield from [photo_clip(photo, RUN, HR_EDGE, rng) for _ in range(3)]
        return
    runs = runs_of(videos[rng.integers(len(videos))])
    run = runs[rng.integers(len(runs))]
    for clip in [video_clip(run, min(HR_EDGE, *run.shape[1:3]), rng) for _ in range(2)]:
        if clip is not None:
            pad = [(0, 0), (0, HR_EDGE - clip.shape[1]), (0, HR_EDGE - clip.shape[2]), (0, 0)]
            yield np.pad(clip, pad, mode="symmetric")


def make(out: Path, photos: Path, videos: Path, count: int, seed: int) -> None:
    """Writes `pictures` (count, KEPT, EDGE, EDGE, 3) uint8, `quantisers` and `kinds` (count,)."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng(seed)
    sources = find_files(photos, PHOTO_SUFFIXES), find_files(videos, VIDEO_SUFFIXES)
    pictures, quantisers, kinds = [], [], []
    while len(pictures) < count:
        for clip in clips(*sources, rng):
            lq, quantiser, kind = damaged(clip, rng)
            if quantiser is not None:
                pictures.append(lq[rng.choice(RUN, KEPT, False)])
                quantisers.append(max(quantiser, FINEST))
                kinds.append(kind)
        print(f"\r{len(pictures)} of {count}", end="", flush=True)
    np.savez(out, pictures=np.stack(pictures), quantisers=np.array(quantisers, np.float32), kinds=np.array(kinds))


def measured(pictures: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Features of pictures (N, KEPT, EDGE, EDGE, 3) and of crops of them, (M, FEATURES), and whose they are, (M,)."""
    found, owners = [], []
    for edge in (128, 96, 64):
        for first in range(0, len(pictures), 64):
            y, x = rng.integers(0, (EDGE - edge) // BLOCK + 1, 2) * BLOCK
            some = pictures[first : first + 64, :, y : y + edge, x : x + edge]
            images = torch.from_numpy(some.reshape(-1, edge, edge, 3)).permute(0, 3, 1, 2).float()
            found.append(features(images))
            owners.append(torch.arange(first, first + len(some)).repeat_interleave(KEPT))
    return torch.cat(found), torch.cat(owners)


def loss(quantiser: Tensor, deviation: Tensor, true: Tensor) -> Tensor:
    """The negative logarithm of Student's t likelihood of two degrees of freedom, for which a few surprises weigh
    little; `deviation` is the logarithm of its width."""
    return (1.5 * torch.log1p((quantiser - true) ** 2 / (2 * torch.exp(2 * deviation))) + deviation).mean()


def report(net: QuantiserEstimator, pictures: np.ndarray, quantisers: np.ndarray, kinds: np.ndarray) -> None:
    """How far off the guesses for examples are, by kind and by how sure they are."""
    found = [net.guess(list(example)) for example in pictures]
    guesses = np.array([guess for guess in found if guess is not None])
    error = guesses[:, 0] - quantisers
    for kind, name in enumerate(KINDS):
        own = error[kinds == kind]
        if not len(own):
            continue
        print(f"  {name:16} error {own.mean():+.2f}, absolute {abs(own).mean():.2f}, of 95 % below {_p95(own):.1f}")
    parts = np.array_split(np.argsort(guesses[:, 1]), 4)
    print("  absolute, from the surest quarter on:", *(f"{abs(error[part]).mean():.2f}" for part in parts), flush=True)


def _p95(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.95))


def train(out: Path, examples: list[Path]) -> None:
    files = [np.load(path) for path in examples]
    data = [np.concatenate([file[name] for file in files]) for name in ("pictures", "quantisers", "kinds")]
    order = np.random.default_rng(1).permutation(len(data[0]))
    pictures, quantisers, kinds = (values[order] for values in data)
    known, owners = measured(pictures[:-HELD_OUT], np.random.default_rng(0))
    true = torch.from_numpy(quantisers)[owners]
    torch.manual_seed(0)
    net = QuantiserEstimator()
    net.mean, net.deviation = known.mean(0), known.std(0) + 1e-6
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    steps = EPOCHS * len(known) // BATCH
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = torch.randint(0, len(known), (BATCH,))
        optimizer.zero_grad()
        loss(*net(known[chosen]), true[chosen]).backward()
        optimizer.step()
    report(net.eval(), pictures[-HELD_OUT:], quantisers[-HELD_OUT:], kinds[-HELD_OUT:])
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("out", type=Path)
    making.add_argument("--photos", type=Path, required=True)
    making.add_argument("--videos", type=Path, required=True)
    making.add_argument("--count", type=int, default=2500)
    making.add_argument("--seed", type=int, default=0)
    training = verbs.add_parser("train")
    training.add_argument("out", type=Path)
    training.add_argument("examples", type=Path, nargs="+")
    words = vars(parser.parse_args())
    {"make": make, "train": train}[words.pop("verb")](**words)


if __name__ == "__main__":
    main()
