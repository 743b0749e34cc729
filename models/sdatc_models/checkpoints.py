"""Reads the tensors of foreign checkpoint files. Nothing in them is executed."""

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from .weights import WeightsError

State = dict[str, Tensor]  # tensors by their names in a checkpoint

PICKLES = (".pt", ".pth", ".ckpt", ".bin")


def look(path: Path) -> None:
    """Whether a file's name is that of a checkpoint, and its beginning, where that says what follows; reads no tensors.
    WeightsError names the file."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} cannot be read: {error}") from error
    if path.suffix not in PICKLES:
        raise WeightsError(f"{path} is no checkpoint: give a file that ends in .safetensors or {', '.join(PICKLES)}")


def read(path: Path) -> State:
    """The tensors of a safetensors file, or of a pickle that holds nothing else. WeightsError names the file."""
    look(path)
    if path.suffix != ".safetensors":
        return _read_pickle(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _read_pickle(path: Path) -> State:
    """Only through torch's unpickler for plain tensors; whatever else a damaged file makes it raise is caught too."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than plain tensors, perhaps code, and was not opened; get it as a safetensors file"
        ) from error
    except Exception as error:
        raise WeightsError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} is not a table of tensors")
    return state
