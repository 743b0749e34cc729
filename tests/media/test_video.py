"""Videos of many kinds in and out: frames, times, shapes, rotation and aspect, read again from the output."""

import re
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdatc_cli.errors import UsageError
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import Frame, FrameReader
from sdatc_cli.media.write import EncodeOptions, MediaWriter
from tests.media.clips import FAST, VFR, convert, footage, leftovers, psnr, read_all, times, write_video

IN = {
    "h264.mp4": ["-c:v", "libx264", "-bf", "3"],
    "h264.avi": ["-c:v", "libx264", "-bf", "0"],
    "hevc.mkv": ["-c:v", "libx265", "-x265-params", "log-level=none"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-deadline", "realtime"],
    "av1.mkv": ["-c:v", "libsvtav1", "-preset", "12"],
    "mpeg2.ts": ["-c:v", "mpeg2video", "-q:v", "2", "-bf", "2"],
    "mpeg2.mpg": ["-c:v", "mpeg2video", "-q:v", "2"],
    "mpeg4.avi": ["-c:v", "mpeg4", "-q:v", "2", "-bf", "2"],
    "mjpeg.mov": ["-c:v", "mjpeg", "-q:v", "2"],
    "prores.mov": ["-c:v", "prores_ks"],
    "ffv1.mkv": ["-c:v", "ffv1", "-pix_fmt", "yuv422p10le"],
    "anim.gif": [],
    "raw.h264": ["-c:v", "libx264", "-bf", "2"],
    "flash.flv": ["-c:v", "libx264"],
    "windows.wmv": ["-c:v", "wmv2", "-q:v", "2"],
    "grey.mkv": ["-c:v", "libx264", "-pix_fmt", "gray"],
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Twelve frames at 25 fps, lossless."""
    path = tmp_path_factory.mktemp("plain") / "plain.mkv"
    return write_video(path, footage(12, 96, 64), codec="ffv1", pix_fmt="bgr0")


@pytest.mark.parametrize("name", IN)
def test_any_input_is_read_whole(name, plain, tmp_path, ffmpeg):
    source = tmp_path / name
    ffmpeg("-i", plain, *IN[name], source)
    info, frames, damage = read_all(source)
    assert damage == []
    assert (info.width, info.height, len(frames)) == (96, 64, 12)
    assert [f.index for f in frames] == list(range(12))
    assert frames[0].image.dtype == (np.uint16 if info.bit_depth > 8 else np.uint8)
    stamps = [f.pts * f.time_base for f in frames]
    gaps = np.diff([float(s) for s in stamps])
    assert np.allclose(gaps, 0.04, atol=0.0015), gaps
    _, original, _ = read_all(plain)
    for wanted, got in zip(original, frames, strict=True):
        seen = got.image / 257 if got.image.dtype == np.uint16 else got.image
        target = wanted.image.mean(axis=2, keepdims=True) if name == "grey.mkv" else wanted.image
        assert psnr(target + np.zeros(3), seen) > (19 if name in ("grey.mkv", "anim.gif") else 27), name
    convert(source, tmp_path / "out.mkv")
    assert np.allclose(np.diff([float(t) for t in times(tmp_path / "out.mkv")]), gaps, atol=0.0015)


@pytest.mark.parametrize(
    ("ending", "codec", "found", "pix_fmt"),
    [
        ("mkv", "libx264", "h264", "yuv420p"),
        ("mp4", "libx265", "hevc", "yuv420p"),
        ("mp4", "libsvtav1", "libdav1d", "yuv420p"),
        ("mov", "prores", "prores", "yuv422p10le"),
        ("mkv", "ffv1", "ffv1", "bgr0"),
        ("webm", "vp9", "libvpx-vp9", "yuv420p"),
        ("ts", "h264", "h264", "yuv420p"),
        ("ts", "libx265", "hevc", "yuv420p"),
        ("avi", "mpeg4", "mpeg4", "yuv420p"),
        ("avi", "libx264", "h264", "yuv420p"),
        ("mkv", "mpeg2video", "mpeg2video", "yuv420p"),
        ("nut", "ffv1", "ffv1", "bgr0"),
        ("m4v", "mpeg4", "mpeg4", "yuv420p"),
    ],
)
def test_every_container_and_encoder(ending, codec, found, pix_fmt, plain, tmp_path):
    out = tmp_path / f"out.{ending}"
    options = EncodeOptions(codec=codec, crf=10, preset="ultrafast")
    convert(plain, out, options)
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        assert (context.width, context.height, context.pix_fmt) == (192, 128, pix_fmt)
        assert context.name in (found, "vp9", "av1", "libdav1d")
    _, original, _ = read_all(plain)
    _, frames, damage = read_all(out)
    assert damage == [] and len(frames) == 12
    assert np.allclose(np.diff([float(t) for t in times(out)]), 0.04, atol=0.0015)
    for wanted, got in zip(original, frames, strict=True):
        seen = got.image / 257 if got.image.dtype == np.uint16 else got.image
        assert psnr(wanted.image.repeat(2, 0).repeat(2, 1), seen) > 28
    assert leftovers(tmp_path, out.name) == []


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_and_mirroring_survive(degrees, hflip, tmp_path):
    source = write_video(tmp_path / "in.mp4", footage(3, 96, 64), display=(degrees, hflip))
    before = probe(source)
    assert before.rotation == degrees or hflip
    for ending in ("mp4", "mov", "mkv"):
        convert(source, tmp_path / f"out.{ending}")
        after = probe(tmp_path / f"out.{ending}")
        assert (after.rotation, after.display_matrix) == (before.rotation, before.display_matrix)
        assert (after.width, after.height) == (192, 128)
    _, notices = convert(source, tmp_path / "out.avi")
    assert bool([n for n in notices if "rotation" in n]) == (before.display_matrix is not None)


@pytest.mark.parametrize(("degrees", "hflip"), [(90, False), (180, False), (270, False), (0, True), (90, True)])
def test_pictures_are_turned_upright(degrees, hflip, tmp_path, ffmpeg):
    """Against ffmpeg's own automatic rotation."""
    source = write_video(tmp_path / "in.mp4", footage(1, 96, 64), display=(degrees, hflip))
    ffmpeg("-i", source, tmp_path / "truth.png")
    convert(source, tmp_path / "out.png", scale=1)
    _, (truth,), _ = read_all(tmp_path / "truth.png")
    _, (ours,), _ = read_all(tmp_path / "out.png")
    assert ours.image.shape == truth.image.shape
    assert psnr(ours.image, truth.image) > 30


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "libx264"), ("mp4", "libx264"), ("mov", "libx265"),
                                               ("ts", "libx264"), ("avi", "mpeg4")])  # fmt: skip
