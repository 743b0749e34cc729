"""Still images and folders of frames, in and out."""

import errno
import os
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from sdatc_cli.errors import InputError, OutputError, UsageError
from sdatc_cli.media.images import list_frames, read_image, read_picture, write_image
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import FrameReader
from sdatc_cli.media.write import EncodeOptions, MediaWriter
from tests.media.clips import FAST, convert, footage, leftovers, psnr, read_all, times, write_video


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "ppm", "jpg", "JPEG"])
def test_an_image_goes_through(ending, tmp_path):
    (picture,) = footage(1, 51, 37)
    Image.fromarray(picture).save(tmp_path / f"in.{ending}", **({"lossless": True} if ending == "webp" else {}))
    info = probe(tmp_path / f"in.{ending}")
    assert (info.kind, info.width, info.height, info.frame_count) == ("image", 51, 37, 1)
    convert(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}", scale=1)
    result = read_image(tmp_path / f"out.{ending}")
    assert psnr(result, read_image(tmp_path / f"in.{ending}")) > (35 if ending.lower().startswith("jp") else 99)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_sixteen_bits_survive(ending, grey, tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 24) if grey else (20, 24, 3), np.uint16)
    cv2.imwrite(str(tmp_path / f"in.{ending}"), deep if grey else deep[..., ::-1])
    info = probe(tmp_path / f"in.{ending}")
    assert info.bit_depth == 16
    convert(tmp_path / f"in.{ending}", tmp_path / f"out.{ending}", scale=1)
    wanted = np.repeat(deep[..., None], 3, 2) if grey else deep
    assert (read_image(tmp_path / f"out.{ending}") == wanted).all()
    write_image(tmp_path / "less.jpg", wanted)
    assert read_image(tmp_path / "less.jpg").dtype == np.uint8


def test_orientation_of_photos_is_applied(tmp_path):
    image = Image.fromarray(footage(1, 40, 24)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "in.jpg", exif=exif, quality=98)
    info = probe(tmp_path / "in.jpg")
    assert (info.width, info.height) == (24, 40)
    assert psnr(read_image(tmp_path / "in.jpg"), np.rot90(np.asarray(image), -1)) > 30


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_image_is_read_as_rgb(mode, tmp_path):
    image = Image.fromarray(footage(1, 40, 24)[0])
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    path = tmp_path / ("in.tif" if mode == "CMYK" else "in.png")
    image.save(path)
    assert read_image(path).shape == (24, 40, 3)
    assert probe(path).has_alpha == (mode in ("LA", "RGBA"))


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 2, 10, 9, 100):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"shot{number}.png")
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_text("not a frame")
    info, frames, damage = read_all(folder)
    assert (info.kind, info.frame_count, damage) == ("frames", 5, [])
    assert [int(f.image[0, 0, 0]) for f in frames] == [1, 2, 9, 10, 100]
    assert [f.index for f in frames] == list(range(5))
    assert [f.name.name for f in frames] == ["shot1.png", "shot2.png", "shot9.png", "shot10.png", "shot100.png"]
    assert len(list_frames(folder)) == 5
    part = read_all(folder, start=0.04, duration=0.08)[1]
    assert [f.index for f in part] == [1, 2]


