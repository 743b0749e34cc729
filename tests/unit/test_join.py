"""Whether there is room for stretches and output, on one disk or on two."""

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdatc_cli.engine import join
from sdatc_cli.errors import OutputError

SIZE, FRAMES = (1000, 1000), 1000  # 40 MB, as is reckoned


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk here")
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[Path, int]], None]:
    """Sets the free megabytes of disks beyond the margin, by a folder of each."""

    def pretend(megabytes: dict[Path, int]) -> None:
        usage = lambda path: SimpleNamespace(free=join.MARGIN + megabytes[path] * 10**6)  # noqa: E731
        monkeypatch.setattr(shutil, "disk_usage", usage)

    return pretend


def journal(work: Path, out: Path, *sizes: int) -> Any:
    noted: list[Any] = []
    segments = [SimpleNamespace(size=size * 10**6) for size in sizes]
    there = {"folder": work / ".w", "out": out / "out.mp4"}
    return SimpleNamespace(**there, segments=segments, append=noted.append, kept=lambda: "; kept")


def test_one_disk_holds_stretches_and_output(tmp_path: Path, free: Callable[[dict[Path, int]], None]) -> None:
    free({tmp_path: 85})
    assert join.check_room(journal(tmp_path, tmp_path), SIZE, FRAMES) is None
    free({tmp_path: 50})
    told = join.check_room(journal(tmp_path, tmp_path), SIZE, FRAMES)
    assert told is not None and "needs about 0.1 GB" in told, "it may yet do"
    free({tmp_path: 10})
    with pytest.raises(OutputError, match="make room, or give --work-dir on another disk"):
        join.check_room(journal(tmp_path, tmp_path), SIZE, FRAMES)
    free({tmp_path: 9})
    with pytest.raises(OSError) as found:
        join.record(journal(tmp_path, tmp_path, 5, 5), SimpleNamespace())  # type: ignore[arg-type]
    assert found.value.errno == errno.ENOSPC


def test_two_disks_are_looked_at_each_for_itself(
    tmp_path: Path, other_disk: Path, free: Callable[[dict[Path, int]], None]
) -> None:
    """What is joined does not lie on the disk of the stretches, which may be nearly full at the end."""
    there = journal(other_disk, tmp_path, 5, 5)
    free({other_disk: 0, tmp_path: 11})
    join.record(there, SimpleNamespace())  # type: ignore[arg-type]
    free({other_disk: 1000, tmp_path: 9})
    with pytest.raises(OSError) as found:
        join.record(there, SimpleNamespace())  # type: ignore[arg-type]
    assert str(join.trouble(there, found.value)) == f"{tmp_path}: the disk is full; kept"
    for room in ({other_disk: 1000, tmp_path: 5}, {other_disk: 5, tmp_path: 1000}):
        free(room)
        with pytest.raises(OutputError, match="needs about"):
            join.check_room(there, SIZE, FRAMES)
