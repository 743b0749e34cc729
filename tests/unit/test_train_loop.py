"""The loop: exact resuming, limits, and what happens when something goes wrong."""

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor

from sdatc_cli.errors import ModelError, OutputError
from sdatc_cli.train import loop
from sdatc_cli.train.batches import Batch, ClipSampler
from sdatc_cli.train.loop import CHECKPOINT, Limits, Trainer, learning_rate, read_checkpoint
from sdatc_cli.train.run import StageName
from sdatc_cli.train.samples import SampleSheet
from tests.unit.train_helpers import (
    RECIPE,
    STAGES,
    adversarial,
    ignore,
    make_shards,
    make_stage,
    make_trainer,
    recipe_of,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("loop"))


def batches(trainer: Trainer, shards: Path) -> Iterator[Batch]:
    recipe = trainer.recipe
    return ClipSampler(shards, recipe.batch, recipe.frames, recipe.patch, 0).iterate(trainer.step)


class PulledPlug(Exception):
    """Ends a run in the middle of nowhere."""


def cut(source: Iterator[Batch], after: int) -> Iterator[Batch]:
    for _ in range(after):
        yield next(source)
    raise PulledPlug


def contents(run: Path) -> dict[str, Any]:
    state = read_checkpoint(run / CHECKPOINT)
    del state["seconds"]
    return state


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Equal to the bit, all the way down."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.parametrize("name", STAGES)
def test_a_resumed_run_equals_one_that_was_not_stopped(name: StageName, shards: Path, tmp_path: Path) -> None:
    """Weights, average, optimizers and discriminator, after a crash between two checkpoints."""
    recipe = replace(adversarial(recipe_of(name)), batch=1, warmup=2, final_lr=0.1)
    limits = Limits(steps=6)
    whole = make_trainer(make_stage(name, shards, recipe), tmp_path / "whole", limits)
    whole.train(batches(whole, shards), ignore)

    first = make_trainer(make_stage(name, shards, recipe), tmp_path / "cut", replace(limits, checkpoint_minutes=0.0))
    with pytest.raises(PulledPlug):
        first.train(cut(batches(first, shards), 4), ignore)
    second = make_trainer(make_stage(name, shards, recipe, lively=0.1), tmp_path / "cut", limits)
    assert second.resume() and second.step == 4
    second.train(batches(second, shards), ignore)
    assert_same(contents(tmp_path / "cut"), contents(tmp_path / "whole"))


def test_a_resumed_run_scales_its_loss_as_one_that_was_not_stopped(shards: Path, tmp_path: Path) -> None:
    """fp16's scale grows on the way. accelerate makes a scaler on a GPU only; here the trainer is given the CPU's."""
    limits = Limits(steps=4)

    def trainer(run: str, limits: Limits) -> Trainer:
        made = make_trainer(make_stage("dcm", shards), tmp_path / run, limits)
        scaler = torch.amp.GradScaler("cpu", growth_interval=2)
        made.accelerator.scaler = scaler
        made.optimizer = AcceleratedOptimizer(made.optimizer.optimizer, scaler=scaler)
        return made

    whole, first, second = trainer("whole", limits), trainer("cut", Limits(steps=3)), trainer("cut", limits)
    for part in (whole, first, second):
        part.resume()
        part.train(batches(part, shards), ignore)
    assert_same(contents(tmp_path / "cut"), contents(tmp_path / "whole"))
    assert contents(tmp_path / "cut")["scaler"]["scale"] == 4 * torch.amp.GradScaler("cpu").get_scale()


def test_stop_ends_after_the_step_with_a_checkpoint(shards: Path, tmp_path: Path) -> None:
    trainer = make_trainer(make_stage("dcm", shards), tmp_path, Limits(steps=50, log_every=1))
    trainer.train(batches(trainer, shards), lambda now: trainer.stop() if now.step == 3 else None)
    assert trainer.step == 3 and read_checkpoint(tmp_path / CHECKPOINT)["step"] == 3


def test_the_average_follows_the_weights_slowly(shards: Path, tmp_path: Path) -> None:
    """EMA by hand: the first step's weights, then 2/11 and 3/12 of itself, the rest of the new ones."""
    stage = make_stage("dcm", shards)
    trainer = make_trainer(stage, tmp_path, Limits(steps=3, log_every=1))
    seen: list[Tensor] = []
    trainer.train(batches(trainer, shards), lambda now: seen.append(stage.net.restorer.dcm.conv_last.weight.clone()))
    expected = seen[0]
    for decay, weight in zip((2 / 11, 3 / 12), seen[1:], strict=True):
        expected = decay * expected + (1 - decay) * weight
    averaged = read_checkpoint(tmp_path / CHECKPOINT)["ema"]["module.restorer.dcm.conv_last.weight"]
    torch.testing.assert_close(averaged, expected)
    assert not torch.equal(averaged, seen[-1])


def test_a_nan_loss_stops_and_keeps_the_last_checkpoint(shards: Path, tmp_path: Path) -> None:
    stage = make_stage("dcm", shards)
    trainer = make_trainer(stage, tmp_path, Limits(steps=9, checkpoint_minutes=0.0))

    def poisoned() -> Iterator[Batch]:
        for i, batch in enumerate(batches(trainer, shards)):
            yield replace(batch, hr=batch.hr * float("nan")) if i == 3 else batch

    with pytest.raises(ModelError, match="the loss became nan at step 3; the last checkpoint is kept"):
        trainer.train(poisoned(), ignore)
    state = read_checkpoint(tmp_path / CHECKPOINT)
    assert state["step"] == 3
    assert all(torch.isfinite(value).all() for value in state["net"].values())


