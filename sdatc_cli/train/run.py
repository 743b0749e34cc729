"""One training run and its folder: run.json (what is trained), checkpoint.pt, log.jsonl, samples/*.png."""

import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import PartialState

from sdatc_cli.engine.device import card_computes_bf16
from sdatc_cli.errors import DeviceError, InputError, ModelError, OutputError, UsageError
from sdatc_models import weights
from sdatc_models.config import ModelConfig, base, from_json, lite, to_json
from sdatc_models.restorer import Restorer

from .batches import Batch, ClipSampler
from .loop import CHECKPOINT, Limits, Progress, Trainer, on_cpu
from .losses import ImageLoss, PerceptualLoss
from .recipe import RECIPES, Recipe
from .samples import SampleSheet
from .stages import NETS, Stage, StageNet

StageName = Literal["vae", "dcm", "diffusion", "decoder"]
SIZES = {"lite": lite, "base": base}
RUN_FILE = "run.json"
HELD_OUT_BATCHES = 16
CODE_PATCHES = 60_000  # patches that a linear code is fitted to


@dataclass(frozen=True)
class RunPlan:
    """What to train, on what, where and how long. `init` is a model folder to start from; `taught`: the target is a
    teacher's picture of the damaged frame, not the true one; `held_out`: shards on which the loss is told."""

    stage: StageName
    config: ModelConfig
    recipe: Recipe
    shards: Path
    run: Path
    limits: Limits
    init: Path | None = None
    taught: bool = False
    held_out: Path | None = None
    seed: int = 0
    precision: str = "no"
    sample_minutes: float = 5.0

    @property
    def tag(self) -> str:
        """Names stage and configuration; a checkpoint with another tag is refused."""
        digest = hashlib.sha256(to_json(self.config).encode()).hexdigest()[:8]
        return f"{self.stage} of {self.config.name} {digest}"


def pick_precision(wanted: str) -> str:
    """accelerate's word for "auto" | "no" | "bf16" | "fp16". DeviceError for fp16 where no GPU is."""
    cuda = torch.cuda.is_available()
    if wanted == "fp16" and not cuda:
        raise DeviceError("--precision fp16 needs a CUDA GPU; choose no or bf16")
    if wanted != "auto":
        return wanted
    if not cuda:
        return "no"
    return "bf16" if card_computes_bf16(torch.device("cuda")) else "fp16"


def load_init(folder: Path) -> Restorer:
    """The model that a run starts from. ModelError when it cannot be used."""
    try:
        return weights.load(folder)
    except weights.WeightsError as error:
        raise ModelError(str(error)) from error


