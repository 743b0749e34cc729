"""Real compressed footage has no ground truth: what can be seen wrong in a restored video, in figures and in a picture.

    python tests/bench/looks.py CLIP [CLIP ...] -o SHEET.png [--frames 12] [--first 0] [--model lite] [--steps 50]

For each clip, beside bicubic enlargement:
    shift    the largest difference from the input's colours over areas of 16x16 input pixels, in levels of 255; the
             99th percentile, as a moving edge may well differ
    grid     the pattern of four pixels, as in dcm_crops.py, in per cent; chance gives 0.4
    unrest   the warping error along the motion of the bicubic enlargement, over that of the enlargement itself: sharp
             detail raises it, detail that changes from frame to frame raises it further
The sheet shows the middle 160x160 input pixels of the middle frame, enlarged by either, and under them one line of it
through time: streaks are steady, speckle is not.
"""

import argparse
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from dcm_crops import grid, tensor

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.bench.temporal import Motion, motion, warping_error  # noqa: E402
from sdatc_cli.engine.coarseness import coarseness  # noqa: E402
from sdatc_cli.engine.device import pick_dtype  # noqa: E402
from sdatc_cli.engine.memory import Frugal  # noqa: E402
from sdatc_cli.engine.restore import restore_frames  # noqa: E402
from sdatc_cli.media.evidence import evidence  # noqa: E402
from sdatc_cli.media.probe import probe  # noqa: E402
from sdatc_cli.media.read import Frame, FrameReader  # noqa: E402
from sdatc_models import weights  # noqa: E402
from sdatc_models.blind import load_estimator  # noqa: E402
from sdatc_models.restorer import RestoreOptions, Restorer  # noqa: E402

SCALE, AREA, CROP, LINES = 4, 16, 160, 8


def colours(image: np.ndarray, area: int) -> np.ndarray:
    """(H, W, 3) -> the mean colours of whole areas of `area` x `area` pixels, float."""
    height, width = (edge // area for edge in image.shape[:2])
    areas = image[: height * area, : width * area].astype(np.float32).reshape(height, area, width, area, 3)
    return areas.mean((1, 3))


def row(name: str, images: list[np.ndarray], inputs: list[np.ndarray], motions: list[Motion], calm: float) -> float:
    """Prints one line and returns the warping error; `calm` is that of the enlargement, 0 for the enlargement."""
    apart = [np.abs(colours(y, AREA * SCALE) - colours(x, AREA)) for x, y in zip(inputs, images, strict=True)]
    pattern = np.mean([grid(tensor(image)) for image in images])
    pairs = zip(itertools.pairwise(images), motions, strict=True)
    error = float(np.mean([warping_error(one, two, moved) for (one, two), moved in pairs]))
    print(f"{name:28}{np.quantile(apart, 0.99):6.2f} {100 * pattern:6.1f} % {error / (calm or error):7.2f}", flush=True)
    return error


def middle(images: list[np.ndarray]) -> np.ndarray:
    """The crop of the middle frame above its middle line through all frames."""
    height, width = images[0].shape[:2]
    edge = min(CROP * SCALE, height, width)
    y, x = (height - edge) // 2, (width - edge) // 2
    line = np.repeat([image[height // 2, x : x + edge] for image in images], LINES, axis=0)
    return np.vstack([images[len(images) // 2][y : y + edge, x : x + edge], line])


def look(clip: Path, first: int, count: int, restorer: Restorer, options: RestoreOptions) -> np.ndarray:
    """Prints both lines of a clip and returns its part of the sheet."""
    info = probe(clip)
    with FrameReader(info) as reader:
        frames: list[Frame] = list(itertools.islice(reader, first, first + count))
    if len(frames) < 2:
        sys.exit(f"error: {clip} has {len(frames)} frames from number {first} on; 2 are the least")
    inputs = [frame.image for frame in frames]
    size = (inputs[0].shape[1] * SCALE, inputs[0].shape[0] * SCALE)
    large = [cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) for image in inputs]
    motions = [motion(one, following) for one, following in itertools.pairwise(large)]
    told = replace(options, quantiser=coarseness(evidence(info), load_estimator()).quantiser)
    network = Frugal(restorer, told, lambda line: print(line, file=sys.stderr))
    restored = [frame.image for frame in restore_frames(frames, network)]
    calm = row(f"{clip.stem} bicubic", large, inputs, motions, 0)
    row(f"{clip.stem} restored", restored, inputs, motions, calm)
    return np.hstack([middle(large), middle(restored)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--steps", type=int, default=50)
    words = parser.parse_args()
    options = RestoreOptions(steps=words.steps)
    restorer = weights.load(words.model).in_format(pick_dtype("auto", torch.device("cpu")))
    print(f"{'':28} shift     grid  unrest")
    with torch.inference_mode():
        parts = [look(clip, words.first, words.frames, restorer, options) for clip in words.clips]
    width = max(part.shape[1] for part in parts)
    sheet = np.vstack([np.pad(part, ((0, 8), (0, width - part.shape[1]), (0, 0))) for part in parts])
    cv2.imwrite(str(words.output), sheet[..., ::-1])


if __name__ == "__main__":
    main()
