"""What the training tests share: shards of real pixels, tiny stages without VGG, runs that end soon."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdatc_cli.app import run
from sdatc_cli.train import run as runs
from sdatc_cli.train.batches import Batch, ClipSampler
from sdatc_cli.train.loop import Limits, Trainer
from sdatc_cli.train.losses import ImageLoss, ImageLossWeights
from sdatc_cli.train.prepare import PreparePlan, prepare
from sdatc_cli.train.recipe import Recipe
from sdatc_cli.train.run import RunPlan, StageName, fit_code, train_stage
from sdatc_cli.train.stages import NETS, Stage
from sdatc_models.config import tiny
from sdatc_models.restorer import Restorer
from tests.conftest import SHARED, texture

PLAN = PreparePlan(per_photo=1, patch=128)
RECIPE = Recipe(batch=2, frames=1, patch=64, lr=2e-3, warmup=0, final_lr=1.0, ema=0.9)
CLIPS = replace(RECIPE, frames=3)
STAGES: list[StageName] = ["vae", "dcm", "diffusion", "decoder"]


def photo_folder(folder: Path) -> Path:
    """One real photo where ../shared has them, else a generated picture; the photo with the most in it, as a flat one
    has nothing to teach."""
    folder.mkdir()
    real = sorted((SHARED / "data" / "train_photos").glob("*"), key=lambda path: (path.stat().st_size, path.name))
    if real:
        (folder / real[-1].name).symlink_to(real[-1])
    else:
        from PIL import Image

        Image.fromarray(texture(640, 720)).save(folder / "texture.png")
    return folder


def make_shards(folder: Path) -> Path:
    prepare(photo_folder(folder / "photos"), None, folder / "shards", PLAN, ignore)
    return folder / "shards"


def recipe_of(stage: StageName) -> Recipe:
    return CLIPS if stage == "decoder" else RECIPE


def make_stage(name: StageName, shards: Path, recipe: Recipe | None = None, lively: float = 0.0) -> Stage:
    """A tiny stage without VGG; `lively` moves every parameter, so that no zero hides what is behind it."""
    torch.manual_seed(3)
    restorer = Restorer(tiny())
    recipe = recipe or recipe_of(name)
    fit_code(restorer, ClipSampler(shards, recipe.batch, recipe.frames, recipe.patch, 0), patches=2000)
    if lively:
        with torch.no_grad():
            for parameter in restorer.parameters():
                parameter.add_(torch.randn(parameter.shape) * lively)
    return Stage(NETS[name](restorer), recipe, ImageLoss(None))


def make_trainer(stage: Stage, run: Path, limits: Limits, tag: str = "test") -> Trainer:
    run.mkdir(exist_ok=True)
    return Trainer(stage, stage.recipe, limits, run, seed=5, precision="no", tag=tag)


def repeat(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def adversarial(recipe: Recipe) -> Recipe:
    return replace(recipe, weights=ImageLossWeights(adversarial=0.01, difference=0.5), adversarial_from=0.3)


def without_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """lite's recipe at a size for tests, so that the command needs no VGG weights and little time."""
    monkeypatch.setattr(runs, "CODE_PATCHES", 2000)
    monkeypatch.setitem(runs.RECIPES, "lite", dict.fromkeys(STAGES, RECIPE))


def call(*arguments: object) -> int:
    """The exit code of `sdatc train` with these words."""
    return run(["train", *map(str, arguments)])


def plan(shards: Path, folder: Path, steps: int = 3, **more: object) -> RunPlan:
    return RunPlan("dcm", tiny(), RECIPE, shards, folder, Limits(steps, log_every=1), **more)  # type: ignore[arg-type]


def quietly(plan: RunPlan) -> Trainer:
    return train_stage(plan, lambda now: None, lambda line: None)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of pixels in 0 ... 255."""
    return float(-10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2 + 1e-12))


def ignore(*_: object) -> None:
    """A progress that nobody looks at."""
