"""The script that trains the guess of how coarsely pictures were compressed: from photos and videos to weights."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sdatc_models.blind import FINEST, load_estimator
from tests.conftest import REPO, write_clip
from tests.unit.train_helpers import photo_folder


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_quantiser", REPO / "tools" / "train_quantiser.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_examples_and_weights_are_made_of_photos_and_videos(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos" / "clip.mkv", frames=20, width=160, height=128)
    photos = photo_folder(tmp_path / "photos")
    script.make(tmp_path / "some.npz", photos, tmp_path / "videos", 10, 3)
    script.make(tmp_path / "same.npz", photos, tmp_path / "videos", 10, 3)
    made, again = (np.load(tmp_path / name) for name in ("some.npz", "same.npz"))
    pictures, quantisers, kinds = (made[name] for name in ("pictures", "quantisers", "kinds"))
    assert pictures.shape[1:] == (3, 128, 128, 3) and pictures.dtype == np.uint8
    assert len(pictures) == len(quantisers) == len(kinds) >= 10
    assert ((quantisers >= FINEST) & (quantisers <= 51)).all() and set(kinds) <= set(range(len(script.KINDS)))
    assert np.array_equal(pictures, again["pictures"]), "the same seed, the same examples"

    monkeypatch.setattr(script, "HELD_OUT", 8)
    monkeypatch.setattr(script, "EPOCHS", 400)
    script.train(tmp_path / "out" / "weights.safetensors", [tmp_path / "some.npz", tmp_path / "same.npz"])
    told = capsys.readouterr().out
    assert "compressed once" in told and "from the surest quarter on" in told
    estimator = load_estimator(tmp_path / "out" / "weights.safetensors")
    errors = [estimator.guess(list(clip))[0] - own for clip, own in zip(pictures, quantisers, strict=True)]
    assert np.abs(errors).mean() < np.abs(quantisers - quantisers.mean()).mean() / 2, "so few are learnt by heart"


def test_what_was_compressed_twice_counts_as_the_coarser_and_a_little_more(script: ModuleType) -> None:
    assert script.together(30.0, 30.0) == pytest.approx(33), "twice the squares of the steps"
    assert 36 < script.together(36.0, 20.0) < 36.2
    assert script.together(30.0, None) is None


def test_the_loss_is_least_where_the_guess_and_its_deviation_are_right(script: ModuleType) -> None:
    true = torch.full((3,), 30.0)
    right, off, sure = (
        script.loss(torch.full((3,), guess), torch.full((3,), deviation), true).item()
        for guess, deviation in ((30.0, 0.0), (36.0, 0.0), (36.0, -2.0))
    )
    assert right < off < sure
