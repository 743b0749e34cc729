"""Colours come out as they went in: against the formulas of the standards, and through real files."""

from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from sdatc_cli.errors import InputError
from sdatc_cli.media.color import Converter, resolve
from sdatc_cli.media.info import RANGE_FULL, RANGE_LIMITED, ColorInfo
from sdatc_cli.media.probe import probe
from sdatc_cli.media.write import EncodeOptions
from tests.media.clips import convert, footage, place_of_red, psnr, read_all, red_bar, write_video

WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
COLOURS = list(product((0, 90, 255), repeat=3))


def standard_yuv(rgb: tuple[int, ...], matrix: int, full: bool, bits: int) -> np.ndarray:
    """Y, Cb, Cr code values of an RGB colour (0-255) from the definitions in BT.601, BT.709 and BT.2020."""
    red, green, blue = (value / 255 for value in rgb)
    kr, kb = WEIGHTS[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 - 2 * kb), (red - y) / (2 - 2 * kr)
    scale = 2 ** (bits - 8)
    if full:
        most = 2**bits - 1
        return np.array([y * most, cb * most + 128 * scale, cr * most + 128 * scale])
    return np.array([219 * y + 16, 224 * cb + 128, 224 * cr + 128]) * scale


def planes(frame: av.VideoFrame) -> np.ndarray:
    """The code values in the middle of each plane."""
    kind = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    return np.array([np.frombuffer(bytes(p), kind)[: p.width].astype(float).mean() for p in frame.planes])


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "yuv422p10le"])
def test_conversion_follows_the_standards_both_ways(matrix, full, pix_fmt):
    bits = 10 if "10" in pix_fmt else 8
    converter = Converter(ColorInfo(1, 1, matrix, RANGE_FULL if full else RANGE_LIMITED))
    for colour in COLOURS:
        image = np.full((16, 16, 3), colour, np.uint8)
        if bits == 10:
            image = image.astype(np.uint16) * 257
        frame = converter.to_frame(image, pix_fmt)
        off = np.abs(planes(frame) - standard_yuv(colour, matrix, full, bits))
        assert off.max() <= 0.51, (colour, off)
        back = converter.to_rgb(frame, 16, 16, deep=bits > 8).astype(int)
        assert np.abs(back - image).max() <= (2 if bits == 8 else 110)
        assert (frame.colorspace, frame.color_range) == (matrix, 2 if full else 1)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 6, 9]), st.booleans(), st.integers(16, 40), st.integers(16, 40), st.integers(0, 99))
def test_yuv_survives_the_way_through_rgb(matrix, full, width, height, seed):
    """What the network would be handed, written back unchanged, is the input: no drift, no gain, no tint."""
    converter = Converter(ColorInfo(1, 1, matrix, 2 if full else 1))
    rng = np.random.default_rng(seed)
    image = np.repeat(np.repeat(rng.integers(40, 216, (5, 5, 3), np.uint8), 8, 0), 8, 1)[:height, :width]
    first = converter.to_frame(image, "yuv444p")
    second = converter.to_frame(converter.to_rgb(first, width, height, deep=False), "yuv444p")
    assert np.abs(first.to_ndarray().astype(int) - second.to_ndarray()).max() <= 1


@pytest.mark.parametrize(
    "pix_fmt", ["gray", "gray10le", "nv12", "p010le", "yuva420p", "gbrp", "yuv411p", "bgr0", "ya8"]
)
def test_other_layouts_of_grey(pix_fmt):
    """Grey through every layout of samples: limited range for luma, none for RGB."""
    deep = "10" in pix_fmt
    converter = Converter(ColorInfo(matrix=6, range=1))
    for value in (0, 100, 255):
        image = np.full((32, 32, 3), value * (257 if deep else 1), np.uint16 if deep else np.uint8)
        frame = converter.to_frame(image, "yuv444p10le" if deep else "yuv444p")
        if pix_fmt in ("gray", "gray10le"):
            grey = av.VideoFrame(32, 32, pix_fmt)
            grey.planes[0].update(bytes(frame.planes[0]))
            frame = grey
        elif pix_fmt == "ya8":
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="ya8")
        else:
            frame = converter.to_frame(image, pix_fmt)
        back = converter.to_rgb(frame, 32, 32, deep)
        assert np.abs(back.astype(int) - image).max() <= (40 if deep else 1)


