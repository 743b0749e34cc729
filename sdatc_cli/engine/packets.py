"""A finished stretch of encoded video on disk: packets exactly as the encoder gave them, in decoding order.

A file is a sequence of records: (pts, duration, flags, size) and the payload. There is no index and no trailer; the
journal knows how long the file is and its SHA-256.
"""

import hashlib
import itertools
import os
import statistics
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

RECORD = struct.Struct("<qqII")
KEYFRAME = 1
_HEAD = 48  # pictures that tell how far apart they usually are


@dataclass(frozen=True)
class Packet:
    """One encoded picture. `pts` and `duration` count in the encoder's time base."""

    pts: int
    duration: int
    keyframe: bool
    payload: bytes


class PacketFile:
    """Writes packets to a file; `close` makes it durable."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, as all methods do."""
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb")

    def write(self, packet: Packet) -> None:
        """Appends a packet."""
        flags = KEYFRAME if packet.keyframe else 0
        record = RECORD.pack(packet.pts, packet.duration, flags, len(packet.payload)) + packet.payload
        self._file.write(record)
        self._digest.update(record)
        self.size += len(record)

    def close(self) -> str:
        """Brings the file to the disk; returns its SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Closes and removes the file, whatever state it is in."""
        try:
            self._file.close()
        finally:
            self.path.unlink(missing_ok=True)


def read_packets(path: Path, payloads: bool = True) -> Iterator[Packet]:
    """The packets of a file; with `payloads` off the pictures are skipped and come as b"". OSError, or struct.error."""
    with path.open("rb") as file:
        while head := file.read(RECORD.size):
            pts, duration, flags, size = RECORD.unpack(head)
            if payloads:
                payload = file.read(size)
            else:
                payload = b""
                file.seek(size, os.SEEK_CUR)
            yield Packet(pts, duration, bool(flags & KEYFRAME), payload)


def reorder_delay(path: Path) -> int:
    """How many pictures the decoder must hold back to show them in order: max over packets of place - rank of pts."""
    stamps = [packet.pts for packet in read_packets(path, payloads=False)]
    rank = {pts: i for i, pts in enumerate(sorted(stamps))}
    return max((place - rank[pts] for place, pts in enumerate(stamps)), default=0)


def timed(paths: list[Path], delay: int) -> Iterator[tuple[Packet, int]]:
    """The packets of files that follow each other, with decoding times as `decoding_times` makes them.

    Each lasts until the next picture is shown, the last one shown as long as its file says. An MP4 is as long as all
    steps between decoding times and the packet that is decoded last: that one lasts as long as it must for this,
    and at least one tick.
    """
    ahead, shown = itertools.tee(map(_shown, paths))
    decoding = decoding_times(itertools.chain.from_iterable(ahead), delay)
    files = itertools.chain(shown, [[]])
    lead = None  # of the first picture, from decoding to showing
    end = 0
    for path, (stamps, later) in zip(paths, itertools.pairwise(files), strict=True):
        following = dict(zip(stamps, [*stamps[1:], *later[:1]], strict=False))
        for place, (packet, time) in enumerate(zip(read_packets(path), decoding, strict=False), 1):
            lead = stamps[0] - time if lead is None else lead
            duration = following.get(packet.pts, packet.pts + packet.duration) - packet.pts
            end = max(end, packet.pts + duration)
            if not later and place == len(stamps) and duration:
                duration = max(end - max(packet.pts, time + lead), 1)
            yield replace(packet, duration=duration), time


def _shown(path: Path) -> list[int]:
    """The presentation times in a file, in order."""
    return sorted(packet.pts for packet in read_packets(path, payloads=False))


def decoding_times(stamps: Iterator[int], delay: int) -> Iterator[int]:
    """Decoding times for packets whose presentation times, sorted, are `stamps`: those, `delay` places later.

    They rise strictly and never exceed the presentation time of their packet. The first `delay` of them lie before the
    first stamp, as far apart as pictures usually are: how long an MP4 lasts, and its frame rate, follow from them.
    """
    head = list(itertools.islice(stamps, delay + _HEAD))
    step = statistics.median_low(b - a for a, b in itertools.pairwise(head)) if len(head) > 1 else 1
    yield from (head[0] - step * place for place in range(delay, 0, -1))
    yield from head
    yield from stamps
