"""Pictures of 16 bits that OpenCV reads wrong without a word; names of frames."""

from PIL import Image

from sdatc_cli.media.images import list_frames


def test_digits_that_are_no_decimals_are_letters(tmp_path):
    for name in ("①", "²", "10", "9", "x²", "٣"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    names = [path.stem for path in list_frames(tmp_path)]
    assert len(names) == 6 and names.index("9") < names.index("10") < names.index("²")
