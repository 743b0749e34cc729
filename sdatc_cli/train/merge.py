"""`sdatc train merge`: the mean of two models, weight by weight (Wortsman et al., 2022, "Model soups")."""

from dataclasses import replace
from pathlib import Path

from sdatc_cli.errors import ModelError
from sdatc_models.config import DetailConfig, ModelConfig

from .export import write_model
from .run import load_init


def _networks(config: ModelConfig) -> ModelConfig:
    """What two models must share: all but the name and how the networks' result is presented."""
    return replace(config, name="", dcm=replace(config.dcm, mirror=False), detail=DetailConfig())


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
    write_model(restorer, card(restorer.config.name, first, second, share), out, overwrite)


def card(name: str, first: Path, second: Path, share: float) -> str:
    """The model card, Markdown."""
    return f"""# {name}

Weights of SDATC for `sdatc upscale --model`, in half precision: the mean, weight by weight, of
{1 - share:g} of the model `{first.name}` and {share:g} of `{second.name}`.

## Measured

Not measured yet: `sdatc bench --model` this folder.
"""
