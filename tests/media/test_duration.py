"""How long the video of a file is taken to be."""

from fractions import Fraction

import av
import pytest

from sdatc_cli.media.probe import _told_duration, probe
from tests.media.clips import footage, write_video


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({"DURATION": "00:00:04.000000000"}, 4.0),
        ({"duration": "01:02:03.5"}, 3723.5),
        ({"DURATION-eng": "00:00:09.000000000", "DURATION": "00:00:04.000000000"}, 4.0),
        ({"DURATION-eng": "00:00:04.040000000", "BPS-eng": "00:00:05"}, 4.04),
        ({"DURATION": "soon", "DURATION-eng": "00:00:04"}, 4.0),
        ({"DURATION": "00:00:00.000000000"}, None),
        ({"DURATION": "-1:00:00"}, None),
        ({"DURATIONS": "00:00:04", "title": "00:00:04"}, None),
        ({}, None),
    ],
)
def test_tags_that_tell_a_duration(tags, wanted):
    assert _told_duration(tags) == wanted


def test_a_late_subtitle_adds_no_frames(tmp_path, ffmpeg):
    stamps = [40 * i + 30 * (i % 2) for i in range(100)]
    video = write_video(tmp_path / "video.mkv", footage(10, 96, 64) * 10, stamps, Fraction(1, 1000))
    (tmp_path / "a.srt").write_text("1\n00:00:20,000 --> 00:00:21,000\nLate\n")
    out = tmp_path / "late.mkv"
    ffmpeg("-i", video, "-i", tmp_path / "a.srt", "-map", "0", "-map", "1", "-c", "copy", out)
    with av.open(str(out)) as container:
        assert container.duration is not None and container.duration > 20_000_000
    info = probe(out)
    assert info.duration == pytest.approx(4, abs=0.1)
    assert info.frame_count == pytest.approx(100, abs=3)


def test_a_tag_that_is_longer_than_the_file_is_not_believed(tmp_path):
    video = write_video(tmp_path / "video.mkv", footage(25, 96, 64))
    data = video.read_bytes()
    assert data.count(b"00:00:01.0") == 1
    (tmp_path / "stale.mkv").write_bytes(data.replace(b"00:00:01.0", b"00:09:01.0"))
    assert probe(tmp_path / "stale.mkv").duration == pytest.approx(1, abs=0.05)