@pytest.mark.parametrize("pix_fmt", ["gray16be", "gray10be", "gray12le", "monob", "monow", "grayf32le"])
def test_rare_kinds_of_grey_are_read(pix_fmt):
    """A step from black to white, which all of them can hold, as FFmpeg itself converts it; full range."""
    step = np.tile(np.where(np.arange(64) < 24, 0, 255).astype(np.uint8), (32, 1))
    frame = av.VideoFrame.from_ndarray(step, "gray").reformat(format=pix_fmt)
    deep = VideoFormat(pix_fmt).components[0].bits > 8
    image = Converter(ColorInfo(matrix=6, range=RANGE_FULL)).to_rgb(frame, 64, 32, deep)
    assert (image == step[..., None].astype(image.dtype) * (257 if deep else 1)).all()


@pytest.mark.parametrize("pix_fmt", ["gray16be", "gray16le"])
def test_grey_is_written_in_either_order_of_bytes(pix_fmt):
    ramp = np.repeat(np.arange(0, 65536, 1024, dtype=np.uint16)[None, :, None], 32, 0).repeat(3, 2)
    frame = Converter(ColorInfo(matrix=6, range=RANGE_FULL)).to_frame(ramp, pix_fmt)
    assert np.abs(frame.to_ndarray(format="gray16le").astype(int) - ramp[..., 0]).max() <= 1


def test_untagged_video_is_read_as_players_do_and_tagged():
    assert resolve(ColorInfo(), 640, 480).matrix == 6
    assert resolve(ColorInfo(), 1280, 720).matrix == 1
    assert resolve(ColorInfo(matrix=9), 640, 480).matrix == 9
    assert resolve(ColorInfo(matrix=0, range=2), 640, 480, rgb_source=True) == ColorInfo(matrix=6, range=1)


