"""What the networks are told of how coarsely an input was compressed: its codec's word, or what it looks like."""

from dataclasses import dataclass

from sdatc_cli.media.evidence import Evidence
from sdatc_models.blind import QuantiserEstimator
from sdatc_models.dcm import TOLD

# Where pictures were compressed once, no guess that was as sure lay further from the codec's word (measured, see the
# estimator's card).
_MORE = 8.0
_SURE = 3.5


@dataclass(frozen=True)
class Coarseness:
    """`quantiser`: on H.264's scale, None where nothing is known. `notice`: a line for a person, where the codec's word
    was not taken."""

    quantiser: float | None
    notice: str | None = None


def coarseness(found: Evidence, estimator: QuantiserEstimator) -> Coarseness:
    """The codec's word, unless it has none or the pictures were surely compressed more coarsely before.

    Guesses are whole numbers, so that no rounding of the processor's makes another output of the same input.
    """
    told, guess = found.quantiser, estimator.guess(found.pictures)
    if guess is None:
        return Coarseness(told)
    seen = float(min(max(round(guess.quantiser), 0), 51))
    if told is None:
        return Coarseness(seen)
    if seen < max(told, TOLD[0]) + _MORE or guess.deviation > _SURE:
        return Coarseness(told)
    return Coarseness(
        seen,
        f"looks as if it had been compressed more coarsely before (quantiser {seen:.0f}, its codec tells {told:.0f})"
        f" and is restored as such; --quantiser {told:.0f} goes by the codec",
    )
