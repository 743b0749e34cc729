"""Still images and folders of frames, in and out."""

import errno
import os
import struct
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from sdatc_cli.engine.batch import plan_batch
from sdatc_cli.errors import InputError, OutputError, UsageError
from sdatc_cli.media.images import list_frames, read_image, read_picture, write_image
from sdatc_cli.media.info import PictureTags
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


@pytest.mark.parametrize("white", [1023, 65535])
@pytest.mark.parametrize("grey", [False, True])
def test_deep_ppm_and_pgm_are_read_whole(grey, white, tmp_path):
    values = np.random.default_rng(0).integers(0, white + 1, (20, 24) if grey else (20, 24, 3), np.uint16)
    path = tmp_path / ("in.pgm" if grey else "in.ppm")
    path.write_bytes(b"P%d # 7 8 9\n24 20\n%d\n" % (5 if grey else 6, white) + values.astype(">u2").tobytes())
    wanted = np.rint(values * (65535 / white))
    assert probe(path).bit_depth == 16
    assert np.abs(read_image(path) - (np.repeat(wanted[..., None], 3, 2) if grey else wanted)).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_an_agreed_white_are_refused(kind, tmp_path):
    Image.fromarray(np.full((20, 24), 100, kind)).save(tmp_path / "in.tif")
    with pytest.raises(InputError, match="32 bits"):
        probe(tmp_path / "in.tif")


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


def test_a_folder_that_holds_the_input_is_no_output(tmp_path):
    own, links, linked = tmp_path / "own", tmp_path / "links", tmp_path / "linked"
    for folder in (own, links, linked):
        folder.mkdir()
    for number in range(3):
        Image.fromarray(footage(1, 32, 24)[0]).save(own / f"{number}.png")
        (links / f"{number}.png").symlink_to(own / f"{number}.png")
    (tmp_path / "away.png").write_bytes((own / "0.png").read_bytes())
    (linked / "0.png").symlink_to(tmp_path / "away.png")
    (tmp_path / "other").symlink_to(own)
    for source, out in ((own / "1.png", own), (own / "1.png", tmp_path / "other"), (links, own), (links / "1.png", own),
                        (linked / "0.png", linked)):  # fmt: skip
        with pytest.raises(OutputError, match="holds the input"):
            MediaWriter(out, probe(source), 64, 48, FAST, True)
    assert len(frames_in(own)) == 3 and leftovers(tmp_path, "own", "links", "linked", "away.png", "other") == []


@pytest.mark.parametrize("length", [240, 255])
def test_a_folder_of_frames_may_have_a_long_name(length, tmp_path):
    source, out = write_video(tmp_path / "in.mkv", footage(2, 48, 32)), tmp_path / ("n" * length)
    for overwrite in (False, True):
        convert(source, out, overwrite=overwrite)
        assert len(frames_in(out)) == 2 and leftovers(tmp_path, "in.mkv", out.name) == []


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
    picture = read_picture(tmp_path / f"out.{ending}")
    image, alpha = picture.image, picture.alpha
    assert notices == [] and alpha is not None and image.dtype == (np.uint16 if deep else np.uint8)
    assert (alpha == rgba[..., 3].astype(int) * (257 if deep else 1)).all()
    convert(path, tmp_path / f"large.{ending}", scale=3)
    alpha = read_picture(tmp_path / f"large.{ending}").alpha
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
    info = probe(tmp_path / "out.png")
    assert info.color.hdr == "PQ" and any("PQ" in notice for notice in info.notices)
    convert(tmp_path / "out.png", tmp_path / "back.mkv", EncodeOptions("ffv1", pix_fmt="yuv420p10le"), scale=1)
    back = probe(tmp_path / "back.mkv")
    assert (back.bit_depth, back.color.primaries, back.color.transfer, back.color.matrix) == (10, 9, 16, 9)
    close = read_all(source)[1][0].image.repeat(2, 0).repeat(2, 1).astype(int)
    assert np.abs(read_all(tmp_path / "back.mkv")[1][0].image.astype(int) - close).mean() < 400


