"""Models out of runs and of other models: export, merge, widen."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdatc_cli.errors import InputError, ModelError, OutputError
from sdatc_cli.train.export import export, write_model
from sdatc_cli.train.loop import CHECKPOINT
from sdatc_models import weights
from sdatc_models.config import DetailConfig, tiny
from sdatc_models.restorer import Restorer
from tests.unit.train_helpers import call, make_shards, plan, quietly, without_vgg


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("command"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_vgg(monkeypatch)


def test_export_refusals(shards: Path, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    quietly(plan(shards, tmp_path / "run", 1))
    out = tmp_path / "model"
    export(tmp_path / "run", out, None, overwrite=False)
    with pytest.raises(OutputError, match="already holds a model"):
        export(tmp_path / "run", out, None, overwrite=False)
    export(tmp_path / "run", out, None, overwrite=True)
    with pytest.raises(InputError, match="cannot read the table"):
        export(tmp_path / "run", tmp_path / "other", tmp_path / "none.md", overwrite=False)
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    content["config"]["unet"]["channels"] = [16, 16]
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="does not fit"):
        export(tmp_path / "run", tmp_path / "other", None, overwrite=False)
    (tmp_path / "run" / CHECKPOINT).unlink()
    with pytest.raises(ModelError, match="holds no checkpoint yet"):
        export(tmp_path / "run", tmp_path / "other", None, overwrite=False)
    assert not (tmp_path / "other").exists()


def test_merge_is_the_mean_of_every_weight(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """With the first one's configuration, also where the two present the networks' result differently."""
    other = Restorer(replace(tiny(), dcm=replace(tiny().dcm, mirror=False), detail=DetailConfig((0.5, 2.0))))
    other.load_state_dict(weights.load(tiny_models["lively"]).state_dict())
    weights.save(other, tmp_path / "other")
    assert call("merge", tiny_models["still"], tmp_path / "other", "--share", 0.25, "-o", tmp_path / "mean") == 0
    merged, still = weights.load(tmp_path / "mean"), weights.load(tiny_models["still"])
    assert merged.config == still.config
    first, second = still.state_dict(), other.state_dict()
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name], rtol=1e-3, atol=1e-4)
    assert "0.75 of the model `still` and 0.25 of `other`" in (tmp_path / "mean" / "README.md").read_text()
    assert call("merge", tiny_models["still"], tmp_path / "other", "-o", tmp_path / "mean", "-y") == 0


def test_a_model_that_cannot_be_replaced_stays_whole(
    tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, link = tmp_path / "model", tmp_path / "link"
    shutil.copytree(tiny_models["still"], out)
    link.symlink_to(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    real = weights.sha256

    def full(path: Path) -> str:
        if path.name == "vae.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(weights, "sha256", full)
        restorer = Restorer(tiny())
        for folder in (out, tmp_path / "new"):
            with pytest.raises(OutputError, match="No space left"):
                write_model(restorer, "card", folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"mine.txt, which is no part of a model"):
        write_model(restorer, "card", out, overwrite=True)
    (out / "mine.txt").unlink()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="cannot write the model"):
        write_model(restorer, "card", tmp_path / "file", overwrite=True)
    write_model(restorer, "card", link, overwrite=True)
    assert link.is_symlink() and weights.verify(out) and (out / "README.md").read_text() == "card"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link", "model"]


def test_a_widened_model_gives_the_same_pictures_and_can_learn_more(
    tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("widen", tiny_models["lively"], "--times", 3, "-o", tmp_path / "wide") == 0
    old, wide = weights.load(tiny_models["lively"]), weights.load(tmp_path / "wide")
    assert wide.config == replace(old.config, dcm=replace(old.config.dcm, expansion=3))
    assert wide.dcm.blocks[0].pairs[0].conv1.weight.shape == (24, 8, 3, 3)
    image, told = torch.rand(2, 3, 24, 32), torch.tensor([20.0, torch.nan])
    with torch.no_grad():
        torch.testing.assert_close(wide.dcm(image, told), old.dcm(image, told), rtol=0, atol=2e-4)
    wide.dcm.requires_grad_(True)(image, told, mirror=False).square().mean().backward()
    new = wide.dcm.blocks[0].pairs[0].conv2.weight.grad[:, 8:]
    assert new.abs().max() > 0
    capsys.readouterr()
    assert call("widen", tmp_path / "wide", "--times", 3, "-o", tmp_path / "again") == 2
    assert "3 times as wide already" in capsys.readouterr().err
    assert call("widen", tmp_path / "wide", "-o", tmp_path / "wider") == 0
    assert weights.load(tmp_path / "wider").config.dcm.expansion == 4
