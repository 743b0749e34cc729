"""Puts a model folder together from checkpoints: `pull` with the manifest's, `convert` with a person's own."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdatc_cli.errors import ModelError, OutputError

from . import installed, sources
from .card import card
from .hub import Found, forget
from .manifest import MODELS, Entry

if TYPE_CHECKING:
    from sdatc_models.config import ModelConfig
    from sdatc_models.convert import Conversion
    from sdatc_models.restorer import Restorer


@dataclass
class Report:
    """What became of every tensor: of each checkpoint, which parts were read and which names were not; and of the
    model, which tensors no checkpoint filled (`kept`: as new, or as in the model that was started from)."""

    files: dict[str, "Conversion"] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    untrained: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: every name in full."""
        files = {name: {"used": item.used, "unused": item.unused} for name, item in self.files.items()}
        return {"files": files, "kept": self.kept, "untrained": self.untrained}

    def lines(self) -> list[str]:
        """For a person: counts, grouped by the beginnings of names."""
        out = []
        for name, item in self.files.items():
            used = ", ".join(f"{part} ({len(names)} tensors)" for part, names in item.used.items())
            out.append(f"{name}: {used}")
            if item.unused:
                out.append(f"  not used: {grouped(item.unused, 1)}")
        out.append(f"not in the checkpoints, kept as they were: {grouped(self.kept, 2) or 'nothing'}")
        out.append(f"untrained: {', '.join(self.untrained) or 'nothing'}")
        return out


def grouped(names: Sequence[str], depth: int) -> str:
    """ "unet.pcam.* (84), vae.cfw.* (12)"."""
    counts: dict[str, int] = {}
    for name in names:
        words = name.split(".")
        group = ".".join(words[:depth]) + (".*" if len(words) > depth else "")
        counts[group] = counts.get(group, 0) + 1
    return ", ".join(f"{group} ({count})" for group, count in counts.items())


def new_model(config: "ModelConfig") -> "Restorer":
    """Fresh networks, the same every time, with the embedded DCM in front where the config has its size."""
    import torch

    from sdatc_models import weights
    from sdatc_models.restorer import Restorer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        restorer = Restorer(config)
    lite = weights.load("lite")
    if config.dcm == lite.config.dcm:
        restorer.dcm.load_state_dict(lite.dcm.state_dict())
    return restorer


def fill_from(restorer: "Restorer", paths: Sequence[Path]) -> Report:
    """Fill a model from checkpoint files, one after the other. ModelError names the file and what is wrong with it."""
    from sdatc_models.checkpoints import read
    from sdatc_models.convert import fill
    from sdatc_models.untrained import untrained
    from sdatc_models.weights import WeightsError

    report, filled = Report(), set[str]()
    for path in paths:
        try:
            state = read(path)
        except WeightsError as error:
            raise ModelError(str(error)) from error
        try:
            conversion = fill(restorer, state)
        except WeightsError as error:
            raise ModelError(f"{path}: {error}") from error
        filled |= conversion.tensors.keys()
        conversion.tensors.clear()  # they are in the model now, and large
        report.files[str(path)] = conversion
    report.kept = [name for name in restorer.state_dict() if name not in filled]
    report.untrained = untrained(restorer)
    return report


def check_scheduler(found: Found | None, model: str, config: "ModelConfig") -> None:
    """ModelError when a diffusers folder's scheduler says that its UNet predicts something else than `model` does."""
    if found is None:
        return
    path = found.path
    try:
        predicts = json.loads(path.read_text(encoding="utf-8")).get("prediction_type", "epsilon")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    wanted = {"epsilon": "epsilon", "v": "v_prediction"}.get(config.unet.prediction)
    if predicts != wanted:
        raise ModelError(f"{path}: this UNet predicts {predicts!r}, that of {model} {wanted!r}")


