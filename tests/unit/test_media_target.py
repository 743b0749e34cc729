"""Outputs appear whole, on file systems that can do less than others, too."""

import errno
import os
from fractions import Fraction
from pathlib import Path

import pytest

from sdatc_cli.errors import OutputError
from sdatc_cli.media.clock import FrameClock
from sdatc_cli.media.target import TargetFile


def test_a_file_system_that_cannot_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}") or os.path.isdir(f"/dev/fd/{handle}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    target = TargetFile(tmp_path / "out.bin", False)
    target.path.write_bytes(b"whole")
    target.commit()
    assert (tmp_path / "out.bin").read_bytes() == b"whole"

    def broken(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    target = TargetFile(tmp_path / "other.bin", False)
    with pytest.raises(OutputError, match="Input/output error"):
        target.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["out.bin"]


def test_times_at_halves_of_a_tick_stay_one_tick_apart() -> None:
    """As those of a part that begins in the middle of a frame."""
    clock = FrameClock(Fraction(1, 25), Fraction(25), 1.5)
    assert [clock.tick(pts, Fraction(1, 25)) for pts in range(38, 43)] == [1, 2, 3, 4, 5]
    assert clock.state.repaired == 0
