"""`sdatc train` as a person uses it: prepare, run, go on, export, and every refusal in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from sdatc_cli.errors import ModelError, UsageError
from sdatc_cli.train import run as runs
from sdatc_cli.train.loop import CHECKPOINT, Limits, read_checkpoint
from sdatc_cli.train.recipe import BASE
from sdatc_cli.train.run import RunPlan, pick_precision, plan_run, read_run
from sdatc_cli.train.shards import open_shards
from sdatc_cli.train.taught import TAUGHT
from sdatc_cli.zoo.manifest import MODELS
from sdatc_models import weights
from sdatc_models.config import tiny, to_json
from sdatc_models.restorer import RestoreOptions, Restorer
from tests.unit.train_helpers import RECIPE, call, make_shards, photo_folder, plan, quietly, without_vgg

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("command"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_vgg(monkeypatch)


def test_prepare_run_go_on_export_and_load(
    tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    shards, folder, out = tmp_path / "shards", tmp_path / "run", tmp_path / "model"
    photos = photo_folder(tmp_path / "photos")
    assert call("prepare", "--photos", photos, "-o", shards, "--per-photo", 1, "--patch", 128) == 0
    assert "1 shards, 0 sources left out" in capsys.readouterr().err
    command = ("run", "--stage", "dcm", "-i", shards, "-o", folder, "--init", tiny_models["still"])
    assert call(*command, "--steps", 3, "--batch", 1) == 0
    assert f"next: sdatc train export {folder} -o MODEL_DIR" in capsys.readouterr().err
    assert call(*command, "--steps", 5, "--batch", 1) == 0
    assert "going on from step 3" in capsys.readouterr().err
    assert [p.name for p in sorted((folder / "samples").iterdir())] == ["0000003.png", "0000005.png"]
    table = tmp_path / "table.md"
    table.write_text("| CRF | LPIPS |\n| --- | --- |\n| 25 | .4 |\n")
    assert call("export", folder, "-o", out, "--table", table) == 0
    assert table.read_text().strip() in (out / "README.md").read_text()
    restored = weights.load(out).restore(torch.rand(1, 3, 16, 16), [0], RestoreOptions(steps=2))
    assert torch.isfinite(restored).all()
    averaged = read_checkpoint(folder / CHECKPOINT)["ema"]["module.restorer.dcm.conv_last.weight"]
    loaded = weights.load(out).dcm.conv_last.weight
    torch.testing.assert_close(loaded, averaged, rtol=1e-3, atol=1e-6)
    assert loaded.abs().sum() > 0


def test_teaching_needs_a_share_and_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("teach", tmp_path, "--share", 0) == 2
    assert "--share 0.0: choose a number above 0 and up to 1" in capsys.readouterr().err
    assert call("teach", tmp_path) == 3
    assert "no shards in" in capsys.readouterr().err


def test_a_run_without_the_teachers_pictures_is_refused(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("-i", shards, "-o", tmp_path / "run", "--steps", 1)
    assert call("run", "--stage", "dcm", "--taught", *common) == 3
    assert f"no pictures of a teacher in {shards}; make some with: sdatc train teach" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert call("run", "--stage", "vae", "--taught", *common) == 2
    assert "--taught is for --stage dcm, not for vae" in capsys.readouterr().err


def test_a_taught_run_goes_on_only_as_one(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "shards"))
    (shard,) = open_shards(copy)
    (copy / TAUGHT).mkdir()
    Image.new("RGB", (128, 128), "white").save(copy / TAUGHT / f"{shard.path.stem}-0.jpg")
    command = ("run", "--stage", "dcm", "-i", copy, "-o", tmp_path / "run", "--steps")
    assert call(*command, 1, "--taught") == 0
    assert call(*command, 2) == 2
    assert "was begun with --taught; go on as it was begun" in capsys.readouterr().err
    assert call(*command, 2, "--taught") == 0
    assert "going on from step 1" in capsys.readouterr().err


def test_sample_pictures_show_input_result_and_truth(shards: Path, tmp_path: Path) -> None:
    quietly(plan(shards, tmp_path / "run", sample_minutes=0.0))
    sheets = sorted((tmp_path / "run" / "samples").iterdir())
    assert [p.stem for p in sheets] == ["0000001", "0000002", "0000003"]
    assert Image.open(sheets[-1]).size == (3 * 64, 2 * 64)


def test_held_out_shards_are_told_of_and_not_learnt(
    shards: Path, tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = photo_folder(tmp_path / "photos")
    assert call("prepare", "--photos", photos, "-o", tmp_path / "others", "--patch", 128, "--seed", 9) == 0
    command = ("run", "--stage", "dcm", "-i", shards, "--init", tiny_models["still"], "--steps", 3, "--batch", 1)
    capsys.readouterr()
    assert call(*command, "-o", tmp_path / "told", "--held-out", tmp_path / "others") == 0
    errors = capsys.readouterr().err
    told = [line for line in errors.splitlines() if "held out:" in line]
    assert [line.split(":")[1] for line in told] == [" step 0, held out", " step 3, held out"]
    assert call(*command, "-o", tmp_path / "not") == 0
    assert "1 of the held-out sources are called like training sources" in errors  # the same photo, another seed
    runs_of = [read_checkpoint(tmp_path / name / CHECKPOINT)["net"] for name in ("told", "not")]
    assert all(torch.equal(runs_of[0][key], runs_of[1][key]) for key in runs_of[0])


def test_going_on_equals_not_stopping(shards: Path, tmp_path: Path) -> None:
    quietly(plan(shards, tmp_path / "whole", 4))
    quietly(plan(shards, tmp_path / "parts", 2))
    quietly(plan(shards, tmp_path / "parts", 4))
    whole, parts = (read_checkpoint(tmp_path / name / CHECKPOINT)["net"] for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_new_model_gets_its_code_from_the_data(shards: Path, tmp_path: Path) -> None:
    """The latents of the training data have unit spread from the start."""
    from sdatc_cli.train.batches import ClipSampler

    restorer = quietly(plan(shards, tmp_path / "run", 1)).stage.net.get_submodule("restorer")
    assert isinstance(restorer, Restorer)
    sampler = ClipSampler(shards, 8, 1, 64, seed=0)
    latents = restorer.vae.encode(torch.cat([sampler.load(i).hr[:, 0] for i in range(8)]))
    spread = latents.std((0, 2, 3))
    assert spread.min() > 0.6 and spread.max() < 1.6


def test_the_run_file_says_what_is_trained(shards: Path, tmp_path: Path) -> None:
    quietly(plan(shards, tmp_path / "run", 1, seed=4))
    config, content = read_run(tmp_path / "run")
    assert config == tiny()
    assert (content["stage"], content["seed"], content["recipe"]["lr"]) == ("dcm", 4, RECIPE.lr)


def test_another_stage_or_size_in_the_same_folder_is_refused(shards: Path, tmp_path: Path) -> None:
    quietly(plan(shards, tmp_path, 1))
    with pytest.raises(ModelError, match="belongs to another configuration"):
        quietly(RunPlan("vae", tiny(), RECIPE, shards, tmp_path, Limits(2)))
    with pytest.raises(UsageError, match=r"--config base: .* holds the configuration tiny"):
        plan_run("dcm", shards, tmp_path, Limits(2), size="base")


def test_a_run_goes_on_only_with_its_seed_and_its_first_model(
    shards: Path, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    quietly(plan(shards, tmp_path / "new", 1, seed=4))
    quietly(plan(shards, tmp_path / "run", 1, init=tiny_models["still"]))

    def planned(run: str, init: str | None, seed: int) -> RunPlan:
        folder = tiny_models[init] if init else None
        return plan_run("dcm", shards, tmp_path / run, Limits(2), init=folder, seed=seed, precision="no")

    assert planned("new", None, 4).seed == 4
    for init in ("still", None):
        assert planned("run", init, 0).limits == Limits(2)
    with pytest.raises(UsageError, match="new was begun with --seed 4, not 5 and without --init; go on"):
        planned("new", "still", 5)
    with pytest.raises(UsageError, match="run was begun with --init still, not lively; go on"):
        planned("run", "lively", 0)


def test_a_run_from_a_trained_model_has_perceptual_losses_at_once_and_its_own_learning_rate(
    shards: Path, tmp_path: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runs.RECIPES["lite"], "dcm", replace(RECIPE, perceptual_from=0.35, lr=4e-4, tuning=0.5))

    def planned(init: Path | None) -> RunPlan:
        return plan_run("dcm", shards, tmp_path / "run", Limits(1), init=init, precision="no")

    scratch = planned(None).recipe
    assert (scratch.perceptual_from, scratch.lr) == (0.35, 4e-4)
    first = planned(tiny_models["still"])
    assert (first.recipe.perceptual_from, first.recipe.lr) == (0, 2e-4)
    quietly(first)
    assert planned(None).recipe == first.recipe  # going on, and not starting anew


@pytest.mark.parametrize("name", ["base", "base-v"])
def test_what_is_built_as_base_trains_as_base(name: str, tmp_path: Path) -> None:
    config = MODELS[name].config()
    (tmp_path / CHECKPOINT).touch()
    (tmp_path / "run.json").write_text(json.dumps({"config": json.loads(to_json(config))}))
    assert plan_run("decoder", tmp_path, tmp_path, Limits(1), precision="no").recipe == BASE["decoder"]


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (pick_precision("auto"), pick_precision("no"), pick_precision("bf16")) == ("no", "no", "bf16")
    assert call("run", "--stage", "dcm", "-i", "x", "-o", "y", "--steps", 1, "--precision", "fp16") == 5


def test_bad_command_lines(
    shards: Path, tmp_path: Path, tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ready = ("run", "--stage", "dcm", "-i", shards, "-o", tmp_path / "run")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "run.json").write_text("{}")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        (*ready,): (2, "give --steps, --minutes, or both"),
        (*ready, "--steps", 0): (2, "--steps 0"),
        (*ready, "--minutes", -1): (2, "--minutes -1"),
        (*ready, "--steps", 1, "--batch", 0): (2, "--batch 0"),
        (*ready, "--steps", 1, "--init", tmp_path / "none"): (4, "no model"),
        (*ready, "--steps", 1, "--init", tiny_models["still"], "--config", "lite"): (2, "holds the configuration tiny"),
        ("run", "--stage", "best", "-i", shards, "-o", tmp_path): (2, "best"),
        ("run", "--stage", "dcm", "-i", empty, "-o", tmp_path / "run", "--steps", 1): (3, "no shards in"),
        ("run", "--stage", "dcm", "-i", shards, "-o", tmp_path / "file" / "run", "--steps", 1): (6, "cannot write to"),
        (*ready, "--steps", 1, "--held-out", shards): (3, "is to be held out, but"),
        (*ready, "--steps", 1, "--held-out", empty): (3, "no shards in"),
        ("widen", tiny_models["still"], "-o", tmp_path / "out", "--times", 99999999): (
            2,
            "choose a number from 2 to 64",
        ),
        ("prepare", "-o", tmp_path / "out"): (2, "give --photos, --videos, or both"),
        ("prepare", "-o", tmp_path / "out", "--photos", empty): (3, "no photos or videos"),
        ("prepare", "-o", tmp_path / "out", "--photos", empty, "--patch", 100): (2, "--patch 100"),
        ("prepare", "-o", shards, "--photos", shards.parent / "photos", "--patch", 256): (2, "clips of 128 pixels"),
        ("export", tmp_path / "nowhere", "-o", tmp_path / "m"): (4, "is no training run"),
        ("export", tmp_path, "-o", tmp_path / "m"): (4, "is damaged"),
        ("merge", tiny_models["still"], tiny_models["lively"], "-o", tmp_path / "m", "--share", 1): (2, "--share 1.0"),
        ("merge", tiny_models["still"], tmp_path / "none", "-o", tmp_path / "m"): (4, "no model"),
        ("merge", tiny_models["still"], "lite", "-o", tmp_path / "m"): (4, "are different networks"),
        ("merge", tiny_models["still"], tiny_models["lively"], "-o", tiny_models["still"]): (
            6,
            "already holds a model",
        ),
        ("merge", tiny_models["still"], tiny_models["lively"], "-o", tmp_path / "file" / "m"): (6, "cannot write"),
        ("widen", tiny_models["lively"], "-o", tmp_path / "m", "--times", 1): (2, "--times 1"),
        ("widen", tmp_path / "none", "-o", tmp_path / "m"): (4, "no model"),
        ("widen", tiny_models["lively"], "-o", tiny_models["still"]): (6, "already holds a model"),
    }
    for arguments, (code, words) in cases.items():
        assert call(*arguments) == code, arguments
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and error[0].startswith("error: ") and words in error[0], (arguments, error)
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


SCRIPT = """
import sys, hashlib
from pathlib import Path
from sdatc_cli.train import run as runs
from tests.unit.train_helpers import CLIPS, adversarial
from sdatc_cli.train.loop import Limits
from sdatc_cli.train.run import RunPlan, train_stage
from sdatc_models.config import tiny