def test_folder_to_video_and_back(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, image in enumerate(footage(6, 48, 32)):
        Image.fromarray(image).save(folder / f"{i:04d}.png")
    convert(folder, tmp_path / "a.mkv", EncodeOptions("ffv1", frame_rate=Fraction(30)), scale=1)
    assert np.allclose([float(t) for t in times(tmp_path / "a.mkv")], np.arange(6) / 30, atol=0.0006)
    convert(tmp_path / "a.mkv", tmp_path / "out", scale=1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:08d}.png" for i in range(6)]
    for i, image in enumerate(footage(6, 48, 32)):
        assert (read_image(tmp_path / "out" / f"{i:08d}.png") == image).all()
    convert(folder, tmp_path / "b.mp4", scale=1)
    assert times(tmp_path / "b.mp4") == [Fraction(i, 25) for i in range(6)]
    assert leftovers(tmp_path, "in", "a.mkv", "b.mp4", "out") == []


def test_a_folder_of_frames_may_be_overwritten_but_nothing_else(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(5, 48, 32))
    convert(source, tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        convert(source, tmp_path / "out")
    convert(source, tmp_path / "out", overwrite=True, start=0.08)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{i:08d}.png" for i in (2, 3, 4)]
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="left alone"):
        convert(source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").exists() and leftovers(tmp_path, "in.mkv", "out") == []


def test_an_image_becomes_a_video_and_a_one_frame_video_an_image(tmp_path):
    Image.fromarray(footage(1, 48, 32)[0]).save(tmp_path / "in.png")
    convert(tmp_path / "in.png", tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == [0]
    convert(tmp_path / "out.mp4", tmp_path / "back.png", scale=1)
    assert read_image(tmp_path / "back.png").shape == (64, 96, 3)


def test_pictures_say_what_they_leave_out(rich_mkv, tmp_path):
    _, notices = convert(rich_mkv, tmp_path / "out")
    assert any("audio stream 1" in n and "subtitle stream 3" in n for n in notices)


def test_broken_and_odd_frames_of_a_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, image in enumerate(footage(5, 48, 32)):
        Image.fromarray(image).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:100])
    _, frames, damage = read_all(folder)
    assert [f.index for f in frames] == [0, 1, 3, 4]
    assert len(damage) == 1 and "2.png" in damage[0]
    Image.new("RGB", (20, 20)).save(folder / "4.png")
    with pytest.raises(InputError, match="20x20"):
        read_all(folder)


def test_a_wrong_shape_is_a_mistake_of_the_caller(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(2, 48, 32))
    info = probe(source)
    with FrameReader(info) as reader:
        frame = next(iter(reader))
    with pytest.raises(ValueError, match="shape"), MediaWriter(tmp_path / "o.mkv", info, 96, 64, FAST, False) as writer:
        writer.write(replace(frame))


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
@pytest.mark.parametrize("deep", [False, True])
def test_transparency_of_pictures_is_kept(ending, deep, tmp_path):
    if deep and ending == "webp":
        pytest.skip("WebP has 8 bits")
    rgba = np.dstack([footage(1, 40, 24)[0], np.linspace(0, 255, 40, dtype=np.uint8)[None].repeat(24, 0)])
    path = tmp_path / f"in.{ending}"
    if deep:
        cv2.imwrite(str(path), (rgba.astype(np.uint16) * 257)[..., [2, 1, 0, 3]])
    else:
        Image.fromarray(rgba).save(path, **({"lossless": True, "exact": True} if ending == "webp" else {}))
    _, notices = convert(path, tmp_path / f"out.{ending}", scale=1)
    image, alpha = read_picture(tmp_path / f"out.{ending}")
    assert notices == [] and alpha is not None and image.dtype == (np.uint16 if deep else np.uint8)
    assert (alpha == rgba[..., 3].astype(int) * (257 if deep else 1)).all()
    convert(path, tmp_path / f"large.{ending}", scale=3)
    _, alpha = read_picture(tmp_path / f"large.{ending}")
    assert alpha is not None and alpha.shape == (72, 120)
    for name in ("out.jpg", "out.mp4"):
        _, notices = convert(path, tmp_path / name)
        assert any("transparency" in n for n in notices)


def test_hdr_pictures_are_tagged_or_refused(tmp_path):
    setup = {"colorspace": 9, "color_primaries": 9, "color_trc": 16, "color_range": 1}
    source = write_video(tmp_path / "in.mkv", footage(1, 96, 64), codec="ffv1", pix_fmt="yuv420p10le", setup=setup)
    convert(source, tmp_path / "out.png")
    assert b"cICP" + bytes([9, 16, 0, 1]) in (tmp_path / "out.png").read_bytes()
    assert read_image(tmp_path / "out.png").dtype == np.uint16
    with pytest.raises(UsageError, match="HDR"):
        convert(source, tmp_path / "out.jpg")
    assert leftovers(tmp_path, "in.mkv", "out.png") == []


def frames_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_earlier_frames_are_whole_until_the_new_ones_take_their_place(tmp_path, monkeypatch):
    source = write_video(tmp_path / "in.mkv", footage(3, 32, 24))
    out = tmp_path / "frames"
    convert(source, out)
    before = frames_in(out)
    real, calls = os.rename, []

    def rename(one, other):
        calls.append((one, other))
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(one, other)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(OutputError, match="cannot be written"):
            convert(source, out, scale=1, overwrite=True)
    assert len(calls) == 3 and frames_in(out) == before and leftovers(tmp_path, "in.mkv", "frames") == []
    out.rename(tmp_path / ".frames.earlier")  # as a kill between the two renames leaves it
    with pytest.raises(RuntimeError), MediaWriter(out, probe(source), 64, 48, FAST, True):
        raise RuntimeError
    assert frames_in(out) == before and leftovers(tmp_path, "in.mkv", "frames") == []
    convert(source, out, scale=1, overwrite=True)
    assert len(frames_in(out)) == 3 and frames_in(out) != before
    assert leftovers(tmp_path, "in.mkv", "frames") == []