def test_pixels_that_are_not_square_stay_so(ending, codec, tmp_path):
    setup = {"sample_aspect_ratio": Fraction(16, 11)}
    source = write_video(tmp_path / "in.mkv", footage(3, 96, 64), setup=setup)
    assert probe(source).sample_aspect_ratio == Fraction(16, 11)
    convert(source, tmp_path / f"out.{ending}", replace(FAST, codec=codec))
    assert probe(tmp_path / f"out.{ending}").sample_aspect_ratio == Fraction(16, 11)


@pytest.mark.parametrize(("width", "height"), [(17, 16), (16, 19), (33, 31)])
@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("mkv", "libx265"), ("webm", "libvpx-vp9"),
                                               ("mov", "prores_ks"), ("avi", "mpeg4"), ("mkv", "ffv1")])  # fmt: skip
def test_odd_sizes(width, height, ending, codec, tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(3, width, height), pix_fmt="yuv444p")
    if codec == "libx265" and width < 22:
        pytest.skip("x265 needs a width of 64")
    convert(source, tmp_path / f"out.{ending}", replace(FAST, codec=codec), scale=3)
    _, frames, _ = read_all(tmp_path / f"out.{ending}")
    assert [f.image.shape for f in frames] == [(3 * height, 3 * width, 3)] * 3
    source = write_video(tmp_path / "in.mkv", footage(3, width + width % 2, height + height % 2))
    info = probe(source)
    options = replace(FAST, codec=codec)
    with MediaWriter(tmp_path / f"b.{ending}", info, 3 * width, 3 * height, options, False) as writer:
        for i, image in enumerate(footage(3, 3 * width, 3 * height)):
            writer.write(Frame(image, i * 40, Fraction(1, 1000), i))
    _, frames, _ = read_all(tmp_path / f"b.{ending}")
    assert frames[0].image.shape == (3 * height, 3 * width, 3)
    assert any("odd" in n for n in writer.notices) == (codec in ("libx264", "libx265"))


def test_svt_av1_says_that_it_cannot_do_odd_sizes(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(2, 34, 34))
    with pytest.raises(UsageError, match="odd"):
        MediaWriter(tmp_path / "out.mkv", probe(source), 51, 51, EncodeOptions("libsvtav1", preset="12"), False)
    assert leftovers(tmp_path, "in.mkv") == []


