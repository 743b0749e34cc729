"""Whether borders of clips show: the warping error across them against that inside clips.

    python tests/bench/border_step.py CLIP [--frames 25] [--model lite] [--steps 50] [--guidance S]

Clips begin every third frame and share two frames with the next, so that two of three pairs of neighbours differ in the
clips they come from. The frames are restored three times, numbered from a different one each time: every pair is then
inside once and across a border twice, and what moves in the picture counts the same on both sides. Stretches of a long
run have the same clips as a short one, to the bit, so their borders are among these. Motion is that of the enlarged
input. The model's own guidance couples the frames of a clip only where it is not zero; S sets another.
"""

import argparse
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.bench.temporal import Motion, motion, warping_error  # noqa: E402
from sdatc_cli.engine.memory import Frugal  # noqa: E402
from sdatc_cli.engine.plan import LENGTH, OVERLAP, STRIDE  # noqa: E402
from sdatc_cli.engine.restore import restore_frames  # noqa: E402
from sdatc_cli.media.probe import probe  # noqa: E402
from sdatc_cli.media.read import Frame, FrameReader  # noqa: E402
from sdatc_models import weights  # noqa: E402
from sdatc_models.restorer import RestoreOptions  # noqa: E402


def errors(frames: list[Frame], first: int, motions: list[Motion], network: Frugal) -> tuple[list[float], list[float]]:
    """Warping errors (inside, across) when numbering begins with frame `first`; pairs near the ends are left out."""
    numbered = [replace(frame, index=number) for number, frame in enumerate(frames[first:])]
    images = [frame.image for frame in restore_frames(numbered, network)]
    inside, across = [], []
    for number in range(LENGTH - first, len(frames) - LENGTH - 1 - first):
        error = warping_error(images[number], images[number + 1], motions[first + number])
        (inside if number % STRIDE < OVERLAP - 1 else across).append(error)
    return inside, across


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float)
    words = parser.parse_args()
    with FrameReader(probe(words.clip)) as reader:
        frames = list(itertools.islice(reader, words.frames))
    if len(frames) < 3 * LENGTH:
        sys.exit(f"error: {words.clip} has {len(frames)} frames; {3 * LENGTH} are the least")
    height, width = (4 * edge for edge in frames[0].image.shape[:2])
    large = [cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_CUBIC) for frame in frames]
    motions = [motion(one, following) for one, following in itertools.pairwise(large)]
    options = RestoreOptions(steps=words.steps, guidance=words.guidance)
    network = Frugal(weights.load(words.model), options, lambda line: print(line, file=sys.stderr))
    kinds = zip(*(errors(frames, first, motions, network) for first in range(STRIDE)), strict=True)
    inside, across = (float(np.mean(list(itertools.chain(*kind)))) for kind in kinds)
    print(f"{len(frames)} frames of {frames[0].image.shape[1]}x{frames[0].image.shape[0]}, {words.steps} steps")
    print(f"warping error inside clips {inside:.3f}, across borders {across:.3f} of 255; ratio {across / inside:.4f}")


if __name__ == "__main__":
    main()
