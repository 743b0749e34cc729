"""Crops of what methods made of the same frames, side by side, from the report of `sdatc bench`.

    python tests/bench/crop_sheet.py REPORT_DIR -o sheet.png [--crf 25] [--crop CLIP:X,Y ...]

A row a crop, its left upper corner at X,Y in pixels of the restored frame (the middle one of the clip, as the report
shows it), a column a method; the ground truth comes last. Pixels are repeated, nothing is smoothed.
"""

import argparse
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

REPO = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPO), str(REPO / "models")]

from sdatc_cli.bench.methods import slug  # noqa: E402
from sdatc_cli.bench.pictures import TRUTH  # noqa: E402

WIDTH, HEIGHT, TIMES, GAP, HEAD = 152, 112, 2, 6, 18
VID4 = ["calendar:136,176", "city:448,176", "foliage:368,208", "walk:320,88"]  # text, windows, leaves, faces


def cell(still: Path, x: int, y: int) -> Image.Image:
    """A crop of a picture of the report, enlarged."""
    if not still.is_file():
        sys.exit(f"error: the report has no {still}")
    with Image.open(still) as image:
        if not (0 <= x <= image.width - WIDTH and 0 <= y <= image.height - HEIGHT):
            sys.exit(f"error: {WIDTH}x{HEIGHT} pixels at {x},{y} do not lie in {still}, {image.width}x{image.height}")
        crop = image.convert("RGB").crop((x, y, x + WIDTH, y + HEIGHT))
    return crop.resize((TIMES * WIDTH, TIMES * HEIGHT), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--crf", type=int, default=25)
    parser.add_argument("--crop", nargs="+", default=VID4)
    words = parser.parse_args()
    told = json.loads((words.report / "report.json").read_text())
    columns = [(name, f"{slug(name)}/crf{words.crf}") for name in told["methods"]] + [("original", f"{TRUTH}/crf0")]
    step_x, step_y = TIMES * WIDTH + GAP, TIMES * HEIGHT + GAP
    size = (len(columns) * step_x - GAP, HEAD + len(words.crop) * step_y - GAP)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, folder) in enumerate(columns):
        draw.text((column * step_x + 4, 3), name, fill="black")
        for row, text in enumerate(words.crop):
            clip, _, at = text.partition(":")
            x, _, y = at.partition(",")
            if not (x.isdecimal() and y.isdecimal()):
                sys.exit(f"error: --crop {text}: write CLIP:X,Y")
            picture = cell(words.report / "pictures" / folder / clip / "still.webp", int(x), int(y))
            sheet.paste(picture, (column * step_x, HEAD + row * step_y))
    sheet.save(words.output)


if __name__ == "__main__":
    main()