def test_x265_is_not_handed_frames_it_crashes_on(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(2, 48, 64))
    with pytest.raises(UsageError, match="width of 64"):
        convert(source, tmp_path / "out.mkv", replace(FAST, codec="libx265"), scale=1)
    assert leftovers(tmp_path, "in.mkv") == []


def test_deep_video_stays_deep_or_says_so(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(3, 96, 64), codec="ffv1", pix_fmt="yuv420p10le")
    for codec, depth in (("libx264", 10), ("libx265", 10), ("libsvtav1", 10), ("ffv1", 10), ("mpeg4", 8)):
        preset = "12" if codec == "libsvtav1" else "ultrafast"
        _, notices = convert(source, tmp_path / f"{codec}.mkv", EncodeOptions(codec, preset=preset))
        info, frames, _ = read_all(tmp_path / f"{codec}.mkv")
        assert info.bit_depth == depth
        assert bool([n for n in notices if "10-bit" in n]) == (depth == 8)
        assert (frames[0].image.dtype == np.uint16) == (depth == 10)


def test_pixel_format_and_encoder_options(plain, tmp_path):
    options = EncodeOptions(
        pix_fmt="yuv444p10le", preset="ultrafast", options=(("g", "3"), ("x264-params", "scenecut=0"))
    )
    convert(plain, tmp_path / "out.mkv", options)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p10le"
        keys = [p.is_keyframe for p in container.demux(video=0) if p.size]
    assert keys == [i % 3 == 0 for i in range(12)]
    for bad in (
        EncodeOptions(pix_fmt="yuv999p"),
        EncodeOptions(options=(("no-such-option", "1"),)),
        EncodeOptions(preset="rapid"),
        EncodeOptions("libx264", options=(("profile", "nonsense"),)),
    ):
        with pytest.raises(UsageError):
            convert(plain, tmp_path / "bad.mkv", bad)
    assert leftovers(tmp_path, "out.mkv") == []


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_part_has_the_frames_and_indices_of_the_whole(ending, tmp_path):
    options = {"preset": "veryfast", "g": "8", "bf": "3", "x264-params": "open-gop=1"}
    source = write_video(tmp_path / f"in.{ending}", footage(26, 96, 64), VFR, Fraction(1, 1000), options=options)
    _, whole, _ = read_all(source)
    for start, duration in [(0.0, 0.3), (0.3, 0.4), (0.305, None), (0.64, 0.001), (1.3999, 9), (0.9, None), (2.0, 1)]:
        info = probe(source)
        with FrameReader(info, start, duration) as reader:
            part = list(reader)
        end = 1e9 if duration is None else start + duration
        wanted = [f for f, t in zip(whole, VFR, strict=True) if start - 1e-9 <= t / 1000 < end - 1e-9]
        assert [(f.index, f.pts) for f in part] == [(f.index, f.pts) for f in wanted], (start, duration)
        assert all((a.image == b.image).all() for a, b in zip(part, wanted, strict=True))
        assert reader.damage == []


def test_a_part_begins_with_the_picture_that_stands_there(tmp_path):
    """As in a recorded screen: pictures that stay for seconds."""
    source = write_video(tmp_path / "in.mkv", footage(5, 64, 64), [0, 3000, 3040, 3080, 6000], Fraction(1, 1000))
    _, whole, _ = read_all(source)
    for start, duration, wanted in [
        (2.0, 0.5, [(0, 2000, 500)]),
        (2.0, 1.05, [(0, 2000, 1000), (1, 3000, None), (2, 3040, None)]),
        (2.97, 0.08, [(1, 3000, None), (2, 3040, None)]),  # too near the next to be missed
        (3.0, 0.04, [(1, 3000, None)]),
        (5.0, 1.001, [(3, 5000, 1000), (4, 6000, None)]),
    ]:
        _, part, _ = read_all(source, start=start, duration=duration)
        assert [(f.index, f.pts) for f in part] == [place[:2] for place in wanted], (start, duration)
        assert all(f.duration == place[2] for f, place in zip(part, wanted, strict=True) if place[2] is not None)
        assert all((f.image == whole[f.index].image).all() for f in part)


