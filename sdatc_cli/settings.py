"""What a person types, checked and turned into values. Every failure is a UsageError that names the option."""

import importlib.util
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

from sdatc_cli.errors import UsageError

SMALLEST_TILE = 32  # input pixels
MOST_TILE = 9_999_999  # input pixels, more than any frame's edge
MOST_SEED = 2**63 - 1
MOST_GUIDANCE = 1000  # thousands of times what helps; far above it latents leave the range of numbers
X26_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
NVENC_PRESETS = tuple(f"p{number}" for number in range(1, 8))
SVT_PRESETS = tuple(str(number) for number in range(-1, 14))

_TO_63 = {"libvpx-vp9", "libvpx", "vp9", "vp8", "libsvtav1", "libaom-av1", "av1"}  # encoders; the others end at 51

_CLOCK = re.compile(r"(?:(?:(\d{1,6}):)?([0-5]?\d):)?(\d{1,9}(?:\.\d*)?|\.\d+)")  # as nanoseconds within 64 bits


def coarsest(codec: str) -> int:
    """The highest CRF of an encoder."""
    return 63 if codec in _TO_63 else 51


def moment(option: str, text: str) -> float:
    """ "90", "1:30" or "0:01:30.5" as seconds, at least 0."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{option} {short(text)}: give a time of at least 0 as seconds or [HH:]MM:SS, for example 90 or 1:30"
        )
    hours, minutes, rest = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest)


def rate(option: str, text: str | None) -> Fraction | None:
    """ "25", "23.976" or "30000/1001" as frames a second, from a thousandth to 1000; None passes."""
    if text is None:
        return None
    try:
        if len(text) > 40 or "e" in text.lower():  # 1e9999999 is a number, and half a minute's work
            raise ValueError
        value = Fraction(text).limit_denominator(1_000_000)
        if not Fraction(1, 1000) <= value <= 1000:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{option} {short(text)!r} is not a rate, such as 25 or 30000/1001") from None
    return value


def seconds(option: str, text: str | None) -> float | None:
    """`moment` of an option that may be absent."""
    return None if text is None else moment(option, text)


def moments(option: str, text: str | None) -> tuple[float, ...]:
    """ "10,1:30" as (10.0, 90.0), to the millisecond, each once; nothing when the option is absent."""
    return () if text is None else tuple(dict.fromkeys(round(moment(option, part), 3) for part in text.split(",")))


def tile_edge(text: str) -> int | None:
    """ "auto" as None, a number of input pixels as itself."""
    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > len(str(MOST_TILE)) or int(text) < SMALLEST_TILE:
        span = f"from {SMALLEST_TILE} to {MOST_TILE}"
        raise UsageError(f"--tile {short(text)}: choose auto or a number of input pixels {span}")
    return int(text)


def quantiser(text: str) -> Literal["auto"] | float | None:
    """ "auto" as itself, "none" as None, a number from 0 to 51 as itself."""
    if text == "auto" or text == "none":
        return None if text == "none" else "auto"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 51:
        raise UsageError(f"--quantiser {text}: choose auto, none or a number from 0 to 51")
    return value


def between(option: str, value: float | None, least: float, most: float = math.inf) -> None:
    """Checks that a number lies in a closed range; None passes."""
    if value is not None and not least <= value <= most:
        span = f"from {number(least)} to {number(most)}" if math.isfinite(most) else f"from {number(least)} up"
        raise UsageError(f"{option} {number(value)}: choose a number {span}")


def number(value: float) -> str:
    """A number for a message."""
    return short(str(value)) if isinstance(value, int) else f"{value:g}"  # long ones do not fit a float


def short(text: str) -> str:
    """What was typed, for a message; the beginning of what is very long."""
    return text if len(text) <= 60 else f"{text[:40]}..."


def preset(codec: str, name: str) -> None:
    """Checks the preset of the encoders that have x264's names for it, and of those with names or numbers besides.

    x264 and x265 would complain on stderr in words of their own.
    """
    if codec.endswith("_nvenc"):
        choices = X26_PRESETS + NVENC_PRESETS
    elif codec in ("av1", "svtav1", "libsvtav1"):
        choices = X26_PRESETS + SVT_PRESETS
    elif not codec.endswith(("_amf", "_vaapi", "_videotoolbox")) and any(
        word in codec for word in ("264", "265", "avc", "hevc", "_qsv")
    ):
        choices = X26_PRESETS
    else:
        return
    one_of("--preset", name, choices)


def pairs(option: str, texts: list[str]) -> tuple[tuple[str, str], ...]:
    """ "tune=film" as ("tune", "film")."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (equals and name.strip() and value):
            raise UsageError(f"{option} {text}: write NAME=VALUE, for example tune=film")
        found.append((name.strip(), value))
    return tuple(found)


def positive(option: str, value: float | None) -> None:
    """Checks that a number is above zero; None passes."""
    if value is not None and value <= 0:
        raise UsageError(f"{option} {number(value)}: choose a number above 0")


def names(option: str, text: str | None, choices: Iterable[str]) -> tuple[str, ...]:
    """ "a,b" as its parts in alphabetical order, each of them one of a few; nothing for None."""
    chosen = sorted({part.strip().lower() for part in (text or "").split(",") if part.strip()})
    for name in chosen:
        one_of(option, name, tuple(choices))
    return tuple(chosen)


def flow(option: str, name: str) -> None:
    """Checks that what a kind of optical flow needs is installed."""
    if name == "raft" and importlib.util.find_spec("torchvision") is None:
        raise UsageError(f"{option} raft needs the package torchvision: pip install torchvision")


def one_of(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Checks that a value is one of a few."""
    if value not in choices:
        raise UsageError(f"{option} {value}: choose {', '.join(map(str, choices[:-1]))} or {choices[-1]}")
