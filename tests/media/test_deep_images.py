"""Pictures of 16 bits that OpenCV reads wrong without a word; names of frames."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sdatc_cli.media.images import list_frames, read_picture, write_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 65536, (20, 24), np.uint16)
FOUR = RNG.integers(0, 65536, (20, 24, 4), np.uint16)


def tiff(pixels: np.ndarray, meaning: int, extra: int | None = None, order: str = "<") -> bytes:
    """A TIFF of one strip; `meaning` is its PhotometricInterpretation, `extra` its ExtraSamples."""
    height, width, channels = (*pixels.shape, 1)[:3]
    body = pixels.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: meaning, 273: 8, 277: channels, 278: height, 279: len(body)}
    tags |= {} if extra is None else {338: extra}
    at = 8 + len(body)
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, at) + body
    out += struct.pack(f"{order}H", len(tags))
    for tag, value in tags.items():
        if tag == 258 and channels > 1:  # a list, which lies behind the directory
            out += struct.pack(f"{order}HHII", tag, 3, channels, at + 6 + 12 * len(tags))
        elif tag in (258, 259, 262, 277, 338):
            out += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
        else:
            out += struct.pack(f"{order}HHII", tag, 4, 1, value)
    return out + struct.pack(f"{order}I{channels}H", 0, *[16] * channels)


def png(pixels: np.ndarray, clear: np.ndarray) -> bytes:
    """A PNG whose tRNS chunk says which grey or colour is clear."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    parts = {b"IHDR": head, b"tRNS": np.array(clear, ">u2").tobytes(), b"IDAT": zlib.compress(rows), b"IEND": b""}
    chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("meaning", [0, 1])
def test_white_is_zero_is_no_negative(meaning, order, tmp_path):
    (tmp_path / "in.tif").write_bytes(tiff(GREY, meaning, order=order))
    picture = read_picture(tmp_path / "in.tif")
    wanted = GREY if meaning else 65535 - GREY
    assert picture.image.dtype == np.uint16 and (picture.image == wanted[..., None]).all() and picture.alpha is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extra", [None, 0, 1, 2])
def test_a_fourth_channel_of_another_meaning_is_no_opacity(extra, order, tmp_path):
    (tmp_path / "in.tif").write_bytes(tiff(FOUR, 2, extra, order))
    picture = read_picture(tmp_path / "in.tif")
    assert (picture.image == FOUR[..., :3]).all()
    assert picture.alpha is None if extra == 0 else (picture.alpha == FOUR[..., 3]).all()


def test_opacity_of_our_own_tiff_is_read_again(tmp_path):
    write_image(tmp_path / "out.tif", FOUR[..., :3], FOUR[..., 3])
    picture = read_picture(tmp_path / "out.tif")
    assert (picture.image == FOUR[..., :3]).all() and (picture.alpha == FOUR[..., 3]).all()


@pytest.mark.parametrize("pixels", [GREY, FOUR[..., :3]], ids=["grey", "RGB"])
def test_the_clear_value_of_a_deep_png(pixels, tmp_path):
    (tmp_path / "in.png").write_bytes(png(pixels, pixels[3, 5]))
    picture = read_picture(tmp_path / "in.png")
    clear = pixels == pixels[3, 5] if pixels.ndim == 2 else (pixels == pixels[3, 5]).all(-1)
    assert picture.alpha is not None and (picture.alpha == np.where(clear, 0, 65535)).all()
    assert (picture.image == (pixels[..., None] if pixels.ndim == 2 else pixels)).all()


def test_digits_that_are_no_decimals_are_letters(tmp_path):
    for name in ("①", "²", "10", "9", "x²", "٣"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    names = [path.stem for path in list_frames(tmp_path)]
    assert len(names) == 6 and names.index("9") < names.index("10") < names.index("²")
