"""Whether the frames around a compressed frame know more of it than it does itself: what a temporal module has to gain.

    python tests/bench/neighbours.py CLIP [CLIP ...] [--crf 15 25 35] [--frames 30]

The first FRAMES frames are reduced four times and encoded with x264. Every fifth small frame is compared with what it
was before the codec (PSNR over RGB): alone, averaged with its four neighbours along the optical flow, and averaged with
weights that fall where the neighbours differ. An average that is no nearer says that the damage moves with the picture:
the codec copied it along the same motion, and there is nothing to average out.
"""

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.engine.restore import to_tensor  # noqa: E402
from sdatc_cli.media.probe import probe  # noqa: E402
from sdatc_cli.media.read import FrameReader  # noqa: E402
from sdatc_cli.train.degradation import Damage, compress, reduce_clip  # noqa: E402
from sdatc_models.flow import dis, warp  # noqa: E402

REACH, EVERY, LIKENESS = 2, 5, 0.02


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * torch.log10((a - b).square().mean()).item()


def grey(frame: Tensor) -> np.ndarray:
    return (frame.mean(0) * 255).round().byte().numpy()


def scores(clean: Tensor, damaged: Tensor) -> list[list[float]]:
    """For each scored frame: PSNR alone, averaged, averaged by likeness."""
    rows = []
    for i in range(REACH, len(damaged) - REACH, EVERY):
        near = [damaged[j : j + 1] for j in range(i - REACH, i + REACH + 1) if j != i]
        flows = [torch.from_numpy(dis(grey(damaged[i]), grey(image[0])))[None] for image in near]
        aligned = torch.cat([warp(image, flow) for image, flow in zip(near, flows, strict=True)])
        apart = F.avg_pool2d((aligned - damaged[i]).abs().mean(1, keepdim=True), 5, 1, 2)
        weight = torch.exp(-((apart / LIKENESS) ** 2))
        plain = (damaged[i] + aligned.sum(0)) / (1 + len(near))
        weighted = (damaged[i] + (weight * aligned).sum(0)) / (1 + weight.sum(0))
        rows.append([psnr(image, clean[i]) for image in (damaged[i], plain, weighted)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--crf", type=int, nargs="+", default=[15, 25, 35])
    parser.add_argument("--frames", type=int, default=30)
    words = parser.parse_args()
    print(f"{'':20} CRF   alone  averaged  by likeness")
    for path in words.clips:
        with FrameReader(probe(path)) as reader:
            frames = np.stack([frame.image for frame in itertools.islice(reader, words.frames)])
        height, width = (edge // 8 * 8 for edge in frames.shape[1:3])
        small = reduce_clip(frames[:, :height, :width], "bicubic")
        for crf in words.crf:
            damaged, _ = compress(small, Damage("bicubic", "libx264", crf, None, 25))
            alone, plain, weighted = np.mean(scores(to_tensor(small), to_tensor(damaged)), 0)
            print(f"{path.stem:20} {crf:3}   {alone:5.2f}     {plain:5.2f}        {weighted:5.2f}", flush=True)


if __name__ == "__main__":
    main()
