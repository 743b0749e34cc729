"""Small helpers on layers that several networks share."""

from torch import nn


def zero_init(*layers: nn.Module) -> None:
    """Set every parameter of `layers` to zero, so that what they add is nothing at first."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def sublayers(block: nn.Module, name: str) -> list[nn.Module]:
    """The modules in the list `name` of a diffusers block ("resnets", "upsamplers", ...), none where it has no list."""
    return list(getattr(block, name) or ())