def write(restorer: "Restorer", folder: Path, text: str, origin: Sequence[sources.Fetched] = ()) -> None:
    """Save a model with its card; it appears under its name, in place of an earlier one, when it is complete.

    OutputError when it cannot; an earlier model is whole then.
    """
    from safetensors import SafetensorError

    from sdatc_models import weights

    folder = folder.resolve()  # a link goes on leading to the model
    fresh, earlier = (folder.with_name(f".{folder.name}.{what}-{os.getpid()}") for what in ("partial", "removing"))
    try:
        weights.save(restorer, fresh)
        (fresh / "README.md").write_text(text, encoding="utf-8")
        if origin:
            pins = [{"part": f.part, "source": f.source, "file": f.name, "sha256": f.sha256} for f in origin]
            (fresh / installed.SOURCES).write_text(json.dumps(pins, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(earlier)
        fresh.rename(folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the model to {folder}: {error}") from error
    finally:
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
        for leaving in (fresh, earlier):
            shutil.rmtree(leaving, ignore_errors=True)


def pull(entry: Entry, preferred: sources.Source | None, say: Callable[[str], None]) -> Report | None:
    """Fetch a model's parts and put them together in the cache; None when it is there already, and whole.

    A damaged one is made anew, of the same files as before: ModelError when a source has changed since.
    """
    folder = installed.pulled_folder(entry.name)
    if (folder / "config.json").is_file():
        try:
            installed.verify(entry.name)
            return None
        except ModelError:
            pass  # made anew below
    say(f"fetching {entry.name}: about {entry.download / 1e9:.1f} GB where nothing is here yet")
    fetched = [sources.fetch(part, preferred) for part in entry.parts]
    for pin in installed.pinned(folder):
        for item in fetched:
            if (item.source, item.name) == (pin["source"], pin["file"]):
                sources.check(item, pin["sha256"], "first pulled")
    origin = next(item.source for item in fetched if item.part == "unet")
    source = preferred if preferred and str(preferred) == origin else sources.hub(origin)
    scheduler, config = source.get(entry.scheduler), entry.config()
    check_scheduler(scheduler, entry.name, config)
    say("putting the model together, which takes a minute or more")
    restorer = new_model(config)
    paths = list(dict.fromkeys(item.path for item in fetched))
    report = fill_from(restorer, paths)
    write(restorer, folder, card(entry.name, entry.licence, fetched, report.lines(), report.untrained), fetched)
    forget([*paths, scheduler.path] if scheduler else paths)
    return report


def convert(given: Sequence[Path], out: Path, kind: str, start: str | None) -> Report:
    """A model folder `out` from checkpoint files and diffusers folders, on top of the model `start`, else of a new one
    of `kind` (in MODELS).

    ModelError for what cannot be converted, OutputError for the folder.
    """
    from sdatc_models import weights
    from sdatc_models.checkpoints import look

    try:
        if out.exists():
            raise OutputError(f"{out} already exists; choose a new folder")
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror})") from error
    entry, paths = MODELS[kind], []
    try:
        config = weights.read_config(installed.find(start))[0] if start else entry.config()
    except weights.WeightsError as error:
        raise ModelError(str(error)) from error
    for path in given:
        if path.is_dir():
            source = sources.Folder(path)
            check_scheduler(source.get(entry.scheduler), start or kind, config)
            found = sources.files(entry.parts, source)
            if not found:
                raise ModelError(f"{path} holds no file under the names of a diffusers folder")
            paths += found
        elif path.is_file():
            paths.append(path)
        else:
            raise ModelError(f"{path}: no such file or folder")
    try:
        for path in paths:
            look(path)  # before the networks are made, which takes long and much memory
        restorer = weights.load(installed.find(start)) if start else new_model(config)
    except weights.WeightsError as error:
        raise ModelError(str(error)) from error
    report = fill_from(restorer, list(dict.fromkeys(paths)))
    write(
        restorer, out, card(out.name, "that of the checkpoints it was made from", (), report.lines(), report.untrained)
    )
    return report