def test_a_part_ends_with_the_picture_that_stands_there(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(5, 64, 64), [0, 3000, 3040, 3080, 6000], Fraction(1, 1000))
    for start, duration, shown, last in [
        (3.0, 1.5, [0, 40, 80], 1420),
        (0.0, 2.0, [0], 2000),
        (0.0, 3.05, [0, 3000, 3040], 40),  # no picture is shown for less than usual
        (0.0, 100.0, [0, 3000, 3040, 3080, 6000], 40),
    ]:
        _, part, _ = read_all(source, start=start, duration=duration)
        assert [f.pts - part[0].pts for f in part] == shown and part[-1].duration == last, (start, duration)
        convert(source, tmp_path / "out.mp4", overwrite=True, start=start, duration=duration)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert float(container.duration / av.time_base) == pytest.approx((shown[-1] + last) / 1000, abs=0.002)


@pytest.mark.parametrize("how", [["-c:v", "mpeg4", "-bf", "2"], ["-c:v", "libx264", "-bf", "3"], ["-c:v", "mjpeg"]])
def test_avi_with_reordered_frames_begins_with_its_sound(how, plain, tmp_path, ffmpeg):
    """AVI stores no presentation times; those that FFmpeg invents are up to the reordering late."""
    source = tmp_path / "in.avi"
    ffmpeg("-i", plain, *how, source)
    _, whole, _ = read_all(source)
    assert [f.pts for f in whole] == list(range(12))
    _, part, _ = read_all(source, start=0.2, duration=0.2)
    assert [(f.index, f.pts) for f in part] == [(i, i) for i in range(5, 10)]
    assert all((a.image == whole[a.index].image).all() for a in part)


stamps = st.lists(st.integers(1, 400), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=stamps, first=st.integers(0, 500), size=st.tuples(st.integers(16, 41), st.integers(16, 41)),
       base=st.sampled_from([Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 12800)]),
       ending=st.sampled_from(["mkv", "mp4", "mov"]))  # fmt: skip
def test_times_survive(steps, first, size, base, ending, tmp_path_factory):
    """Whatever the gaps between frames, the output shows the same frames at the same times."""
    folder = tmp_path_factory.mktemp("times")
    pts = [first + sum(steps[:i]) for i in range(len(steps))]
    source = write_video(folder / "in.mp4", footage(len(pts), *size), pts, base, pix_fmt="yuv444p")
    before = times(source)
    convert(source, folder / f"out.{ending}")
    after = times(folder / f"out.{ending}")
    tick = Fraction(1, 1000) if ending == "mkv" else Fraction(0)
    assert len(before) == len(after)
    assert all(abs(a - b) <= tick for a, b in zip(before, after, strict=True))
    info, frames, _ = read_all(folder / f"out.{ending}")
    assert (info.width, info.height) == (2 * size[0], 2 * size[1]) and len(frames) == len(pts)


def combing(image):
    """How much neighbouring lines differ beyond lines of the same field."""
    lines = image.astype(float)
    return np.abs(lines[1:] - lines[:-1]).mean() - 0.5 * np.abs(lines[2:] - lines[:-2]).mean()


def test_interlaced_video_is_deinterlaced_with_a_notice(tmp_path, ffmpeg):
    plain = write_video(tmp_path / "plain.mkv", footage(12, 96, 64), codec="ffv1", pix_fmt="yuv420p")
    source = tmp_path / "in.ts"
    ffmpeg("-i", plain, "-vf", "tinterlace=interleave_top,setfield=tff", "-c:v", "mpeg2video", "-q:v", "2",
           "-flags", "+ildct+ilme", source)  # fmt: skip
    info, frames, damage = read_all(source)
    assert info.interlaced and any("interlaced" in n for n in info.notices)
    with av.open(str(source)) as container:
        raw = list(container.decode(video=0))
    assert [f.pts for f in frames] == [f.pts for f in raw] and damage == []
    assert all(combing(f.image) < 0.8 * combing(r.to_ndarray(format="rgb24")) for f, r in zip(frames, raw, strict=True))
    convert(source, tmp_path / "out.mkv")
    assert len(times(tmp_path / "out.mkv")) == len(raw)


@pytest.mark.parametrize(
    ("name", "how"),
    [("in.mkv", ["ffv1"]), ("in.webm", ["libvpx-vp9"]), ("in.webm", ["libvpx", "-auto-alt-ref", "0"])],
)
def test_alpha_is_reported_and_not_claimed_any_more(name, how, tmp_path, ffmpeg):
    source = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", "color=red@0.5:s=64x48:d=0.2,format=yuva420p", "-c:v", *how, source)
    info = probe(source)
    assert info.has_alpha and any("transparency" in n for n in info.notices)
    convert(source, tmp_path / "out.mkv")
    assert not probe(tmp_path / "out.mkv").has_alpha
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert "alpha_mode" not in map(str.lower, container.streams.video[0].metadata)


