"""How coarsely a codec rounded, read from its decoder: against what the encoder was told."""

import math
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from sdatc_cli.media import isolated
from sdatc_cli.media.evidence import Evidence, evidence
from sdatc_cli.media.headers import PictureHeaders
from sdatc_cli.media.images import write_image
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.probe import probe
from sdatc_cli.media.quantiser import BETTER, OPTIONS, frame_quantiser, pictures_quantiser, run_quantiser
from tests.media.clips import footage, write_video

CONSTANT = "qp={}:ipratio=1:pbratio=1"  # the same for I-, P- and B-frames


def encoded(path: Path, codec: str, frames: int = 12, pix_fmt: str = "yuv420p", **options: str) -> Path:
    return write_video(path, footage(frames, 96, 64), codec=codec, pix_fmt=pix_fmt, options=options)


def quantiser_of(info: MediaInfo) -> float | None:
    return evidence(info).quantiser


def quantisers(path: Path, bit_depth: int = 8) -> list[float | None]:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = OPTIONS
        return [frame_quantiser(frame, bit_depth) for frame in container.decode(video=0)]


@pytest.mark.parametrize("qp", [12, 30, 44])
def test_h264_tells_what_the_encoder_was_told(qp: int, tmp_path: Path) -> None:
    path = encoded(tmp_path / "in.mkv", "libx264", **{"x264-params": CONSTANT.format(qp) + ":deblock=0"})
    told = [value for value in quantisers(path) if value]  # 0: a frame that only copies
    assert len(told) > 6 and told == pytest.approx([qp] * len(told), abs=0.5)
    assert quantiser_of(probe(path)) == pytest.approx(qp, abs=0.5)


def test_deep_h264_counts_as_the_flat_one_does(tmp_path: Path) -> None:
    """The same CRF, that is much the same picture."""
    flat, deep = (
        write_video(tmp_path / f"{name}.mkv", footage(8, 96, 64), pix_fmt=name, options={"crf": "30", "bf": "0"})
        for name in ("yuv420p", "yuv420p10le")
    )
    assert probe(deep).bit_depth == 10
    steps = [quantiser_of(probe(path)) for path in (flat, deep)]
    assert steps[0] is not None and steps[1] == pytest.approx(steps[0], abs=1.5)


@pytest.mark.parametrize("codec, quantiser", [("mpeg4", 3), ("mpeg4", 12), ("mpeg2video", 6)])
def test_mpeg_tells_its_step_on_the_scale_of_h264(codec: str, quantiser: int, tmp_path: Path) -> None:
    """Both step by twice their quantiser; H.264's step is 0.625 * 2 ** (QP / 6)."""
    path = encoded(tmp_path / "in.mkv", codec, qmin=str(quantiser), qmax=str(quantiser))
    expected = 6 * math.log2(2 * quantiser / 0.625)
    assert quantiser_of(probe(path)) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("quantiser, step", [(10, 47), (30, 152), (40, 305), (58, 1173)])
def test_vp9_tells_its_step_on_the_scale_of_h264(quantiser: int, step: int, tmp_path: Path) -> None:
    """The encoder's 63 numbers stand for every fourth of 255 indices, of steps in eighths of a level."""
    number = str(quantiser)
    options = {"qmin": number, "qmax": number, "crf": number, "b": "0", "deadline": "realtime", "auto-alt-ref": "0"}
    path = encoded(tmp_path / "in.webm", "libvpx-vp9", **options)
    assert quantiser_of(probe(path)) == pytest.approx(6 * math.log2(step / 8 / 0.625) - BETTER["vp9"], abs=0.4)


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv", "in.ts", "in.hevc"])
@pytest.mark.parametrize("qp", [15, 30, 44])
def test_hevc_tells_what_the_encoder_was_told(qp: int, name: str, tmp_path: Path) -> None:
    """Less what its pictures are better by than H.264's; from sets of parameters apart or among the pictures."""
    path = encoded(tmp_path / name, "libx265", **{"x265-params": CONSTANT.format(qp) + ":log-level=none"})
    assert quantiser_of(probe(path)) == qp - BETTER["hevc"]


def test_deep_hevc_counts_as_the_flat_one_does(tmp_path: Path) -> None:
    """The same CRF, that is much the same picture."""
    options = {"crf": "30", "x265-params": "log-level=none"}
    flat, deep = (
        write_video(tmp_path / f"{name}.mkv", footage(8, 96, 64), codec="libx265", pix_fmt=name, options=options)
        for name in ("yuv420p", "yuv420p10le")
    )
    assert probe(deep).bit_depth == 10
    steps = [quantiser_of(probe(path)) for path in (flat, deep)]
    assert steps[0] is not None and steps[1] == pytest.approx(steps[0], abs=1.5)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("quantiser, step", [(10, 47), (30, 152), (40, 305), (58, 1173)])
