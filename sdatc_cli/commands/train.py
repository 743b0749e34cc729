"""`sdatc train`: makes shards, trains a stage, exports the weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sdatc_cli import output, settings
from sdatc_cli.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from sdatc_cli.train.loop import Progress, Trainer
    from sdatc_cli.train.run import RunPlan

train = typer.Typer(
    name="train",
    help="Trains the networks on your own photos and videos.",
    epilog="Order: prepare, teach and run --stage dcm --taught (if you like), then run --stage dcm, diffusion and "
    "decoder, each from the model exported before it (or from what merge or widen makes of it). "
    "Several GPUs or machines: accelerate launch -m sdatc_cli train run ... (on CPUs: torchrun -m sdatc_cli ...).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MOST_BATCH = 4096  # clips, many times what any device holds

Photos = Annotated[Path | None, typer.Option(help="A folder of photos, at least 512 pixels each way.")]
Videos = Annotated[Path | None, typer.Option(help="A folder of videos.")]
ShardsOut = Annotated[Path, typer.Option("-o", "--output", metavar="SHARDS", help="The folder for the shards.")]
PerPhoto = Annotated[int, typer.Option(help="Moving windows made of each photo.")]
Workers = Annotated[int | None, typer.Option(help="Processes that make shards. [default: one a core]")]
Patch = Annotated[
    int,
    typer.Option(help="Edge of a clip in pixels: 512 for base, 256 for lite, whose dcm stage asks for 192 at least."),
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
StageOption = Annotated[Literal["vae", "dcm", "diffusion", "decoder"], typer.Option(help="What to train.")]
Config = Annotated[
    Literal["lite", "base"] | None, typer.Option(help="The size of the networks. [default: that of --init, else lite]")
]
ShardsIn = Annotated[Path, typer.Option("-i", "--input", metavar="SHARDS", help="The folder of shards.")]
RunOut = Annotated[
    Path, typer.Option("-o", "--output", metavar="RUN", help="The run's folder; a run in it is continued.")
]
Init = Annotated[Path | None, typer.Option(metavar="MODEL_DIR", help="Start from this model.")]
Taught = Annotated[
    bool, typer.Option("--taught", help="Learn the teacher's pictures (from train teach), not the true ones; for dcm.")
]
HeldOut = Annotated[
    Path | None,
    typer.Option(metavar="SHARDS", help="Shards of other photos or videos: the log tells the loss on them."),
]
Steps = Annotated[int | None, typer.Option(help="End after this many steps.")]
Minutes = Annotated[float | None, typer.Option(help="End after this many minutes of training.")]
Precision = Annotated[Literal["auto", "no", "bf16", "fp16"], typer.Option(help="Mixed precision.")]
BatchSize = Annotated[int | None, typer.Option("--batch", help="Clips a step and process. [default: the recipe's]")]
Share = Annotated[float, typer.Option(help="The part of the clips to do, above 0 and up to 1.")]
ShardsAt = Annotated[Path, typer.Argument(metavar="SHARDS", help="The folder of shards.")]
RunIn = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training run.")]
ModelOut = Annotated[Path, typer.Option("-o", "--output", metavar="MODEL_DIR", help="The folder for the model.")]
Table = Annotated[Path | None, typer.Option(help="A Markdown table of measurements for the model card.")]
First = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A model; what is not weights stays as in it.")]
Second = Annotated[Path, typer.Argument(metavar="OTHER", help="A model of the same networks.")]
SecondShare = Annotated[float, typer.Option("--share", help="The weight of OTHER in the mean, between 0 and 1.")]
Times = Annotated[
    int | None,
    typer.Option(
        "--times", help="How many times as wide as the features the pairs are to be. [default: one more than they are]"
    ),
]
WIDEST = 64  # times: beyond that the networks outgrow a machine's memory
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace a model in MODEL_DIR.")]


@train.command()
def prepare(
    out: ShardsOut,
    photos: Photos = None,
    videos: Videos = None,
    per_photo: PerPhoto = 6,
    patch: Patch = 256,
    seed: Seed = 0,
    workers: Workers = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Cuts clips from photos and videos, compresses them with real codecs, and writes both as shards. Resumable."""
    settings.between("--per-photo", per_photo, 1)
    settings.one_of("--patch", patch, (128, 256, 512))
    settings.between("--seed", seed, 0, settings.MOST_SEED)
    settings.between("--workers", workers, 1)
    if photos is None and videos is None:
        raise UsageError("give --photos, --videos, or both")
    from sdatc_cli.engine.cores import cores
    from sdatc_cli.train.prepare import PreparePlan
    from sdatc_cli.train.prepare import prepare as make

    terminal = output.Terminal(quiet)
    plan = PreparePlan(per_photo=per_photo, patch=patch, seed=seed)
    with terminal.showing("preparing", "shards"):
        made, skipped = make(photos, videos, out, plan, terminal.progress, workers or cores())
    for line in skipped:
        terminal.notice(f"left out: {line}")
    terminal.say(f"{out}: {made} shards, {len(skipped)} sources left out")


