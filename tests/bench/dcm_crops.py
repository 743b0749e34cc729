"""Scores the distortion control module alone on one crop of each clip: a look at a training run that takes a minute.

    python tests/bench/dcm_crops.py CLIP [CLIP ...] --model MODEL [--model MODEL ...]
        [--codec libx264] [--crf 25] [--then CRF] [--seen] [--untold] [--first 0] [--whole]

Twelve frames from number FIRST on are cropped to 256x256 in the middle, reduced four times, and encoded at the CRF (of
`jpeg`, which makes a picture of each, that is Pillow's quality), with `--then` once more by x264. The seventh is
restored by networks that are told the codec's quantiser; with `--seen` what `sdatc upscale` makes of that and of the
pictures, with `--untold` nothing. Bicubic enlargement stands beside it. Give smooth clips as well as detailed ones: a
network that invents texture everywhere gains on the one kind what it loses on the other. `--whole` scores the whole of
each model as well, with its default settings, on the frame among two others on either side.

`grid` tells the pattern of four pixels that a network which enlarges four times can draw: the share of the finest
detail's variance, in windows of 64 pixels, that is the same in every cell of 4x4 pixels; the median over all windows.
Chance alone gives about 0.4 %.
"""

import argparse
import functools
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.bench.perceptual import DISTS, LPIPS  # noqa: E402
from sdatc_cli.engine.coarseness import coarseness  # noqa: E402
from sdatc_cli.media.evidence import Evidence  # noqa: E402
from sdatc_cli.media.probe import probe  # noqa: E402
from sdatc_cli.media.read import FrameReader  # noqa: E402
from sdatc_cli.train.degradation import Damage, compress, degrade_clip, jpegs, reduce_clip  # noqa: E402
from sdatc_models import weights  # noqa: E402
from sdatc_models.blind import load_estimator  # noqa: E402
from sdatc_models.color import enlarge  # noqa: E402
from sdatc_models.detail import amplify  # noqa: E402
from sdatc_models.restorer import RestoreOptions, Restorer  # noqa: E402

EDGE, FRAMES, SCORED, REACH = 256, 12, 6, 2


def tensor(*frames: np.ndarray) -> Tensor:
    """N frames (h, w, 3) uint8 -> (N, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def pair(clip: Path, words: argparse.Namespace) -> tuple[Tensor, Tensor, float | None]:
    """LQ (5, 3, 64, 64) around the scored frame, its HR (1, 3, 256, 256), and the quantiser; `words` as in `main`."""
    with FrameReader(probe(clip)) as reader:
        frames = [frame.image for frame in itertools.islice(reader, words.first, words.first + FRAMES)]
    if len(frames) < FRAMES or min(frames[0].shape[:2]) < EDGE:
        sys.exit(f"error: {clip} has not {FRAMES} frames of at least {EDGE}x{EDGE} from number {words.first} on")
    y, x = ((edge - EDGE) // 2 for edge in frames[0].shape[:2])
    hr = np.stack([frame[y : y + EDGE, x : x + EDGE] for frame in frames])
    if words.codec == "jpeg":
        lq, quantiser = jpegs(reduce_clip(hr, "bicubic"), words.crf)
    else:
        lq, quantiser = degrade_clip(hr, Damage("bicubic", words.codec, words.crf, None, 25))
    if words.then is not None:
        lq, quantiser = compress(lq, Damage("bicubic", "libx264", words.then, None, 25))
    if words.seen:
        known = coarseness(Evidence(quantiser, [lq[SCORED], lq[-1]]), load_estimator())
        quantiser = known.quantiser
    return tensor(*lq[SCORED - REACH : SCORED + REACH + 1]), tensor(hr[SCORED]), quantiser


def grid(image: Tensor) -> float:
    """(1, 3, H, W) -> the share, 0 to 1, of what is finer than 4 pixels that repeats every 4 pixels."""
    luma = image.mean(1, keepdim=True)
    fine = luma[..., 1:-2, 1:-2] - F.avg_pool2d(luma, 4, 1)  # a box of 4 takes all that repeats every 4 out of itself
    height, width = (edge // 64 * 64 for edge in fine.shape[-2:])
    windows = rearrange(fine[..., :height, :width], "1 1 (r y p) (c x q) -> (r c) (y x) (p q)", y=16, x=16, p=4, q=4)
    cell = windows.mean(1)
    return (cell.var(1, False) / windows.flatten(1).var(1, False).clamp(min=1e-12)).median().item()


def distortion_control(model: Restorer, lq: Tensor, quantiser: float | None) -> Tensor:
    """What the distortion control module alone makes of the frame, with the model's share of detail."""
    told = torch.tensor([math.nan if quantiser is None else quantiser])
    frame = lq[REACH : REACH + 1]
    plain = enlarge(frame, (EDGE, EDGE))
    return plain + amplify(model.dcm(frame, told) - plain, model.config.detail, told)


def whole(model: Restorer, lq: Tensor, quantiser: float | None) -> Tensor:
    """What the whole model makes of the frame."""
    return model.restore(lq, range(len(lq)), RestoreOptions(quantiser=quantiser))[REACH : REACH + 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--codec", choices=["libx264", "libx265", "libvpx-vp9", "libsvtav1", "jpeg"], default="libx264")
    parser.add_argument("--crf", type=int, default=25)
    parser.add_argument("--then", type=int)
    parser.add_argument("--seen", action="store_true")
    parser.add_argument("--untold", action="store_true")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--whole", action="store_true")
    words = parser.parse_args()
    pairs = [pair(clip, words) for clip in words.clips]
    print("told", *(quantiser if quantiser is None else round(quantiser) for _, _, quantiser in pairs))
    if words.untold:
        pairs = [(lq, hr, None) for lq, hr, _ in pairs]
    methods = {"bicubic": lambda lq, quantiser: enlarge(lq[REACH : REACH + 1], (EDGE, EDGE))}
    for name in words.model:
        model = weights.load(name)
        methods[f"{Path(name).name} DCM"] = functools.partial(distortion_control, model)
        if words.whole:
            methods[Path(name).name] = functools.partial(whole, model)
    lpips, dists = LPIPS("vgg"), DISTS()
    print(f"{'':16}LPIPS-VGG  DISTS   PSNR    grid     LPIPS-VGG of each clip")
    with torch.inference_mode():
        for name, method in methods.items():
            rows = []
            for lq, hr, quantiser in pairs:
                image = method(lq, quantiser).clamp(0, 1)
                psnr = -10 * torch.log10((image - hr).square().mean())
                rows.append([lpips(image, hr).item(), dists(image, hr).item(), psnr.item(), 100 * grid(image)])
            mean = np.mean(rows, 0)
            each = " ".join(f"{row[0]:.3f}" for row in rows)
            print(f"{name:16}{mean[0]:.4f}     {mean[1]:.4f}  {mean[2]:.2f}  {mean[3]:5.1f} %  {each}")


if __name__ == "__main__":
    main()