def read_run(run: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The configuration and everything else in a run's run.json. ModelError when there is none or it is damaged."""
    path = run / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return from_json(json.dumps(content["config"])), content
    except FileNotFoundError as error:
        raise ModelError(f"{run} is no training run: it has no {RUN_FILE}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def _write_run(plan: RunPlan) -> None:
    recipe = asdict(plan.recipe)
    content = {
        "stage": plan.stage,
        "config": json.loads(to_json(plan.config)),
        "recipe": recipe,
        "seed": plan.seed,
        "precision": plan.precision,
        "taught": plan.taught,
        "init": plan.init.name if plan.init else None,
        "shards": plan.shards.name,
    }
    (plan.run / RUN_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _check_as_begun(run: Path, content: dict[str, Any], init: Path | None, taught: bool, seed: int) -> None:
    """UsageError that says how a run was begun, by its run.json, where it is to go on otherwise. No `init` fits all."""
    begun = []
    if bool(content.get("taught")) != taught:
        begun.append(f"{'without' if taught else 'with'} --taught")
    if (first := content.get("seed", seed)) != seed:
        begun.append(f"with --seed {first}, not {seed}")
    if init is not None and (first := content.get("init")) != init.name:
        begun.append(f"with --init {first}, not {init.name}" if first else "without --init")
    if begun:
        raise UsageError(f"{run} was begun {' and '.join(begun)}; go on as it was begun")


def plan_run(
    stage: StageName,
    shards: Path,
    run: Path,
    limits: Limits,
    *,
    size: str | None = None,
    init: Path | None = None,
    taught: bool = False,
    held_out: Path | None = None,
    seed: int = 0,
    precision: str = "auto",
    batch: int | None = None,
) -> RunPlan:
    """Fill in what was not said: the configuration of a run that exists, else of `init`, else of `size`, else lite.

    UsageError when `size` says otherwise, `taught` does not fit, or a run that exists was begun with others of `init`,
    `taught` and `seed`; ModelError for an unusable run or `init`.
    """
    if taught and stage != "dcm":
        raise UsageError(f"--taught is for --stage dcm, not for {stage}")
    trained = init is not None
    if (run / CHECKPOINT).exists():
        config, content = read_run(run)
        trained = content.get("init") is not None
        _check_as_begun(run, content, init, taught, seed)
    elif init is not None:
        config = load_init(init).config
    else:
        config = SIZES[size or "lite"]()
    if size is not None and size != config.name:
        raise UsageError(f"--config {size}: {run if init is None else init} holds the configuration {config.name}")
    recipe = RECIPES[config.family][stage]
    if trained:
        recipe = replace(recipe, perceptual_from=0.0, lr=recipe.lr * recipe.tuning)
    if batch is not None:
        recipe = replace(recipe, batch=batch)
    return RunPlan(stage, config, recipe, shards, run, limits, init, taught, held_out, seed, pick_precision(precision))


def fit_code(restorer: Restorer, sampler: ClipSampler, patches: int) -> None:
    """Set a linear autoencoder's code by the principal components of so many patches from the training data."""
    patch = restorer.vae.patch
    if patch is None:
        return
    edge, found, count = restorer.config.vae.factor, [], 0
    while count < patches:
        images = sampler.load(len(found)).hr.flatten(0, 1)
        columns = torch.nn.functional.unfold(images, edge, stride=edge)
        found.append(columns.transpose(1, 2).reshape(-1, 3, edge, edge))
        count += len(found[-1])
    patch.fit(torch.cat(found)[:patches])


def _model(plan: RunPlan, resuming: bool) -> Restorer:
    """The networks at the start of a run; a checkpoint fills them in when `resuming`."""
    if plan.init is not None and not resuming:
        return load_init(plan.init)
    torch.manual_seed(plan.seed)
    restorer = Restorer(plan.config)
    if not resuming:
        recipe = plan.recipe
        sampler = ClipSampler(plan.shards, recipe.batch, recipe.frames, recipe.patch, plan.seed)
        fit_code(restorer, sampler, CODE_PATCHES)
    return restorer


def _held_out(plan: RunPlan, trained: ClipSampler, notice: Callable[[str], None]) -> list[Batch]:
    """Batches of the shards that are held out, always the same. InputError when training shards are among them.

    Sources of the same name are noticed only: two cameras may both have made an IMG_0001.
    """
    if plan.held_out is None:
        return []
    recipe = plan.recipe
    sampler = ClipSampler(plan.held_out, recipe.batch, recipe.frames, recipe.patch, plan.seed, taught=plan.taught)
    if shared := _names(sampler) & _names(trained):
        raise InputError(f"{plan.held_out} is to be held out, but {min(shared)} is in {plan.shards} as well")
    if alike := {shard.source for shard in sampler.shards} & {shard.source for shard in trained.shards}:
        notice(
            f"{len(alike)} of the held-out sources are called like training sources ({min(alike)}); where they are "
            "the same, the loss on them does not tell what is learnt by heart"
        )
    return [sampler.load(number) for number in range(HELD_OUT_BATCHES)]


def _names(sampler: ClipSampler) -> set[str]:
    return {shard.path.name for shard in sampler.shards}


def train_stage(plan: RunPlan, progress: Callable[[Progress], None], notice: Callable[[str], None]) -> Trainer:
    """Train, or go on training where the run folder holds a checkpoint. The trainer is returned at its last step.

    InputError for unusable shards, ModelError for unusable weights or a NaN loss, OutputError for the folder.
    """
    rank, recipe = PartialState(cpu=on_cpu()).process_index, plan.recipe
    sampler = ClipSampler(plan.shards, recipe.batch, recipe.frames, recipe.patch, plan.seed, rank, plan.taught)
    held_out = _held_out(plan, sampler, notice if rank == 0 else lambda line: None)
    resuming = (plan.run / CHECKPOINT).exists()
    restorer = _model(plan, resuming)
    try:
        plan.run.mkdir(parents=True, exist_ok=True)
        if rank == 0 and not resuming:
            _write_run(plan)
    except OSError as error:
        raise OutputError(f"cannot write to {plan.run}: {error.strerror}") from error
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(plan.precision)
    perceptual = PerceptualLoss(dtype) if recipe.weights.lpips or recipe.weights.dists else None
    image_loss = ImageLoss(perceptual)
    stage = Stage(NETS[plan.stage](restorer), recipe, image_loss)
    trainer = Trainer(stage, recipe, plan.limits, plan.run, plan.seed, plan.precision, plan.tag)
    image_loss.to(trainer.accelerator.device)
    if trainer.resume() and rank == 0:
        notice(f"going on from step {trainer.step}, {CHECKPOINT} of {plan.run}")
    sheet = SampleSheet(plan.run / "samples", plan.stage, sampler.load(2**31), plan.sample_minutes, notice)

    averaged = cast(StageNet, trainer.ema.module).restorer

    def report(now: Progress) -> None:
        progress(now)
        sheet.update(averaged, now.step)

    with _stop_on_signal(trainer), closing(sampler.iterate(trainer.step)) as batches:
        trainer.train(batches, report, held_out, notice)
    if rank == 0:
        sheet.update(averaged, trainer.step, last=True)
    return trainer


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run after its step, with a checkpoint; the second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        restore()
        trainer.stop()

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
