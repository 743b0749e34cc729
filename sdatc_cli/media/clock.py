"""Timestamps of the output: those of the input on the encoder's clock, always rising."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True)
class ClockState:
    """Where a clock stands: the last timestamp it gave, how many it gave, and how many of them it had to move."""

    last: int | None = None
    count: int = 0
    repaired: int = 0


class FrameClock:
    """Gives each frame its timestamp in units of `base` seconds; `state` is all that it remembers."""

    def __init__(self, base: Fraction, rate: Fraction, shift: float) -> None:
        """`rate` (frames a second) counts for frames without times; `shift` seconds are taken off every time."""
        self.base = base
        self.state = ClockState()
        self._rate, self._shift = rate, shift

    def tick(self, pts: int | None, time_base: Fraction | None) -> int:
        """The timestamp of the next frame, whose own is `pts`: moved behind the one before where it does not rise."""
        before = self.state
        if pts is None or time_base is None:
            stamp = round(before.count / self._rate / self.base)
        else:
            exact = (pts * time_base - Fraction(self._shift)) / self.base
            stamp = math.floor(exact + Fraction(1, 2))  # `round` would take two halves in a row to one even number
        moved = before.last is not None and stamp <= before.last
        if before.last is not None and moved:
            stamp = before.last + 1
        self.state = replace(before, last=stamp, count=before.count + 1, repaired=before.repaired + moved)
        return stamp