@train.command()
def teach(shards: ShardsAt, share: Share = 1.0, seed: Seed = 0, quiet: Quiet = False, debug: Debug = False) -> None:
    """Adds to the shards what Real-ESRGAN makes of the damaged frames, for run --taught to learn. Resumable.

    Needs the extra "peers".
    """
    settings.between("--seed", seed, 0, settings.MOST_SEED)
    if not 0 < share <= 1:
        raise UsageError(f"--share {share}: choose a number above 0 and up to 1")
    from sdatc_cli.train.taught import teach as make

    terminal = output.Terminal(quiet)
    with terminal.showing("teaching", "pictures"):
        made, wanted = make(shards, share, seed, terminal.progress)
    terminal.say(f"{shards}: {wanted} of its clips have a teacher's picture, {made} of them made now")


@train.command()
def run(
    stage: StageOption,
    shards: ShardsIn,
    out: RunOut,
    config: Config = None,
    init: Init = None,
    taught: Taught = False,
    held_out: HeldOut = None,
    steps: Steps = None,
    minutes: Minutes = None,
    seed: Seed = 0,
    precision: Precision = "auto",
    batch: BatchSize = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Trains one stage. The same command again goes on where an interrupted run stopped."""
    settings.between("--steps", steps, 1)
    settings.positive("--minutes", minutes)
    settings.between("--seed", seed, 0, settings.MOST_SEED)
    settings.between("--batch", batch, 1, MOST_BATCH)
    if steps is None and minutes is None:
        raise UsageError("give --steps, --minutes, or both")
    from accelerate import PartialState

    from sdatc_cli.engine.cores import confine_torch
    from sdatc_cli.train.loop import Limits, on_cpu
    from sdatc_cli.train.run import plan_run, train_stage

    confine_torch()
    limits = Limits(steps, minutes, log_every=min(20, steps or 20))
    plan = plan_run(
        stage,
        shards,
        out,
        limits,
        size=config,
        init=init,
        taught=taught,
        held_out=held_out,
        seed=seed,
        precision=precision,
        batch=batch,
    )
    terminal = output.Terminal(quiet or PartialState(cpu=on_cpu()).process_index > 0)
    with terminal.showing(f"training {stage}", "steps"):
        trainer = train_stage(plan, lambda now: show(terminal, plan, now), terminal.notice)
    finish(terminal, trainer)


def show(terminal: output.Terminal, plan: "RunPlan", now: "Progress") -> None:
    """Progress in steps; how many there will be is a guess where minutes decide."""
    terminal.progress(now.step, max(now.step, round(now.step / now.fraction)) if now.fraction else plan.limits.steps)


def finish(terminal: output.Terminal, trainer: "Trainer") -> None:
    """The closing line, or Interrupted."""
    if trainer.stopped:
        raise Interrupted(f"interrupted at step {trainer.step}; the same command goes on from there")
    terminal.say(
        f"{trainer.run}: {trainer.step} steps in {output.clock(trainer.seconds)}; "
        f"next: sdatc train export {trainer.run} -o MODEL_DIR"
    )


@train.command()
def export(
    run_folder: RunIn,
    out: ModelOut,
    table: Table = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Writes a run's averaged weights as a model folder for `sdatc upscale --model`."""
    from sdatc_cli.train.export import export as write

    write(run_folder, out, table, overwrite)
    output.Terminal(quiet).say(f"{out}: use it with sdatc upscale --model {out}")


@train.command()
def merge(
    first: First,
    second: Second,
    out: ModelOut,
    share: SecondShare = 0.5,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Writes the mean of two models, weight by weight.

    Worth a try where one was trained on from the other: it keeps a part of what each of them can do.
    """
    if not 0 < share < 1:
        raise UsageError(f"--share {share}: choose a number between 0 and 1")
    from sdatc_cli.train.merge import merge as write

    write(first, second, share, out, overwrite)
    output.Terminal(quiet).say(f"{out}: use it with sdatc upscale --model {out}")


@train.command()
def widen(
    model: First,
    out: ModelOut,
    times: Times = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Writes a model with wider convolutions in its DCM, which gives the same pictures and can learn more."""
    settings.between("--times", times, 2, WIDEST)
    from sdatc_cli.train.widen import widen as write

    write(model, times, out, overwrite)
    output.Terminal(quiet).say(f"{out}: train it with sdatc train run --stage dcm --init {out}")
