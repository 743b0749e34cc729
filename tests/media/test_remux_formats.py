"""Streams that an output's format cannot hold as they are, or begin where it asks for."""

import av
import numpy as np
import pytest

from sdatc_cli.media.write import EncodeOptions
from tests.media.clips import convert, footage, times, waves, write_video


def test_a_second_video_of_which_a_part_has_no_keyframe_is_told(tmp_path, ffmpeg):
    single = write_video(tmp_path / "in.mkv", footage(30, 64, 48), options={"preset": "ultrafast", "g": "250"})
    source = tmp_path / "two.mkv"
    ffmpeg("-i", single, "-map", "0:v", "-map", "0:v", "-c", "copy", source)
    for start, told in ((0.4, 1), (0.0, 0)):
        _, notices = convert(source, tmp_path / f"{start}.mp4", start=start, duration=0.5)
        assert len([line for line in notices if "no keyframe in this part" in line]) == told
        with av.open(str(tmp_path / f"{start}.mp4")) as container:
            assert sum(1 for p in container.demux(video=0) if p.size) == 13


def test_sound_whose_speakers_alac_does_not_know_is_pcm_in_mov(tmp_path, ffmpeg):
    video, source = write_video(tmp_path / "v.mkv", footage(12, 64, 48)), tmp_path / "in.mkv"
    ffmpeg("-i", video, "-f", "lavfi", "-i", "sine=440:d=0.48", "-af", "pan=7.1|c0=c0|c5=c0", "-c:v", "copy",
           "-c:a", "flac", source)  # fmt: skip
    _, notices = convert(source, tmp_path / "out.mov")
    assert any("converted to pcm_s16le" in line for line in notices), notices
    with av.open(str(source)) as old, av.open(str(tmp_path / "out.mov")) as new:
        assert new.streams.audio[0].layout.name == "7.1"
        before, after = waves(old), waves(new)
    assert len(before) == len(after) and np.abs(before - after).max() < 1e-3


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_hevc_has_the_tag_that_apples_players_ask_for(ending, tmp_path):
    source = write_video(tmp_path / "in.mkv", footage(5, 64, 64))
    convert(source, tmp_path / f"out.{ending}", EncodeOptions("libx265", preset="ultrafast"))
    assert b"hvc1" in (tmp_path / f"out.{ending}").read_bytes() and len(times(tmp_path / f"out.{ending}")) == 5
