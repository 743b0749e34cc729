"""What the system confines this process to: Linux's control groups, by which containers are limited.

A process belongs to a group of each hierarchy, and the limits of all groups above hold for it too.
"""

from collections.abc import Iterator
from pathlib import Path

_ROOT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60  # bytes; version 1 writes a number of about 2**63 where there is no limit


def memory_left(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Bytes that the process may still take, those of files that can be read again counted; None without a limit."""
    left = []
    for folder, new in _groups("memory", root, own):
        limit = _number(folder / ("memory.max" if new else "memory.limit_in_bytes"))
        used = _number(folder / ("memory.current" if new else "memory.usage_in_bytes"))
        if limit is not None and used is not None and limit < _NO_LIMIT:
            left.append(max(0, limit - used + _cached(folder, "inactive_file" if new else "total_inactive_file")))
    return min(left, default=None)


def processors(root: Path = _ROOT, own: Path = _OWN) -> float | None:
    """How many processors' time the process may use; None without a limit."""
    found = []
    for folder, new in _groups("cpu", root, own):
        if new:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _groups(controller: str, root: Path, own: Path) -> Iterator[tuple[Path, bool]]:
    """Folders of the process's groups, and whether they are of version 2.

    Inside a container the name of its group may be that outside, while its own files lie at the root.
    """
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top):
                yield folder, not names


def _cached(folder: Path, name: str) -> int:
    lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return next((int(line[1]) for line in lines if len(line) == 2 and line[0] == name and line[1].isdecimal()), 0)


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    """What a file of the system says; nothing where there is none."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
