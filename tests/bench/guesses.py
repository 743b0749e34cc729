"""How coarsely clips were compressed, by their codec's word, by their pictures, and what is told to the networks.

    python tests/bench/guesses.py CLIP [CLIP ...] [--crf 12,18,25,32,38,28-18,33-18,38-23,0] [--scale 4]

Each clip is reduced by `sdatc degrade` and compressed at each CRF; 33-18 is 33 and then, at the same size, 18; 0 is
lossless. What `sdatc upscale` would look at is looked at: `22, 31±2.6 -> 31` is the codec's word, the guess from the
pictures with about how far it may be off, and what counts.
"""

import argparse
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.engine.coarseness import coarseness  # noqa: E402
from sdatc_cli.media.degrade import Recipe, degrade  # noqa: E402
from sdatc_cli.media.evidence import evidence  # noqa: E402
from sdatc_cli.media.probe import probe  # noqa: E402
from sdatc_models.blind import QuantiserEstimator, load_estimator  # noqa: E402


def compressed(clip: Path, crfs: list[int], scale: int, folder: Path) -> Path:
    """The clip after one or two compressions."""
    for number, crf in enumerate(crfs):
        out = folder / f"{number}.mp4"
        degrade(clip, out, Recipe(crf=crf, scale=1 if number else scale), None, True)
        clip = out
    return clip


def cell(path: Path, estimator: QuantiserEstimator) -> str:
    found = evidence(probe(path))
    guess = estimator.guess(found.pictures)
    counts = coarseness(found, estimator).quantiser
    told, seen = "-" if found.quantiser is None else f"{found.quantiser:.0f}", "-"
    if guess is not None:
        seen = f"{guess.quantiser:.0f}±{guess.deviation:.1f}"
    return f"{told}, {seen} -> {'-' if counts is None else f'{counts:.0f}'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--crf", default="12,18,25,32,38,28-18,33-18,38-23,0")
    parser.add_argument("--scale", type=int, default=4)
    words = parser.parse_args()
    columns = words.crf.split(",")
    print(f"| | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    estimator = load_estimator()
    for clip in words.clips:
        with tempfile.TemporaryDirectory() as folder:
            files = (compressed(clip, list(map(int, text.split("-"))), words.scale, Path(folder)) for text in columns)
            print(f"| {clip.stem} | {' | '.join(cell(file, estimator) for file in files)} |", flush=True)


if __name__ == "__main__":
    main()
