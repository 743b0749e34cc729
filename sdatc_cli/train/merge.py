"""`sdatc train merge`: the mean of two models, weight by weight (Wortsman et al., 2022, "Model soups")."""

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from sdatc_cli.errors import ModelError, OutputError
from sdatc_models import weights
from sdatc_models.config import ModelConfig

from .run import load_init


def _networks(config: ModelConfig) -> ModelConfig:
    """What two models must share: all but the name and how the DCM's result is presented."""
    return replace(config, name="", dcm=replace(config.dcm, mirror=False, gain=(1.0, 1.0)))


def merge(first: Path, second: Path, share: float, out: Path, overwrite: bool) -> None:
    """Write `out` with (1 - share) `first` + share `second`, the configuration of `first`, and a card.

    ModelError when they cannot be read or are different networks, OutputError for the folder.
    """
    restorer, other = load_init(first), load_init(second)
    if _networks(restorer.config) != _networks(other.config):
        raise ModelError(f"{first} and {second} are different networks, so their weights have no mean")
    state, added = restorer.state_dict(), other.state_dict()
    mean = {
        name: value.lerp(added[name], share) if value.is_floating_point() else value for name, value in state.items()
    }
    restorer.load_state_dict(mean)
    if (out / "config.json").exists() and not overwrite:
        raise OutputError(f"{out} already holds a model; use -y to replace it")
    try:
        weights.save(restorer, out)
        (out / "README.md").write_text(card(restorer.config.name, first, second, share), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the model to {out}: {error}") from error


def card(name: str, first: Path, second: Path, share: float) -> str:
    """The model card, Markdown."""
    return f"""# {name}

Weights of SDATC for `sdatc upscale --model`, in half precision: the mean, weight by weight, of
{1 - share:g} of the model `{first.name}` and {share:g} of `{second.name}`.

## Measured

Not measured yet: `sdatc bench --model` this folder.
"""
