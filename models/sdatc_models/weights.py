"""Model folders: config.json with a checksum for each safetensors file. Nothing in them is executed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from .config import ModelConfig, from_json, to_json
from .restorer import Restorer

ZOO = Path(__file__).parent / "zoo"
PARTS = ("dcm", "vae", "unet")


class WeightsError(ValueError):
    """A model folder is missing, damaged, or does not fit its configuration. The text is one line to act on."""


def folder_of(model: str | Path) -> Path:
    """The folder of an embedded model's name or of a path. WeightsError if there is none, or it cannot be read."""
    for folder in (ZOO / str(model), Path(model)):
        try:
            if (folder / "config.json").is_file():
                return folder
        except OSError as error:
            raise WeightsError(f"{model}: {error.strerror}") from error
    embedded = ", ".join(sorted(p.parent.name for p in ZOO.glob("*/config.json"))) or "none"
    raise WeightsError(f"no model {str(model)!r}: give a folder with config.json, or an embedded model ({embedded})")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, str]]:
    """The configuration and the checksums {file name: SHA-256}. WeightsError when malformed."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return from_json(json.dumps(content["model"])), dict(content["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder / 'config.json'} is not a model configuration: {error}") from error


def verify(folder: Path) -> dict[str, str]:
    """Compare every weight file with its checksum; returns them. WeightsError names the file that differs."""
    _, checksums = read_config(folder)
    for name, expected in checksums.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(f"{path} is missing; install the model again")
        if sha256(path) != expected:
            raise WeightsError(f"{path} is damaged (its checksum differs); install the model again")
    return checksums


def save(restorer: Restorer, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write one safetensors file a part, then config.json with their checksums."""
    folder.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for part in PARTS:
        state = {k: v.to(dtype).contiguous().cpu() for k, v in getattr(restorer, part).state_dict().items()}
        path = folder / f"{part}.safetensors"
        save_file(state, path)
        checksums[path.name] = sha256(path)
    content = {"model": json.loads(to_json(restorer.config)), "sha256": checksums}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _build(config: ModelConfig, folder: Path) -> Restorer:
    """The network of a config; sizes that do not fit each other fail in many ways inside, all a WeightsError here."""
    try:
        return Restorer(config)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{folder / 'config.json'} describes no network that can be built: {reason}") from error


def settle_convolutions() -> None:
    """Has cards, in this process, no longer round convolutions in float32 to TF32, whose ten bits are too few for a
    picture, and take none whose bits differ from one run to the next."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


def load(
    model: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **switches: Any
) -> Restorer:
    """An embedded model ("lite") or a folder, verified. `switches` replace fields of the config (ablations); the
    weights of parts that are thereby switched off are left out. Raises WeightsError.

    On a card, `settle_convolutions` as well.
    """
    folder = folder_of(model)
    config, _ = read_config(folder)
    checksums = verify(folder)
    restorer = _build(replace(config, **switches), folder)
    for part in PARTS:
        name = f"{part}.safetensors"
        if name not in checksums:
            raise WeightsError(f"{folder} has no {name}")
        try:
            state = load_file(folder / name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{folder / name} cannot be read: {error}") from error
        module = getattr(restorer, part)
        try:
            result = module.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise WeightsError(
                f"{folder / name} does not fit its config: {str(error).splitlines()[-1].strip()}"
            ) from error
        if result.missing_keys or (result.unexpected_keys and not switches):
            wrong = (result.missing_keys or result.unexpected_keys)[0]
            raise WeightsError(f"{folder / name} does not fit its config: tensor {wrong} is missing or unknown")
    if torch.device(device).type == "cuda":
        settle_convolutions()
    return restorer.to(device=device).in_format(dtype).eval().requires_grad_(False)
