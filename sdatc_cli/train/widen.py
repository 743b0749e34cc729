"""`sdatc train widen`: the same picture from a network with room to learn more (after Chen et al., 2016, "Net2Net")."""

from dataclasses import replace
from pathlib import Path

import torch

from sdatc_cli.errors import UsageError
from sdatc_models.dcm import ConvPair
from sdatc_models.restorer import Restorer

from .export import write_model
from .run import load_init


def widened(restorer: Restorer, expansion: int) -> Restorer:
    """A copy whose DCM has pairs `expansion` times as wide as its features, and gives the same pictures.

    The new channels of a pair start with random weights, and nothing is made of them yet. UsageError when they are that
    wide already.
    """
    config = restorer.config
    if expansion <= config.dcm.expansion:
        raise UsageError(f"the pairs are {config.dcm.expansion} times as wide already; choose more")
    torch.manual_seed(0)  # the same model each time
    wide = Restorer(replace(config, dcm=replace(config.dcm, expansion=expansion)))
    state = wide.state_dict()
    state |= {name: value for name, value in restorer.state_dict().items() if value.shape == state[name].shape}
    wide.load_state_dict(state)
    pairs = [[m for m in model.dcm.modules() if isinstance(m, ConvPair)] for model in (restorer, wide)]
    with torch.no_grad():
        for old, new in zip(*pairs, strict=True):
            _widen(old, new)
    return wide


def _widen(old: ConvPair, new: ConvPair) -> None:
    """Bring the weights of a pair into a wider one."""
    inside = old.conv1.out_channels
    for name in ("weight", "bias"):
        new.conv1.get_parameter(name)[:inside] = old.conv1.get_parameter(name)
    new.conv2.weight.zero_()
    new.conv2.weight[:, :inside] = old.conv2.weight
    if old.modulation is not None and new.modulation is not None:
        terms, wide = (pair.terms.weight.unflatten(0, (2, -1)) for pair in (old.modulation, new.modulation))
        wide[:, :inside] = terms  # scales and shifts


def widen(model: Path, expansion: int | None, out: Path, overwrite: bool) -> None:
    """Write the model with wider pairs, by one where `expansion` is None, and a card.

    ModelError, UsageError; OutputError for the folder.
    """
    narrow = load_init(model)
    expansion = narrow.config.dcm.expansion + 1 if expansion is None else expansion
    restorer = widened(narrow, expansion)
    write_model(restorer, card(restorer.config.name, model, expansion), out, overwrite)


def card(name: str, model: Path, expansion: int) -> str:
    """The model card, Markdown."""
    return f"""# {name}

Weights of SDATC for `sdatc train run --init`, in half precision: those of the model `{model.name}`, with convolution
pairs {expansion} times as wide as the features. It gives the same pictures, more slowly, until it is trained on.
"""
