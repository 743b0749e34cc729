"""What a person types, checked and turned into values. Every failure is a UsageError that names the option."""

import math
import re
from collections.abc import Iterable

from sdatc_cli.errors import UsageError

SMALLEST_TILE = 32  # input pixels
X26_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)

_CLOCK = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d*)?|\.\d+)")


def seconds(option: str, text: str | None) -> float | None:
    """ "90", "1:30" or "0:01:30.5" as seconds, at least 0."""
    if text is None:
        return None
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} {text}: give a time of at least 0 as seconds or [HH:]MM:SS, for example 90 or 1:30")
    hours, minutes, rest = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest)


def tile_edge(text: str) -> int | None:
    """ "auto" as None, a number of input pixels as itself."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < SMALLEST_TILE:
        raise UsageError(f"--tile {text}: choose auto or a number of input pixels from {SMALLEST_TILE} up")
    return int(text)


def between(option: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Checks that a number lies in a closed range; None passes."""
    if value is not None and not least <= value <= most:
        span = f"from {least:g} to {most:g}" if math.isfinite(most) else f"from {least:g} up"
        raise UsageError(f"{option} {value:g}: choose a number {span}")


def preset(codec: str, name: str) -> None:
    """Checks the preset of x264 and x265, which would complain on stderr in words of their own."""
    if "264" in codec or "265" in codec:
        one_of("--preset", name, X26_PRESETS)


def positive(option: str, value: float | None) -> None:
    """Checks that a number is above zero; None passes."""
    if value is not None and value <= 0:
        raise UsageError(f"{option} {value:g}: choose a number above 0")


def names(option: str, text: str | None, choices: Iterable[str]) -> tuple[str, ...]:
    """ "a,b" as its parts in alphabetical order, each of them one of a few; nothing for None."""
    chosen = sorted({part.strip().lower() for part in (text or "").split(",") if part.strip()})
    for name in chosen:
        one_of(option, name, tuple(choices))
    return tuple(chosen)


def one_of(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Checks that a value is one of a few."""
    if value not in choices:
        raise UsageError(f"{option} {value}: choose {', '.join(map(str, choices[:-1]))} or {choices[-1]}")