def test_av1_tells_its_step_on_the_scale_of_h264(quantiser: int, step: int, pix_fmt: str, tmp_path: Path) -> None:
    """As VP9, from which it has the numbers of its encoders and its table of steps; deeper formats count the same."""
    options = {"preset": "12", "svtav1-params": f"rc=0:qp={quantiser}:aq-mode=0:keyint=1"}
    path = write_video(tmp_path / "in.mp4", footage(6, 96, 64), codec="libsvtav1", pix_fmt=pix_fmt, options=options)
    assert quantiser_of(probe(path)) == pytest.approx(6 * math.log2(step / 8 / 0.625) - BETTER["av1"], abs=0.4)


@pytest.mark.parametrize("quantiser, step", [(10, 16), (40, 68), (60, 239)])
def test_vp8_tells_its_step_on_the_scale_of_h264(quantiser: int, step: int, tmp_path: Path) -> None:
    """The encoder's 63 numbers stand for 127 indices, of steps in halves of a level."""
    number = str(quantiser)
    options = {"qmin": number, "qmax": number, "crf": number, "b": "0", "deadline": "realtime", "auto-alt-ref": "0"}
    path = encoded(tmp_path / "in.webm", "libvpx", **options)
    assert quantiser_of(probe(path)) == pytest.approx(6 * math.log2(step / 2 / 0.625), abs=0.4)


def test_hidden_pictures_of_av1_tell_too(tmp_path: Path) -> None:
    """One packet may hold several, another none but the word to show one of them."""
    path = encoded(tmp_path / "in.mkv", "libsvtav1", preset="12", crf="40")
    with av.open(str(path)) as container:
        headers = PictureHeaders(container.streams.video[0])
        told = [headers.quantisers(packet) for packet in container.demux(video=0) if packet.size]
    assert len(told) == sum(map(len, told)) == 12 and {0, 2} <= set(map(len, told))


def test_a_later_set_of_parameters_counts_for_the_pictures_behind_it(tmp_path: Path) -> None:
    """HEVC's slices tell the difference from what stands in a set of parameters, which may come anew."""
    path = encoded(tmp_path / "in.hevc", "libx265", **{"x265-params": CONSTANT.format(30) + ":log-level=none"})
    units = path.read_bytes().replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]
    bits = "".join(f"{byte:08b}" for byte in next(unit for unit in units if unit[0] >> 1 == 34))
    assert bits[27] == "1", "a difference of 0 from 26"
    bits = bits[:27] + "00101" + bits[28:]  # -2
    lower = int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
    pictures = [at for at, unit in enumerate(units) if unit[0] >> 1 < 32]
    units.insert(pictures[6], lower)
    path.write_bytes(b"".join(b"\0\0\1" + unit for unit in units))
    with av.open(str(path)) as container:
        headers = PictureHeaders(container.streams.video[0])
        told = [value for packet in container.demux(video=0) for value in headers.quantisers(packet)]
    assert told == [30] * 6 + [28] * 6


def test_stronger_compression_has_a_greater_quantiser(tmp_path: Path) -> None:
    found = [quantiser_of(probe(encoded(tmp_path / f"{crf}.mp4", "libx264", crf=str(crf)))) for crf in (15, 25, 35)]
    assert None not in found and found == sorted(found, key=float)  # type: ignore[arg-type]


def jpeg(path: Path, step: int) -> Path:
    """A picture, all of whose frequencies have one step."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(noise).save(path, "JPEG", qtables=[[step] * 64] * 2)
    return path


@pytest.mark.parametrize("step", [3, 16, 60])
def test_jpeg_tells_its_step_on_the_scale_of_h264(step: int, tmp_path: Path) -> None:
    """As a still, as numbered frames, as video; less what lite is better off with."""
    folder = tmp_path / "frames"
    folder.mkdir()
    stills = [jpeg(folder / f"{number}.jpg", step) for number in range(7)]
    video = tmp_path / "in.avi"
    with av.open(str(video), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number, still in enumerate(stills):
            packet = av.Packet(still.read_bytes())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), stream
            out.mux(packet)
    expected = 6 * math.log2(step / 0.625) - BETTER["mjpeg"]
    assert [quantiser_of(probe(path)) for path in (stills[0], folder, video)] == pytest.approx([expected] * 3)


def test_a_jpeg_counts_by_its_lower_frequencies(tmp_path: Path) -> None:
    """Its standard's own example of a table, which quality 50 is."""
    picture = tmp_path / "in.jpg"
    Image.new("RGB", (64, 64)).save(picture, quality=50)
    low = [16, 11, 10, 16, 12, 12, 14, 14, 13, 14]
    expected = 6 * (sum(map(math.log2, low)) / len(low) - math.log2(0.625)) - BETTER["mjpeg"]
    assert quantiser_of(probe(picture)) == pytest.approx(expected)