@pytest.mark.parametrize("how", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_keeps_the_last_good_checkpoint(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Exception
) -> None:
    trainer = make_trainer(make_stage("dcm", shards), tmp_path, Limits(steps=2))
    trainer.train(batches(trainer, shards), ignore)
    good = (tmp_path / CHECKPOINT).read_bytes()

    def full(state: object, file: Any) -> None:
        file.write(good[:1000])
        raise how

    monkeypatch.setattr(loop.torch, "save", full)
    longer = make_trainer(make_stage("dcm", shards), tmp_path, Limits(steps=4))
    longer.resume()
    with pytest.raises(OutputError, match="the last good one is kept") as caught:
        longer.train(batches(longer, shards), ignore)
    assert "\n" not in str(caught.value)
    assert (tmp_path / CHECKPOINT).read_bytes() == good
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, "log.jsonl"]


def test_a_checkpoint_of_another_configuration_is_refused(shards: Path, tmp_path: Path) -> None:
    trainer = make_trainer(make_stage("dcm", shards), tmp_path, Limits(steps=1))
    trainer.train(batches(trainer, shards), ignore)
    other = make_trainer(make_stage("vae", shards), tmp_path, Limits(steps=1), tag="other")
    with pytest.raises(ModelError, match=r"belongs to another configuration \(test, this run is other\)"):
        other.resume()


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_checkpoint_is_refused(shards: Path, tmp_path: Path, content: bytes | None) -> None:
    trainer = make_trainer(make_stage("dcm", shards), tmp_path, Limits(steps=1))
    trainer.save()
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-2000] if content is None else content)
    with pytest.raises(ModelError, match="cannot read the checkpoint") as caught:
        trainer.resume()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lacking", [{}, [1], torch.zeros(2), "ema", "step"])
def test_what_is_no_checkpoint_is_refused(shards: Path, tmp_path: Path, lacking: object) -> None:
    trainer = make_trainer(make_stage("dcm", shards), tmp_path, Limits(steps=1))
    content = {k: v for k, v in trainer.state().items() if k != lacking} if isinstance(lacking, str) else lacking
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(ModelError, match="is not a checkpoint of a training run: it h"):
        trainer.resume()


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"tag": print}, tmp_path / CHECKPOINT)
    with pytest.raises(ModelError, match="cannot read the checkpoint"):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_the_log_has_a_json_line_every_so_many_steps(shards: Path, tmp_path: Path) -> None:
    trainer = make_trainer(make_stage("dcm", shards), tmp_path, Limits(steps=5, log_every=2))
    trainer.train(batches(trainer, shards), ignore)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert all(line["l1"] > 0 and line["seconds"] >= 0 for line in lines)


def test_the_loss_on_held_out_batches_is_that_of_the_averaged_weights(shards: Path, tmp_path: Path) -> None:
    """The pixel error, which one line of its own computes again."""
    trainer = make_trainer(make_stage("dcm", shards, lively=0.05), tmp_path, Limits(steps=4, log_every=2))
    sampler = ClipSampler(shards, 2, 1, 64, seed=8)
    held_out, told = [sampler.load(0), sampler.load(1)], []
    trainer.train(batches(trainer, shards), ignore, held_out, told.append)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    found = {line["step"]: line["held_out"] for line in lines if "held_out" in line}
    assert list(found) == [0, 4] and len(told) == 2 and found[0] != found[4]
    with torch.no_grad():
        errors = [(trainer.ema.module(b.lq[:, 0], b.quantiser) - b.hr[:, 0]).abs().mean().item() for b in held_out]
    assert found[4]["l1"] == pytest.approx(sum(errors) / 2, abs=1e-5)


def test_a_sample_sheet_shows_the_weights_of_its_moment(shards: Path, tmp_path: Path) -> None:
    """Not those of an earlier sheet, of the same clips by the same networks."""
    restorer = make_stage("dcm", shards).net.restorer.eval()
    sheet = SampleSheet(tmp_path, "dcm", ClipSampler(shards, 1, 2, 64, 0).load(0), 0.0, ignore)
    before = sheet.draw(restorer)
    with torch.no_grad():
        for parameter in restorer.dcm.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    after = sheet.draw(restorer)
    assert torch.equal(before[..., :64], after[..., :64]) and torch.equal(before[..., 128:], after[..., 128:])
    assert (before - after)[..., 64:128].abs().mean() > 1 / 255


def test_limits_by_steps_by_time_and_by_whichever_comes_first() -> None:
    assert Limits(steps=10).fraction(5, 1e9) == 0.5
    assert Limits(minutes=2).fraction(10**6, 30) == 0.25
    assert Limits(steps=10, minutes=1).fraction(1, 45) == 0.75
    assert Limits(steps=10, minutes=1).fraction(9, 3) == 0.9
    assert Limits(steps=10).fraction(12, 0) == 1.0


def test_learning_rate_warms_up_and_falls_as_a_cosine_or_stays() -> None:
    recipe = replace(RECIPE, lr=1.0, warmup=10, final_lr=0.2)
    assert learning_rate(recipe, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(recipe, 20, 0.5) == pytest.approx(0.6)
    assert learning_rate(recipe, 20, 1.0) == pytest.approx(0.2)
    assert learning_rate(RECIPE, 0, 0.7) == RECIPE.lr