def test_captions_inside_the_video_are_missed_aloud(tmp_path, ffmpeg):
    """A message (SEI) with one pair of letters, as ATSC has them, before every picture of an H.264 stream."""
    write_video(tmp_path / "plain.mkv", footage(3, 96, 64), options={"preset": "ultrafast", "x264-params": "slices=1"})
    ffmpeg("-i", tmp_path / "plain.mkv", "-c", "copy", tmp_path / "plain.h264")
    words = b"\xb5\x00\x31GA94\x03\x41\xff\xfc\xc1\xc2\xff"
    message = b"\0\0\0\x01\x06\x04" + bytes([len(words)]) + words + b"\x80"
    stream = (tmp_path / "plain.h264").read_bytes()
    source = tmp_path / "in.h264"
    source.write_bytes(re.sub(rb"(?:\0)?\0\0\x01[\x65\x41\x61]", lambda found: message + found[0], stream))
    assert not any("captions" in n for n in probe(tmp_path / "plain.h264").notices)
    assert [n for n in probe(source).notices if "captions" in n] == ["closed captions inside the video are left out"]


def test_edit_lists_hide_what_they_hide(tmp_path, ffmpeg):
    """A stream copy cut between keyframes: the MP4 holds frames that its edit list leaves out."""
    whole = write_video(tmp_path / "whole.mp4", footage(30, 96, 64), options={"preset": "ultrafast", "g": "30"})
    ffmpeg("-ss", "0.4", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")
    with av.open(str(tmp_path / "cut.mp4")) as container:
        shown = len(list(container.decode(video=0)))
    _, frames, damage = read_all(tmp_path / "cut.mp4")
    assert len(frames) == shown < 30 and damage == []
    convert(tmp_path / "cut.mp4", tmp_path / "out.mp4")
    assert len(times(tmp_path / "out.mp4")) == shown


def test_equal_and_backward_times_are_repaired_and_told(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(5, 96, 64))
    info = probe(source)
    with FrameReader(info) as reader, MediaWriter(tmp_path / "out.mkv", info, 96, 64, FAST, False) as writer:
        for frame, pts in zip(reader, [0, 40, 40, 20, 160], strict=True):
            writer.write(replace(frame, pts=pts))
    assert times(tmp_path / "out.mkv") == [Fraction(t, 1000) for t in (0, 40, 41, 42, 160)]
    assert any("2 frames were moved" in n for n in writer.notices)


def test_what_frames_have_beside_their_pictures_is_missed_aloud(tmp_path):
    """x264 marks frames as the two halves of stereoscopic ones, as Blu-ray's are packed."""
    source = write_video(tmp_path / "in.mkv", footage(3, 96, 64), options={"x264-params": "frame-packing=3"})
    assert "the mark of stereoscopic video is left out" in probe(source).notices


def test_a_part_does_not_bear_the_timecode_of_the_beginning(tmp_path, ffmpeg):
    whole = write_video(tmp_path / "whole.mov", footage(10, 96, 64))
    source = tmp_path / "in.mov"
    ffmpeg("-i", whole, "-c", "copy", "-timecode", "01:02:03:04", source)
    for part, there in (({}, True), ({"start": 0.2}, False)):
        out = tmp_path / f"out{there}.mov"
        _, notices = convert(source, out, **part)
        with av.open(str(out)) as container:
            tags = container.metadata | container.streams.video[0].metadata
        assert (tags.get("timecode") == "01:02:03:04") is there
        assert any("timecode left out" in line for line in notices) is not there


def test_motion_jpeg_is_encoded_without_more_words(tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(3, 96, 64))
    convert(source, tmp_path / "out.mov", EncodeOptions("mjpeg"))
    _, (first, *_), damage = read_all(tmp_path / "out.mov")
    assert damage == [] and psnr(first.image, np.kron(footage(1, 96, 64)[0], np.ones((2, 2, 1)))) > 28


def test_dispositions_that_a_container_does_not_know_are_named(rich_mkv, tmp_path):
    for ending, lost in (("mkv", ""), ("mp4", ""), ("mov", "comment"), ("ts", "comment"), ("avi", "comment")):
        _, notices = convert(rich_mkv, tmp_path / f"out.{ending}")
        told = [line for line in notices if line.startswith("dispositions")]
        assert len(told) == bool(lost) and all(lost in line for line in told), (ending, notices)
