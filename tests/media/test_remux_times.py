"""When the streams beside the video begin and end: subtitles that overlap or reach out of a part, hidden sound."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media.clips import convert, footage, take_apart, write_video

OVERLAPPING = [(0.5, 2.0, "early"), (1.5, 9.0, "long"), (3.0, 3.5, "third")]


def subtitled(folder: Path, ffmpeg, cues: list[tuple[float, float, str]], seconds: float = 4) -> Path:
    """A Matroska file with SubRip; `cues` are begin, end, text."""
    video = write_video(folder / "video.mkv", footage(8, 96, 64), [round(i * seconds * 125) for i in range(8)],
                        Fraction(1, 1000))  # fmt: skip
    (folder / "a.srt").write_text("\n\n".join(f"{i}\n{_clock(b)} --> {_clock(e)}\n{t}" for i, (b, e, t) in
                                              enumerate(cues, 1)) + "\n")  # fmt: skip
    out = folder / "in.mkv"
    ffmpeg("-i", video, "-f", "lavfi", "-i", f"sine=440:d={seconds}", "-i", folder / "a.srt", "-map", "0", "-map", "1",
           "-map", "2", "-c:v", "copy", "-c:a", "aac", "-c:s", "srt", out)  # fmt: skip
    return out


def _clock(seconds: float) -> str:
    whole, ms = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02},{ms:03}"


def shown(path: Path) -> list[tuple[float, float, str]]:
    """Begin, length and text of what the subtitle stream shows, in seconds of the file's clock."""
    texts = []
    with av.open(str(path)) as container:
        for packet in container.demux(subtitles=0):
            text = bytes(packet)[2 if path.suffix in (".mp4", ".mov") else 0 :].decode().strip()
            if text:
                assert packet.pts is not None and packet.time_base is not None
                times = (float(t * packet.time_base) for t in (packet.pts, packet.duration or 0))
                texts.append((*(round(t, 2) for t in times), text))
    return texts


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_overlapping_subtitles_begin_when_they_did(ending, tmp_path, ffmpeg):
    convert(subtitled(tmp_path, ffmpeg, OVERLAPPING), tmp_path / f"out.{ending}")
    assert [(begin, text) for begin, _, text in shown(tmp_path / f"out.{ending}")] == [
        (0.5, "early"), (1.5, "long"), (3.0, "third")]  # fmt: skip


def test_an_hour_without_subtitles_fits_into_an_mp4(tmp_path, ffmpeg):
    """The file counts the gap in 32 bits, which is not much in microseconds."""
    source = subtitled(tmp_path, ffmpeg, [(1, 2, "first"), (5000, 5001, "second")], seconds=1)
    convert(source, tmp_path / "out.mp4")
    assert shown(tmp_path / "out.mp4") == [(1, 1, "first"), (5000, 1, "second")]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("from_mp4", [False, True])
def test_a_part_begins_with_the_subtitle_on_screen(from_mp4, ending, tmp_path, ffmpeg):
    source = subtitled(tmp_path, ffmpeg, [(0.5, 2, "early"), (2.5, 3, "late")])
    if from_mp4:
        ffmpeg("-i", source, "-c", "copy", "-c:s", "mov_text", tmp_path / "in.mp4")
        source = tmp_path / "in.mp4"
    convert(source, tmp_path / f"out.{ending}", start=1.0)
    assert shown(tmp_path / f"out.{ending}") == [(0, 1, "early"), (1.5, 0.5, "late")]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_subtitles_end_with_their_part(ending, tmp_path, ffmpeg):
    source = subtitled(tmp_path, ffmpeg, [(0.5, 3.5, "long"), (1.5, 9, "longer"), (2.2, 2.4, "later")])
    out = tmp_path / f"out.{ending}"
    convert(source, out, start=1.0, duration=1.1)
    assert shown(out)[0][0] == 0 and shown(out)[1] == (0.5, 0.6, "longer") and len(shown(out)) == 2
    with av.open(str(out)) as container:
        assert container.duration is not None and container.duration < 1.3e6


@pytest.fixture(scope="module")
def edited(tmp_path_factory, ffmpeg) -> Path:
    """An MP4 whose edit list hides the first 0.53 s, for there is no keyframe to cut at. It holds all the sound: half a
    second of a tone, which is hidden, then silence, and a tone again from 1.03 s on, that is 0.5 s."""
    folder = tmp_path_factory.mktemp("edited")
    video = write_video(folder / "v.mp4", footage(50, 96, 64), options={"preset": "ultrafast", "g": "250"})
    ffmpeg("-i", video, "-f", "lavfi", "-i", "sine=440:d=2", "-map", "0", "-map", "1", "-c:v", "copy", "-c:a", "aac",
           "-af", "volume=0:enable='between(t,0.5,1.03)'", folder / "in.mp4")  # fmt: skip
    ffmpeg("-ss", "0.53", "-i", folder / "in.mp4", "-c", "copy", folder / "edit.mp4")
    return folder / "edit.mp4"


def loud(path: Path) -> list[float]:
    """Begin and end of each tone, in seconds from the first frame of the picture on."""
    with av.open(str(path)) as container:
        first = min(f.time for f in container.decode(video=0))
    changes, before = [], False
    with av.open(str(path)) as container:  # a seek would pass over sound before the picture
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().reshape(-1).astype(float))
            for i in range(0, len(samples) - 127, 128):
                now = bool(samples[i : i + 128].max() > 0.03 * (32768 if frame.format.name.startswith("s16") else 1))
                if now != before:
                    changes.append(round(frame.time + i / frame.sample_rate - first, 3))
                before = now
    return changes


@pytest.mark.parametrize("ending", ["mkv", "ts", "avi", "nut", "mp4", "mov"])
def test_sound_that_an_edit_list_hides_does_not_come_back(ending, edited, tmp_path):
    out = tmp_path / f"out.{ending}"
    convert(edited, out)
    assert loud(edited) == pytest.approx([0.5, 1.47], abs=0.02)
    assert loud(out) == pytest.approx([0.5, 1.47], abs=0.05)


def test_hidden_sound_stays_where_it_can_be_hidden(edited, tmp_path):
    convert(edited, tmp_path / "out.mp4")
    assert take_apart(tmp_path / "out.mp4")[1].packets == take_apart(edited)[1].packets


@pytest.mark.parametrize("ending", ["mkv", "nut"])
def test_the_priming_of_a_file_that_was_not_cut_stays(ending, sound_mp4, tmp_path):
    convert(sound_mp4, tmp_path / f"out.{ending}")
    old, new = take_apart(sound_mp4)[1].packets, take_apart(tmp_path / f"out.{ending}")[1].packets
    assert old[0][0] < 0 and [d for _, d in new] == [d for _, d in old]