@cache
def icc_profile() -> bytes:
    """A profile in RGB that does not call itself sRGB. It holds the second of its making."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace("sRGB".encode("utf-16-be"), "Wide".encode("utf-16-be"))


def exif_data() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"  # to be turned clockwise
    exif[0x8769] = {0x9003: "2020:02:03 04:05:06", 0xA002: 40}  # taken when, how wide
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}  # the place
    return exif


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_colour_profile_and_exif_data_of_pictures_are_kept(ending, tmp_path):
    source, out = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    Image.fromarray(footage(1, 40, 24)[0]).save(source, icc_profile=icc_profile(), exif=exif_data().tobytes())
    _, notices = convert(source, out)
    with Image.open(out) as image:
        exif = image.getexif()
        assert image.size == (48, 80) and image.info["icc_profile"] == icc_profile()
        assert exif.get(0x0112, 1) == 1 and exif[0x010F] == "a maker"
        assert exif.get_ifd(0x8769) == {0x9003: "2020:02:03 04:05:06"} and exif.get_ifd(0x8825)[2] == (1, 2, 3)
    assert notices == []
    for name in ("out.bmp", "out.mp4"):
        _, notices = convert(source, tmp_path / name)
        assert any("colour profile and EXIF data left out" in n for n in notices)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_tags_of_pictures_of_sixteen_bits(ending, tmp_path):
    """They are turned upright; PNG keeps the tags, TIFF says that it does not."""
    deep = np.random.default_rng(0).integers(0, 65536, (20, 24, 3), np.uint16)
    tags = PictureTags(icc_profile(), exif_data().tobytes())
    write_image(tmp_path / "in.png", deep, tags=tags)
    _, notices = convert(tmp_path / "in.png", tmp_path / f"out.{ending}", scale=1)
    found = read_picture(tmp_path / f"out.{ending}")
    assert (found.image == np.rot90(deep, -1)).all()
    assert found.tags.profile == (icc_profile() if ending == "png" else None)
    assert bool(found.tags.exif) == (ending == "png") and bool(notices) == (ending == "tif")


def test_what_is_srgb_or_damaged_is_no_profile(tmp_path):
    for name, profile in (("srgb", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()), ("junk", b"!")):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png", icc_profile=profile)
        assert read_picture(tmp_path / f"{name}.png").tags == PictureTags()


def linear_grey() -> bytes:
    """A profile of greys that are proportional to light (ICC.1:2001-04)."""
    white = struct.pack(">4s4x3i", b"XYZ ", 0xF6D6, 0x10000, 0xD32D)
    curve = struct.pack(">4s4xI", b"curv", 0)
    tags = {b"wtpt": white, b"kTRC": curve}
    head = struct.pack(">I4sI4s4s4s12s4s28s3i48s", 128 + 4 + 12 * 2 + len(white) + len(curve), b"", 0x02100000, b"mntr",
                       b"GRAY", b"XYZ ", b"", b"acsp", b"", 0xF6D6, 0x10000, 0xD32D, b"")  # fmt: skip
    table, at = struct.pack(">I", len(tags)), 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, at, len(content))
        at += len(content)
    return head + table + b"".join(tags.values())


def test_greys_with_a_profile_become_srgb(tmp_path):
    grey = Image.new("L", (16, 16), 128)
    grey.save(tmp_path / "linear.png", icc_profile=linear_grey())
    grey.save(tmp_path / "plain.png")
    assert abs(int(read_image(tmp_path / "linear.png")[0, 0, 0]) - 188) <= 1  # sRGB's curve of 128 / 255
    assert read_image(tmp_path / "plain.png")[0, 0, 0] == 128


def test_an_animated_png_is_a_video(tmp_path):
    first, *others = (Image.fromarray(image) for image in footage(4, 48, 32))
    first.save(tmp_path / "in.png", save_all=True, append_images=others, duration=[80, 40, 40, 120])
    info = probe(tmp_path / "in.png")
    assert (info.kind, info.width, info.height) == ("video", 48, 32)
    convert(tmp_path / "in.png", tmp_path / "out.mkv", EncodeOptions("ffv1"), scale=1)
    assert np.allclose([float(t) for t in times(tmp_path / "out.mkv")], [0, 0.08, 0.12, 0.16], atol=0.0011)
    (task,) = plan_batch([tmp_path / "in.png"], tmp_path / "large", "libx264", False, False)
    assert task.out.name == "in.mkv"


@pytest.mark.parametrize("ending", ["webp", "tif"])
def test_further_pictures_of_a_file_are_told_of(ending, tmp_path):
    first, *others = (Image.fromarray(image) for image in footage(3, 48, 32))
    first.save(tmp_path / f"in.{ending}", save_all=True, append_images=others)
    info = probe(tmp_path / f"in.{ending}")
    assert info.kind == "image" and any("2 more pictures" in notice for notice in info.notices)


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


@pytest.mark.parametrize("name", ["frames", "still.png"])
def test_a_full_disk_names_the_output_not_a_temporary_file(name, tmp_path, monkeypatch):
    source = tmp_path / "in.png"
    write_image(source, footage(1, 32, 24)[0])

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError) as caught:
        convert(source, tmp_path / name, scale=1)
    assert str(tmp_path / name) in str(caught.value) and ".sdatc-" not in str(caught.value)
