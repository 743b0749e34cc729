"""What the networks are told of how coarsely an input was compressed."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdatc_cli.engine.coarseness import coarseness
from sdatc_cli.media.evidence import Evidence
from sdatc_cli.media.images import read_image
from sdatc_cli.train.degradation import Damage, compress
from sdatc_models.blind import FINEST, LEAST, Guess, QuantiserEstimator, features, load_estimator
from sdatc_models.weights import WeightsError


def compressed(clip: np.ndarray, *crfs: int) -> tuple[np.ndarray, float]:
    """After one encoding after another, and what the last of them tells."""
    told = None
    for crf in crfs:
        clip, told = compress(clip, Damage("bicubic", "libx264", crf, None, 25))
    assert told is not None
    return clip, told


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """A camera that moves over the original frame in the README's picture, (12, 160, 192, 3)."""
    picture = read_image(Path(__file__).parents[2] / "docs" / "side_by_side.png")[:, -640:]
    return np.stack([picture[150 + i : 310 + i, 200 + 2 * i : 392 + 2 * i] for i in range(12)])


@pytest.fixture(scope="module")
def estimator() -> QuantiserEstimator:
    return load_estimator()


def guess(estimator: QuantiserEstimator, clip: np.ndarray) -> float:
    found = estimator.guess(list(clip[5:8]))
    assert found is not None
    return found.quantiser


def test_the_guess_follows_the_compression(estimator: QuantiserEstimator, clip: np.ndarray) -> None:
    once = [compressed(clip, crf) for crf in (15, 25, 35)]
    assert [guess(estimator, pictures) for pictures, _ in once] == pytest.approx([told for _, told in once], abs=6)


def test_a_second_compression_does_not_hide_the_first(estimator: QuantiserEstimator, clip: np.ndarray) -> None:
    """Which the codec's word does."""
    twice, told = compressed(clip, 36, 16)
    assert told < 24 < 30 < guess(estimator, twice)
    known = coarseness(Evidence(told, list(twice[5:8])), estimator)
    assert known.quantiser is not None and known.quantiser > 30
    assert known.notice is not None and f"--quantiser {told:.0f} " in known.notice


def test_the_codec_is_believed_where_the_pictures_do_not_contradict(
    estimator: QuantiserEstimator, clip: np.ndarray
) -> None:
    for crf in (15, 25, 35):
        pictures, told = compressed(clip, crf)
        assert coarseness(Evidence(told, list(pictures[5:8])), estimator).quantiser == told
    assert coarseness(Evidence(45.0, list(clip)), estimator).quantiser == 45, "finer pictures prove nothing"


def test_where_no_codec_tells_the_pictures_do(estimator: QuantiserEstimator, clip: np.ndarray) -> None:
    whole = coarseness(Evidence(None, list(clip[5:8])), estimator)
    coarse = coarseness(Evidence(None, list(compressed(clip, 36)[0][5:8])), estimator)
    assert whole.notice is coarse.notice is None
    assert whole.quantiser is not None and coarse.quantiser is not None and whole.quantiser + 8 < coarse.quantiser
    assert coarseness(Evidence(), estimator).quantiser is None
    assert coarseness(Evidence(20.0), estimator).quantiser == 20


class Certain(QuantiserEstimator):
    """Guesses what it is told to."""

    def __init__(self, quantiser: float, deviation: float) -> None:
        super().__init__()
        self.found = Guess(quantiser, deviation)

    def guess(self, pictures: object) -> Guess:
        return self.found


@given(st.floats(0, 51), st.floats(-20, 80), st.floats(0.1, 10))
def test_what_is_told_is_on_the_scale_and_never_finer_than_the_codec_says(
    told: float, guessed: float, deviation: float
) -> None:
    estimator = Certain(guessed, deviation)
    known = coarseness(Evidence(told), estimator).quantiser
    assert known is not None and told <= known <= 51
    assert known == told or (known >= max(told, 10) + 8 and deviation <= 3.5), (
        "the networks tell nothing finer than 10 apart"
    )
    untold = coarseness(Evidence(), estimator).quantiser
    assert untold is not None and 0 <= untold <= 51 and untold == round(untold)


def test_features_tell_blocks_and_lost_frequencies(clip: np.ndarray) -> None:
    """Of a noisy picture and of it in flat blocks of 8: those of borders and of small coefficients rise."""
    picture = (clip[0] + np.random.default_rng(0).normal(0, 5, clip[0].shape)).astype(np.float32)
    blocks = cv2.resize(cv2.resize(picture, (24, 20), interpolation=cv2.INTER_AREA), (192, 160), interpolation=0)
    found = features(torch.from_numpy(np.stack([picture, blocks])).permute(0, 3, 1, 2))
    assert found.shape == (2, 218) and found.isfinite().all()
    small = found[:, 2:72:6]  # coefficients under 0.6, of the 12 diagonals
    assert (small[1] > 0.99).all() and (small[0] < 0.9).all()
    assert found[1, 156] > found[0, 156] + 1, "where blocks meet, against the mean"


@pytest.mark.parametrize("size", [(LEAST, LEAST), (33, 47), (200, LEAST)])
def test_flat_and_odd_pictures_have_a_guess(estimator: QuantiserEstimator, size: tuple[int, int]) -> None:
    for value in (0, 128, 255):
        found = estimator.guess([np.full((*size, 3), value, np.uint8)])
        assert found is not None and np.isfinite(found).all()


def test_small_pictures_have_none(estimator: QuantiserEstimator) -> None:
    assert estimator.guess([]) is None
    assert estimator.guess([np.zeros((LEAST - 1, 64, 3), np.uint8)]) is None


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    for content in (None, b"", b"x" * 100):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(WeightsError, match="is missing or damaged"):
            load_estimator(path)


def test_what_was_never_compressed_counts_as_the_finest(estimator: QuantiserEstimator) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(128, 20, (128, 128, 3)).clip(0, 255).astype(np.uint8)
    assert guess(estimator, np.stack([noise] * 8)) == pytest.approx(FINEST, abs=3)