@pytest.mark.parametrize(
    ("setup", "pix_fmt"),
    [
        ({"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}, "yuv420p"),
        ({"colorspace": 5, "color_primaries": 5, "color_trc": 6, "color_range": 1}, "yuv420p"),
        ({"colorspace": 6, "color_primaries": 6, "color_trc": 6, "color_range": 2}, "yuv420p"),
        ({"colorspace": 1, "color_primaries": 1, "color_trc": 13, "color_range": 2}, "yuv444p"),
        ({"colorspace": 9, "color_primaries": 9, "color_trc": 14, "color_range": 1}, "yuv422p10le"),
    ],
)
@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_tags_and_colours_survive_a_file(setup, pix_fmt, ending, tmp_path):
    source, out = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    options = {"preset": "ultrafast", "crf": "1"}
    write_video(source, footage(3, 96, 64), pix_fmt=pix_fmt, setup=setup, options=options)
    before = probe(source).color
    assert before == ColorInfo(setup["color_primaries"], setup["color_trc"], setup["colorspace"], setup["color_range"])
    convert(source, out, EncodeOptions(preset="ultrafast", crf=1), scale=1)
    info, frames, _ = read_all(out)
    assert info.color == before
    assert info.pix_fmt.replace("yuvj", "yuv") == pix_fmt
    _, original, _ = read_all(source)
    scale = 257 if info.bit_depth > 8 else 1
    for a, b in zip(original, frames, strict=True):
        x, y = a.image / scale, b.image / scale
        assert psnr(x, y) > 38
        assert np.abs((x - y).mean(axis=(0, 1))).max() < 0.5  # no tint


@pytest.mark.parametrize("depth", [8, 10])
def test_solid_colours_survive_a_file(depth, tmp_path):
    pix_fmt = "yuv444p" if depth == 8 else "yuv444p10le"
    colours = [np.full((32, 32, 3), c, np.uint8) for c in COLOURS]
    setup = {"colorspace": 1, "color_range": 1}
    converter = Converter(ColorInfo(matrix=1, range=1))
    ready = [converter.to_frame(c if depth == 8 else c.astype(np.uint16) * 257, pix_fmt) for c in colours]
    source = write_video(tmp_path / "in.mkv", ready, pix_fmt=pix_fmt, setup=setup, options={"qp": "0"})
    convert(source, tmp_path / "out.mkv", EncodeOptions(preset="ultrafast", crf=0, pix_fmt=pix_fmt), scale=1)
    _, frames, _ = read_all(tmp_path / "out.mkv")
    for wanted, got in zip(COLOURS, frames, strict=True):
        error = np.abs(got.image.astype(float) / (1 if depth == 8 else 257) - wanted).max()
        assert error <= (2 if depth == 8 else 0.4), wanted


@pytest.mark.parametrize(
    ("trc", "codec"), [(16, "libx265"), (18, "libx265"), (16, "libx264"), (16, "libsvtav1"), (18, "ffv1")]
)
def test_hdr_stays_ten_bit_and_tagged(trc, codec, tmp_path):
    source = hdr_video(tmp_path / "in.mkv", trc)
    info = probe(source)
    assert info.color.hdr == {16: "PQ", 18: "HLG"}[trc] and info.bit_depth == 10
    preset = "12" if codec == "libsvtav1" else "ultrafast"
    convert(source, tmp_path / "out.mkv", EncodeOptions(codec=codec, preset=preset))
    after = probe(tmp_path / "out.mkv")
    assert (after.color, after.bit_depth) == (info.color, 10)


@pytest.mark.parametrize("range_", [RANGE_LIMITED, RANGE_FULL])
@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le"])
def test_grey_is_the_brightness_of_the_colours(pix_fmt, range_, tmp_path):
    setup = {"color_range": range_}
    source = write_video(tmp_path / "in.mkv", footage(2, 96, 64), codec="ffv1", pix_fmt="yuv444p", setup=setup)
    convert(source, tmp_path / "out.mkv", EncodeOptions("ffv1", pix_fmt=pix_fmt), scale=1)
    (before, *_), (after, *_) = read_all(source)[1], read_all(tmp_path / "out.mkv")[1]
    luma = before.image.astype(float) @ (0.299, 0.587, 0.114)
    image = after.image if after.image.dtype == np.uint8 else after.image / 257
    assert psnr(np.repeat(luma[..., None], 3, 2), image) > 45


@pytest.mark.parametrize("codec", ["libx265", "libx264", "libsvtav1"])
def test_mastering_metadata_is_carried(codec, tmp_path):
    source = hdr_video(tmp_path / "in.mkv", 16)
    before = probe(source).mastering
    assert before is not None and before.luminance == (Fraction(1, 10000) * 50, 1000) and before.max_cll == 900
    preset = "12" if codec == "libsvtav1" else "ultrafast"
    convert(source, tmp_path / "out.mkv", EncodeOptions(codec=codec, preset=preset))
    after = probe(tmp_path / "out.mkv").mastering
    assert after is not None and after.primaries is not None and before.primaries is not None
    assert (after.max_cll, after.max_fall) == (900, 300)
    for a, b in zip(before.primaries, after.primaries, strict=True):
        assert abs(a[0] - b[0]) < 1e-3 and abs(a[1] - b[1]) < 1e-3
    assert after.luminance is not None and abs(after.luminance[1] - 1000) < 1


def hdr_video(path, trc):
    """Ten-bit HEVC in BT.2020 with mastering metadata."""
    setup = {"colorspace": 9, "color_primaries": 9, "color_trc": trc, "color_range": 1}
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    options = {"preset": "ultrafast", "x265-params": f"log-level=none:master-display={display}:max-cll=900,300:hdr10=1"}
    return write_video(path, footage(4, 96, 64), codec="libx265", pix_fmt="yuv420p10le", setup=setup, options=options)


@pytest.mark.parametrize(
    "codec, pix_fmt",
    [
        ("libx264", "yuv420p"),
        ("libx265", "yuv420p10le"),
        ("mpeg4", "yuv420p"),
        ("libvpx-vp9", "yuv420p"),
        ("libsvtav1", "yuv420p"),
        ("ffv1", "yuv420p"),
        ("prores_ks", "yuv422p10le"),
        ("libx264", "yuv444p"),
    ],
)
def test_chroma_stays_where_it_was_in_a_file(codec, pix_fmt, tmp_path):
    """Half the samples of a row lie at the left one of two pixels: as files are read by FFmpeg, they are written."""
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    write_video(source, [red_bar(128, 96)] * 3, codec="ffv1", pix_fmt="bgr0")
    convert(source, out, EncodeOptions(codec=codec, pix_fmt=pix_fmt, preset="ultrafast", crf=4), scale=1)
    assert abs(place_of_red(read_all(out)[1][1].image)) < 0.1


@pytest.mark.parametrize("place, off", [("left", 0.0), ("center", 0.5)])
def test_chroma_is_read_where_the_codec_says_it_lies(place, off, tmp_path):
    bar = 128 + 60 * np.exp(-(((2 * np.arange(64) - 63.5) / 6) ** 2))
    frame = av.VideoFrame(128, 96, "yuv420p")
    for plane, row in zip(frame.planes, (np.full(128, 120), np.full(64, 128), bar), strict=True):
        padded = np.pad(np.rint(row).astype(np.uint8), (0, plane.line_size - plane.width))
        plane.update(np.tile(padded, plane.height).tobytes())
    path = tmp_path / "in.mkv"
    write_video(path, [frame], options={"crf": "1", "chroma_sample_location": place})
    assert place_of_red(read_all(path)[1][0].image) == pytest.approx(off, abs=0.1)


def test_a_pixel_format_that_nothing_converts_is_told():
    frame = VideoFrame(16, 16, "rgb4")
    with pytest.raises(InputError, match="pixel format rgb4 cannot be converted"):
        Converter(resolve(ColorInfo(), 16, 16, True)).to_rgb(frame, 16, 16, deep=False)
