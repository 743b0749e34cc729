"""What could not be read of an input, said in a few lines however many packets are broken."""

from pathlib import Path

_GAP = 1.0  # seconds between two faults that are told as one stretch
_MOST_STRETCHES = 8


class DamageLog:
    """Gathers faults by time and sums them up. Times are seconds from the start of the input."""

    def __init__(self) -> None:
        self._stretches: dict[str, list[list[float]]] = {}
        self._counts: dict[str, int] = {}

    def add(self, what: str, time: float | None) -> None:
        """Count one fault, `what` being the end of "3 ..."; `time` is None where the position is unknown."""
        self._counts[what] = self._counts.get(what, 0) + 1
        if time is None:
            return
        stretches = self._stretches.setdefault(what, [])
        if stretches and stretches[-1][0] - _GAP <= time <= stretches[-1][1] + _GAP:
            stretches[-1] = [min(stretches[-1][0], time), max(stretches[-1][1], time)]
        elif len(stretches) < 10_000:
            stretches.append([time, time])

    def lines(self) -> list[str]:
        """One line for each kind of fault, with the times it happened at."""
        result = []
        for what, count in self._counts.items():
            stretches = sorted(self._stretches.get(what, []))
            spans = [f"{a:.2f} s" if b - a < 0.01 else f"{a:.2f}-{b:.2f} s" for a, b in stretches[:_MOST_STRETCHES]]
            if len(stretches) > _MOST_STRETCHES:
                spans.append(f"{len(stretches) - _MOST_STRETCHES} more")
            result.append(f"{count} {what}" + (f" (at {', '.join(spans)})" if spans else ""))
        return result


def missing_bytes(path: Path) -> tuple[int, int] | None:
    """(size, size announced by the file's own header) if the file was cut short, else None.

    Knows MP4/MOV (sizes of the top-level boxes), Matroska/WebM (size of the segment) and AVI (size of the RIFF chunk).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            announced = 8 + int.from_bytes(head[4:8], "little")
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            announced = _matroska_size(head + file.read(4096))
        elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"):
            announced = _boxes_size(file, size)
        else:
            return None
    return (size, announced) if announced > size else None


def _boxes_size(file, size: int) -> int:
    """Where the last top-level ISO box ends, by the boxes' own sizes."""
    position = 0
    for _ in range(100_000):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            break
        length = int.from_bytes(head[:4], "big")
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            return size
        position += length
        if position >= size:
            break
    return position


def _vint(data: bytes, at: int, keep_marker: bool) -> tuple[int, int, bool]:
    """An EBML number: (value, length in bytes, whether it says 'unknown')."""
    if at >= len(data) or data[at] == 0:
        return 0, 8, True
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    bits = value & ((1 << 7 * length) - 1)
    return (value if keep_marker else bits), length, bits == (1 << 7 * length) - 1


def _matroska_size(data: bytes) -> int:
    """Where the segment ends by its own header; 0 if it does not say."""
    at = 0
    for _ in range(16):
        element, id_length, _unknown = _vint(data, at, keep_marker=True)
        length, size_length, unknown = _vint(data, at + id_length, keep_marker=False)
        at += id_length + size_length
        if unknown or at >= len(data):
            return 0
        if element == 0x18538067:  # Segment
            return at + length
        at += length
    return 0
