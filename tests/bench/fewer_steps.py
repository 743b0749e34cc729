"""How far a picture of few steps lies from that of many: the first frame of a video, lite, no mirror images, fp32.

    python tests/bench/fewer_steps.py demo/compressed.mp4

Prints the root mean square of the differences in levels of 255.
"""

import argparse
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "models")]

from sdatc_cli.engine.restore import to_tensor  # noqa: E402
from sdatc_cli.media.probe import probe  # noqa: E402
from sdatc_cli.media.read import FrameReader  # noqa: E402
from sdatc_models import weights  # noqa: E402
from sdatc_models.restorer import RestoreOptions  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 3, 2, 1], help="of dpmpp")
    parser.add_argument("--quantiser", type=float, default=28.0)
    words = parser.parse_args()
    with FrameReader(probe(words.video)) as reader:
        clip = to_tensor(next(iter(reader)).image[None])
    restorer = weights.load("lite")
    many = restorer.restore(clip, [0], RestoreOptions(50, "ddpm", mirror=False, quantiser=words.quantiser))
    for steps in words.steps:
        few = restorer.restore(clip, [0], RestoreOptions(steps, "dpmpp", mirror=False, quantiser=words.quantiser))
        print(
            f"{steps} steps of dpmpp: {float((few - many).square().mean().sqrt()) * 255:.3f} from 50 of ddpm",
            flush=True,
        )


if __name__ == "__main__":
    main()
