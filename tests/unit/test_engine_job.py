"""What a job is expected to be before it runs."""

from fractions import Fraction
from pathlib import Path

import pytest

from sdatc_cli.engine.job import expected_frames
from sdatc_cli.media.info import MediaInfo


@pytest.mark.parametrize(
    ("kind", "rate", "start", "duration", "wanted"),
    [
        ("frames", None, None, None, 60),
        ("frames", None, None, 0.2, 5),
        ("frames", None, 1.0, 0.2, 5),
        ("frames", None, 2.0, None, 10),
        ("frames", None, 2.0, 9.0, 10),
        ("frames", 10, 1.0, 0.2, 2),
        ("video", 10, 1.0, 0.2, 2),
        ("video", None, 1.0, 0.2, 60),
    ],
)
def test_as_many_frames_are_expected_as_the_reader_takes(kind, rate, start, duration, wanted):
    """A folder without a rate is read at 25 frames a second."""
    info = MediaInfo(Path("in"), kind, 64, 64, frame_rate=Fraction(rate) if rate else None, frame_count=60)
    assert expected_frames(info, start, duration) == wanted


def test_a_picture_has_no_times():
    info = MediaInfo(Path("in.png"), "image", 64, 64, frame_count=1)
    assert expected_frames(info, 1.0, 0.2) == 1
