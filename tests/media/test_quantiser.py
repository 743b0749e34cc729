"""How coarsely a codec rounded, read from its decoder: against what the encoder was told."""

import math
from pathlib import Path

import av
import numpy as np
import pytest

from sdatc_cli.media import isolated
from sdatc_cli.media.images import write_image
from sdatc_cli.media.probe import probe
from sdatc_cli.media.quantiser import OPTIONS, file_quantiser, frame_quantiser, run_quantiser
from tests.media.clips import footage, write_video

CONSTANT = "qp={}:ipratio=1:pbratio=1"  # the same for I-, P- and B-frames


def encoded(path: Path, codec: str, frames: int = 12, **options: str) -> Path:
    return write_video(path, footage(frames, 96, 64), codec=codec, options=options)


def quantisers(path: Path, bit_depth: int = 8) -> list[float | None]:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = OPTIONS
        return [frame_quantiser(frame, bit_depth) for frame in container.decode(video=0)]


@pytest.mark.parametrize("qp", [12, 30, 44])
def test_h264_tells_what_the_encoder_was_told(qp: int, tmp_path: Path) -> None:
    path = encoded(tmp_path / "in.mkv", "libx264", **{"x264-params": CONSTANT.format(qp) + ":deblock=0"})
    told = [value for value in quantisers(path) if value]  # 0: a frame that only copies
    assert len(told) > 6 and told == pytest.approx([qp] * len(told), abs=0.5)
    assert file_quantiser(probe(path)) == pytest.approx(qp, abs=0.5)


def test_deep_h264_counts_as_the_flat_one_does(tmp_path: Path) -> None:
    """The same CRF, that is much the same picture."""
    flat, deep = (
        write_video(tmp_path / f"{name}.mkv", footage(8, 96, 64), pix_fmt=name, options={"crf": "30", "bf": "0"})
        for name in ("yuv420p", "yuv420p10le")
    )
    assert probe(deep).bit_depth == 10
    steps = [file_quantiser(probe(path)) for path in (flat, deep)]
    assert steps[0] is not None and steps[1] == pytest.approx(steps[0], abs=1.5)


@pytest.mark.parametrize("codec, quantiser", [("mpeg4", 3), ("mpeg4", 12), ("mpeg2video", 6)])
def test_mpeg_tells_its_step_on_the_scale_of_h264(codec: str, quantiser: int, tmp_path: Path) -> None:
    """Both step by twice their quantiser; H.264's step is 0.625 * 2 ** (QP / 6)."""
    path = encoded(tmp_path / "in.mkv", codec, qmin=str(quantiser), qmax=str(quantiser))
    expected = 6 * math.log2(2 * quantiser / 0.625)
    assert file_quantiser(probe(path)) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("quantiser, step", [(10, 47), (30, 152), (40, 305), (58, 1173)])
def test_vp9_tells_its_step_on_the_scale_of_h264(quantiser: int, step: int, tmp_path: Path) -> None:
    """The encoder's 63 numbers stand for every fourth of 255 indices, of steps in eighths of a level."""
    number = str(quantiser)
    options = {"qmin": number, "qmax": number, "crf": number, "b": "0", "deadline": "realtime", "auto-alt-ref": "0"}
    path = encoded(tmp_path / "in.webm", "libvpx-vp9", **options)
    assert file_quantiser(probe(path)) == pytest.approx(6 * math.log2(step / 8 / 0.625), abs=0.4)


def test_stronger_compression_has_a_greater_quantiser(tmp_path: Path) -> None:
    found = [file_quantiser(probe(encoded(tmp_path / f"{crf}.mp4", "libx264", crf=str(crf)))) for crf in (15, 25, 35)]
    assert None not in found and found == sorted(found, key=float)  # type: ignore[arg-type]


def test_what_is_not_told_is_not_known(tmp_path: Path) -> None:
    hevc = encoded(tmp_path / "in.mkv", "libx265", **{"x265-params": "log-level=none"})
    picture = tmp_path / "in.png"
    write_image(picture, np.zeros((32, 32, 3), np.uint8))
    assert [file_quantiser(probe(path)) for path in (hevc, picture)] == [None, None]
    assert set(quantisers(hevc)) == {None}


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
    assert file_quantiser(probe(whole)) == pytest.approx(40, abs=0.5)


def test_another_process_tells_the_same_and_its_death_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = probe(encoded(tmp_path / "in.mkv", "libx264", crf="30"))
    assert isolated.quantiser(info) == file_quantiser(info) is not None
    monkeypatch.setenv("FAULT", "start 0")
    monkeypatch.setattr(isolated, "PROGRAM", "tests.media.faulty_decoder")
    assert isolated.quantiser(info) is None
    monkeypatch.undo()
    info.path.unlink()
    assert isolated.quantiser(info) is None, "reading its frames will tell"
