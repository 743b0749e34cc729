"""`sdatc train export`: a run's averaged weights as a model folder with a card."""

import os
from pathlib import Path
from typing import Any

import torch

from sdatc_cli.errors import InputError, ModelError, OutputError
from sdatc_cli.zoo.assemble import write
from sdatc_cli.zoo.installed import SOURCES
from sdatc_models import weights
from sdatc_models.config import ModelConfig
from sdatc_models.restorer import Restorer

from .loop import CHECKPOINT, read_checkpoint
from .run import read_run

PREFIX = "module.restorer."  # of the averaged model's names in a checkpoint


def averaged(run: Path) -> tuple[Restorer, dict[str, Any], dict[str, Any]]:
    """The model of a run's moving average, its run.json, its checkpoint. ModelError when they do not fit."""
    config, content = read_run(run)
    if not (run / CHECKPOINT).is_file():
        raise ModelError(f"{run} holds no checkpoint yet")
    checkpoint = read_checkpoint(run / CHECKPOINT)
    restorer = Restorer(config)
    try:
        state = {k.removeprefix(PREFIX): v for k, v in checkpoint["ema"].items() if k.startswith(PREFIX)}
        restorer.load_state_dict(state)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise ModelError(f"{run / CHECKPOINT} does not fit {run}'s configuration") from error
    for name, value in restorer.state_dict().items():
        if not torch.isfinite(value.half()).all():
            raise ModelError(f"{run / CHECKPOINT}: {name} holds values that half precision cannot")
    return restorer, content, checkpoint


def card(config: ModelConfig, run: dict[str, Any], checkpoint: dict[str, Any], table: str | None) -> str:
    """The model card, Markdown."""
    recipe = "\n".join(f"- {name}: {value}" for name, value in run["recipe"].items())
    start = f"the model `{run['init']}`" if run["init"] else "new weights"
    minutes = checkpoint["seconds"] / 60
    measured = table.strip() if table else "Not measured yet: `sdatc bench --model` this folder."
    return f"""# {config.name}

Weights of SDATC for `sdatc upscale --model`, the moving average of a training run, in half precision.

## Training

The last stage was `{run["stage"]}`, from {start}: {checkpoint["step"]} steps in {minutes:.0f} minutes on
the shards `{run["shards"]}`, seed {run["seed"]}, precision {run["precision"]}, with these settings:

{recipe}

## Measured

{measured}
"""


def write_model(restorer: Restorer, card: str, out: Path, overwrite: bool) -> None:
    """A model folder with its card. OutputError when it cannot be written, holds a model that is to stay, or holds
    anything else."""
    try:
        names = {path.name for path in out.iterdir()} if os.path.lexists(out) else set[str]()
    except OSError as error:
        raise OutputError(f"cannot write the model to {out}: {error.strerror}") from error
    if "config.json" in names and not overwrite:
        raise OutputError(f"{out} already holds a model; use -y to replace it")
    if alien := names - {"config.json", "README.md", SOURCES, *(f"{part}.safetensors" for part in weights.PARTS)}:
        raise OutputError(f"{out} holds {min(alien)}, which is no part of a model; choose another folder")
    write(restorer, out, card)


def export(run: Path, out: Path, table: Path | None, overwrite: bool) -> Path:
    """Write `out`: config.json, safetensors files and README.md (with `table`, a Markdown file, in it).

    ModelError for an unusable run, InputError for the table, OutputError for the folder.
    """
    try:
        measured = table.read_text(encoding="utf-8") if table else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the table {table}: {error}") from error
    restorer, content, checkpoint = averaged(run)
    write_model(restorer, card(restorer.config, content, checkpoint, measured), out, overwrite)
    return out
