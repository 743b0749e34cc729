"""The rich file that the media tests convert: everything a Matroska file can hold beside its video."""

from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from tests.media.clips import VFR, footage, write_video

SRT = "1\n00:00:00,100 --> 00:00:00,600\nFirst line\n\n2\n00:00:00,700 --> 00:00:01,300\n<i>Second</i> — naïve\n"
ASS = """[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Sans,20
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.20,0:00:01.00,Default,,0,0,0,,{\\b1}Bold{\\b0} words
"""
CHAPTERS = """;FFMETADATA1
title=A test film
comment=50% "quoted"; odd
[CHAPTER]
TIMEBASE=1/1000
START=0
END=600
title=Opening
[CHAPTER]
TIMEBASE=1/1000
START=600
END=1440
title=The rest
"""


@pytest.fixture(scope="session")
def rich_mkv(tmp_path_factory: pytest.TempPathFactory, ffmpeg) -> Path:
    """VFR video, two sound tracks, SubRip and ASS subtitles, chapters, a cover picture and a font."""
    folder = tmp_path_factory.mktemp("rich")
    frames = footage(len(VFR), 96, 64)
    video = write_video(folder / "video.mkv", frames, VFR, Fraction(1, 1000))
    (folder / "a.srt").write_text(SRT, encoding="utf-8")
    (folder / "b.ass").write_text(ASS)
    (folder / "meta.txt").write_text(CHAPTERS)
    (folder / "font.ttf").write_bytes(bytes(range(256)) * 40)
    Image.fromarray(frames[0]).save(folder / "cover.png")
    out = folder / "rich.mkv"
    ffmpeg(
        "-i", video, "-f", "lavfi", "-i", "sine=440:d=1.44", "-f", "lavfi", "-i", "sine=880:d=1.44",
        "-i", folder / "a.srt", "-i", folder / "b.ass", "-i", folder / "meta.txt",
        "-map", "0", "-map", "1", "-map", "2", "-map", "3", "-map", "4", "-map_metadata", "5", "-map_chapters", "5",
        "-c", "copy", "-c:a:0", "aac", "-c:a:1", "flac", "-c:s:0", "srt", "-c:s:1", "ass",
        "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu", "-metadata:s:a:1", "title=Kommentar",
        "-disposition:a:0", "default", "-disposition:a:1", "comment", "-disposition:s:0", "forced",
        "-metadata:s:s:0", "language=fra", "-metadata:s:v:0", "title=Picture",
        "-attach", folder / "font.ttf", "-metadata:s:t:0", "mimetype=application/x-truetype-font",
        "-attach", folder / "cover.png", "-metadata:s:t:1", "mimetype=image/png", out,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def sound_mp4(tmp_path_factory: pytest.TempPathFactory, ffmpeg) -> Path:
    """A phone-like MP4: H.264 with B-frames, AAC with its priming in an edit list, timed text."""
    folder = tmp_path_factory.mktemp("mp4")
    video = write_video(folder / "video.mp4", footage(30, 96, 64), base=Fraction(1, 12800),
                        times=[512 * i for i in range(30)])  # fmt: skip
    (folder / "a.srt").write_text(SRT, encoding="utf-8")
    out = folder / "phone.mp4"
    ffmpeg("-i", video, "-f", "lavfi", "-i", "sine=440:d=1.2", "-i", folder / "a.srt", "-map", "0", "-map", "1",
           "-map", "2", "-c:v", "copy", "-c:a", "aac", "-c:s", "mov_text", "-metadata:s:a:0", "language=jpn",
           "-metadata", "title=Phone", out)  # fmt: skip
    return out