def test_numbered_frames_of_several_kinds_tell_nothing_together(tmp_path: Path) -> None:
    """Where one of them cannot tell."""
    jpeg(tmp_path / "1.jpg", 60)
    jpeg(tmp_path / "2.jpg", 20)
    assert quantiser_of(probe(tmp_path)) is not None
    write_image(tmp_path / "3.png", np.zeros((64, 96, 3), np.uint8))
    assert quantiser_of(probe(tmp_path)) is None


def test_lossy_webp_tells_what_vp8_would(tmp_path: Path) -> None:
    """Less the better its quality; also with transparency, which wraps it differently."""
    picture = Image.fromarray(footage(1, 96, 64)[0])
    paths = [tmp_path / f"{quality}.webp" for quality in (90, 50, 10)]
    for path in paths:
        picture.save(path, "WEBP", quality=int(path.stem))
    found = [quantiser_of(probe(path)) for path in paths]
    assert None not in found and found == sorted(found, key=float) and found[2] - found[0] > 12  # type: ignore[operator]
    shaped = picture.convert("RGBA")
    shaped.putalpha(Image.new("L", shaped.size, 128))
    shaped.save(tmp_path / "alpha.webp", "WEBP", quality=50)
    assert quantiser_of(probe(tmp_path / "alpha.webp")) == pytest.approx(found[1], abs=1)
    (tmp_path / "cut.webp").write_bytes(paths[0].read_bytes()[:25])
    assert pictures_quantiser([tmp_path / "cut.webp"]) is None


def test_broken_motion_jpeg_tells_what_it_can(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.avi", footage(12, 96, 64), codec="mjpeg", pix_fmt="yuvj420p")
    whole = quantiser_of(probe(path))
    data = bytearray(path.read_bytes())
    tables = [match.start() for match in re.finditer(b"\xff\xdb", data)]
    assert len(tables) >= 12
    for at in tables[1::2]:
        data[at + 1] = 0xFE  # a comment
    path.write_bytes(data)
    assert whole is not None and quantiser_of(probe(path)) == pytest.approx(whole, abs=2)


def test_what_is_not_told_is_not_known(tmp_path: Path) -> None:
    """Old codecs, and those that round nothing, whose pictures may have been compressed before."""
    animation = write_video(tmp_path / "in.gif", footage(3, 96, 64), codec="gif", pix_fmt="rgb8")
    old = encoded(tmp_path / "in.avi", "cinepak", 3, pix_fmt="rgb24")
    exact, studio = (
        encoded(tmp_path / "in.mkv", "ffv1"),
        encoded(tmp_path / "in.mov", "prores_ks", pix_fmt="yuv422p10le"),
    )
    picture = tmp_path / "in.webp"
    write_image(picture, np.zeros((32, 32, 3), np.uint8))  # without loss
    assert [quantiser_of(probe(path)) for path in (animation, old, exact, studio, picture)] == [None] * 5
    assert set(quantisers(old)) == {None}


def test_a_run_counts_by_its_finest_frames_and_not_by_copies() -> None:
    assert run_quantiser([None, None]) is None
    assert run_quantiser([0.0, 0.0]) == 0
    assert run_quantiser([30.0, None, 0.0, *[40.0] * 8, 30.0]) == 30
    assert run_quantiser([20.0, *[40.0] * 30]) == 40, "but not by a single keyframe"


def test_a_later_change_counts(tmp_path: Path) -> None:
    """The median over places: a clean beginning, as of a title, does not stand for the file."""
    parts = [encoded(tmp_path / f"{qp}.h264", "libx264", 30, **{"x264-params": CONSTANT.format(qp)}) for qp in (10, 40)]
    joined = tmp_path / "in.h264"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes() * 4)
    whole = tmp_path / "in.mkv"
    with av.open(str(joined)) as source, av.open(str(whole), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = source.streams.video[0].average_rate ** -1, stream
            out.mux(packet)
    assert quantiser_of(probe(whole)) == pytest.approx(40, abs=0.5)


def test_another_process_tells_the_same_and_its_death_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = probe(encoded(tmp_path / "in.mkv", "libx264", crf="30"))
    theirs, ours = isolated.evidence(info), evidence(info)
    assert theirs.quantiser == ours.quantiser is not None
    assert len(ours.pictures) == 10 and all(map(np.array_equal, theirs.pictures, ours.pictures))
    monkeypatch.setenv("FAULT", "start 0")
    monkeypatch.setattr(isolated, "PROGRAM", "tests.media.faulty_decoder")
    assert isolated.evidence(info) == Evidence()
    monkeypatch.undo()
    info.path.unlink()
    assert isolated.evidence(info) == Evidence(), "reading its frames will tell"
