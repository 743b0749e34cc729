"""`sdatc degrade` keeps picture and sound together."""

import json
import shlex
from fractions import Fraction
from pathlib import Path

import av
import pytest

from sdatc_cli.media.degrade import Recipe, degrade
from tests.media.clips import footage, take_apart, times, write_video


def lead(path: Path) -> float:
    """Seconds from the first sound to the first picture."""
    with av.open(str(path)) as container:
        sound = next(p.pts * p.time_base for p in container.demux(audio=0) if p.pts is not None)
    return float(times(path)[0] - sound)


def make(ffmpeg, folder: Path, ending: str, video: float, sound: float) -> Path:
    """50 frames and two seconds of sound, either late."""
    picture = write_video(folder / "video.mkv", footage(50, 128, 96))
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=2", "-c:a", "aac", folder / "sound.mka")
    out = folder / f"in.{ending}"
    ffmpeg("-itsoffset", video, "-i", picture, "-itsoffset", sound, "-i", folder / "sound.mka",
           "-map", "0", "-map", "1", "-c", "copy", out)  # fmt: skip
    return out


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize(("video", "sound"), [(1.2, 0), (0, 0.7), (0, 0), (0.5, 0.53), (0.345, 0)])
def test_what_begins_late_stays_late(video, sound, ending, ffmpeg, tmp_path):
    source = make(ffmpeg, tmp_path, ending, video, sound)
    wanted = lead(source)
    assert wanted == pytest.approx(video - sound, abs=0.1)
    for out in (tmp_path / "out.mkv", tmp_path / "out.mp4"):
        degrade(source, out, Recipe(scale=2))
        assert lead(out) == pytest.approx(wanted, abs=0.003)
        gaps = {round(float(b - a), 2) for a, b in zip(times(out), times(out)[1:], strict=False)}
        assert len(times(out)) == 50 and gaps == {0.04}


@pytest.mark.parametrize("fps", [Fraction(4), Fraction(30000, 1001)])
def test_other_rates_keep_late_frames_in_place(fps, ffmpeg, tmp_path):
    source = make(ffmpeg, tmp_path, "mkv", 1.31, 0)
    degrade(source, tmp_path / "out.mkv", Recipe(scale=2, fps=fps))
    assert lead(tmp_path / "out.mkv") == pytest.approx(lead(source), abs=0.003)


def test_a_few_late_frames_have_their_sound(ffmpeg, tmp_path):
    source = make(ffmpeg, tmp_path, "mkv", 1.2, 0)
    note = degrade(source, tmp_path / "out.mkv", Recipe(scale=2), frames=10)
    sound = take_apart(tmp_path / "out.mkv")[1].packets
    assert len(times(tmp_path / "out.mkv")) == 10 and 1.5 < float(sound[-1][0]) < 1.65
    assert "-itsoffset" in shlex.split(json.loads(note.read_text())["ffmpeg_command"])


def test_without_sound_the_frames_begin_at_once(ffmpeg, tmp_path):
    write_video(tmp_path / "video.mkv", footage(5, 128, 96))
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nEarly\n")
    ffmpeg("-itsoffset", 1.2, "-i", tmp_path / "video.mkv", "-i", tmp_path / "a.srt", "-map", "0", "-map", "1",
           "-c", "copy", tmp_path / "in.mkv")  # fmt: skip
    degrade(tmp_path / "in.mkv", tmp_path / "out.mkv", Recipe(scale=2))
    assert times(tmp_path / "out.mkv")[0] == 0