runs.CODE_PATCHES = 2000
shards, run, limits = Path(sys.argv[1]), Path(sys.argv[2]), Limits(int(sys.argv[3]), log_every=1)
plan = RunPlan("decoder", tiny(), adversarial(CLIPS), shards, run, limits)
trainer = train_stage(plan, lambda now: print("step", now.step, flush=True), print)
state = trainer.accelerator.unwrap_model(trainer.net).state_dict()
digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()
print("digest", trainer.accelerator.process_index, trainer.accelerator.num_processes, digest, trainer.step, flush=True)
"""


def start(tmp_path: Path, *arguments: object, launcher: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join([str(REPO / "models"), str(REPO)])
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """stdout and stderr to the end; a process that hangs is asked to end, and the test fails."""
    try:
        return process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise


def test_two_processes_train_one_model(shards: Path, tmp_path: Path) -> None:
    """With the discriminator: both end with the same weights, and one writes the log."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    process = start(tmp_path, shards, tmp_path / "run", 2, launcher=launcher)
    out, errors = finish(process)
    assert process.returncode == 0, errors
    ends = sorted(line.split()[1:] for line in out.splitlines() if line.startswith("digest"))
    assert [end[:2] for end in ends] == [["0", "2"], ["1", "2"]]
    assert ends[0][2] == ends[1][2]
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2


def test_ctrl_c_ends_a_run_with_a_checkpoint(shards: Path, tmp_path: Path) -> None:
    process = start(tmp_path, shards, tmp_path / "run", 1000)
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith("step 2"):
        assert line, finish(process)[1]
    process.send_signal(signal.SIGINT)
    out, errors = finish(process)
    assert process.returncode == 0, errors
    last = int(out.split()[-1])
    assert 2 <= last < 1000, out
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)["step"] == last
