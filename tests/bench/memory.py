"""Peak memory for 60 against 480 frames of one clip, each in a process of its own.

    python tests/bench/memory.py [--model lite|PATH] [--steps N] [--size WxH] [--frames 60,480]

The default is a tiny random model, which takes a minute; the decoder, the queues, the blender and the encoder are the
real ones. The clip is ffmpeg's test picture, with a scene cut every 60 frames. Prints both peaks and their ratio.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]


def tiny_model(folder: Path) -> Path:
    """A saved tiny model."""
    from sdatc_models import weights
    from sdatc_models.config import tiny
    from sdatc_models.restorer import Restorer

    weights.save(Restorer(tiny()), folder)
    return folder


def write_source(path: Path, frames: int, size: str) -> Path:
    """A moving picture of any length, made by ffmpeg as it goes."""
    from sdatc_cli.media.ffmpeg import ffmpeg_binary

    cuts = "eq=brightness='0.4*lt(mod(n,120),60)-0.2':eval=frame"
    picture = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25", "-vf", cuts, "-pix_fmt", "yuv420p"]
    encode = ["-frames:v", str(frames), "-c:v", "libx264", "-preset", "veryfast", str(path)]
    subprocess.run([ffmpeg_binary(), "-v", "error", "-nostdin", "-y", *picture, *encode], check=True)
    return path


def peak(source: Path, out: Path, model: str, steps: int) -> float:
    """Peak resident memory in MB of one run."""
    words = ["upscale", str(source), "-o", str(out), "--model", model, "--steps", str(steps), "--json", "--quiet"]
    code = f"import sys; sys.path[:0] = {sys.path[:2]!r}; from sdatc_cli.app import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)["peak_memory_bytes"]["host"] / 1e6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--size", default="160x90")
    parser.add_argument("--frames", default="60,480")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(tiny_model(folder / "tiny")) if options.model == "tiny" else options.model
        peaks = []
        for frames in map(int, options.frames.split(",")):
            source = write_source(folder / f"{frames}.mkv", frames, options.size)
            peaks.append(peak(source, folder / f"{frames}-out.mp4", model, options.steps))
            print(f"{frames} frames of {options.size}: peak {peaks[-1]:.0f} MB", flush=True)
    print(f"ratio {peaks[-1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
