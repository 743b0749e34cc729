"""Models by name: embedded ones, pulled ones in the cache, and any model folder."""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sdatc_cli.cache import cache_folder
from sdatc_cli.errors import ModelError, OutputError, UsageError

from .manifest import MODELS

SOURCES = "sources.json"  # in a pulled model's folder: where its parts came from, with their checksums
State = Literal["embedded", "pulled", "not pulled"]


@dataclass(frozen=True)
class Listed:
    """A line of `sdatc models list`. `size` and `download` in bytes: about what it will be, while it is not pulled."""

    name: str
    state: State
    size: int
    download: int
    licence: str
    about: str
    folder: Path | None
    sources: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder) if self.folder else None}


def pulled_folder(name: str) -> Path:
    """Where the pulled model of that name lies, or would."""
    return cache_folder("models") / name


def embedded() -> dict[str, Path]:
    """The models inside the package, by name."""
    from sdatc_models.weights import ZOO

    return {path.parent.name: path.parent for path in sorted(ZOO.glob("*/config.json"))}


def find(model: str) -> Path:
    """The folder of an embedded model, a pulled one, or the path itself. ModelError says how to get one that is not."""
    from sdatc_models import weights

    if model not in embedded() and model in MODELS and (pulled_folder(model) / "config.json").is_file():
        return pulled_folder(model)
    try:
        return weights.folder_of(model)
    except weights.WeightsError as error:
        if model in MODELS:
            raise ModelError(f"{model} is not on this machine yet; run: sdatc models pull {model}") from error
        raise ModelError(str(error)) from error


def verify(model: str) -> dict[str, str]:
    """{weight file: SHA-256} after hashing every file again. ModelError names one that is damaged."""
    from sdatc_models import weights

    folder = find(model)
    try:
        return weights.verify(folder)
    except weights.WeightsError as error:
        again = f"; run: sdatc models pull {model}" if model in MODELS and folder == pulled_folder(model) else ""
        raise ModelError(f"{error}{again}") from error


def listed() -> list[Listed]:
    """Every embedded model and every one that can be pulled."""
    own = [
        Listed(name, "embedded", size_of(folder), 0, "Apache-2.0", "comes with sdatc", folder, ())
        for name, folder in embedded().items()
    ]
    others = []
    for entry in MODELS.values():
        folder = pulled_folder(entry.name)
        there = (folder / "config.json").is_file()
        sources = tuple(dict.fromkeys(repo for part in entry.parts for repo in part.repos))
        size, download = (size_of(folder), 0) if there else (int(entry.size), int(entry.download))
        state: State = "pulled" if there else "not pulled"
        where = folder if there else None
        others.append(Listed(entry.name, state, size, download, entry.licence, entry.about, where, sources))
    return own + others


def size_of(folder: Path) -> int:
    """Bytes of the files in a model folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def remove(name: str) -> int:
    """Delete a pulled model; returns the bytes freed. UsageError for an embedded one, ModelError for none at all."""
    if name in embedded():
        raise UsageError(f"{name} is part of sdatc and cannot be removed")
    folder = pulled_folder(name)
    if name not in MODELS or not folder.is_dir():
        raise ModelError(f"there is no pulled model {name!r}; sdatc models list shows what there is")
    size = size_of(folder)
    discard(folder)
    return size


def discard(folder: Path) -> None:
    """Delete a model folder; under its name it is there whole or not at all. OutputError when it cannot be."""
    leaving = folder.with_name(f".{folder.name}.removing-{os.getpid()}")
    try:
        folder.rename(leaving)
        shutil.rmtree(leaving)
    except OSError as error:
        raise OutputError(f"cannot delete {folder}: {error.strerror}") from error


def pinned(folder: Path) -> list[dict[str, str]]:
    """What a model folder's parts were made from; empty where nothing (readable) says so."""
    try:
        content = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
        return [{key: str(item[key]) for key in ("part", "source", "file", "sha256")} for item in content]
    except (OSError, ValueError, KeyError, TypeError):
        return []
