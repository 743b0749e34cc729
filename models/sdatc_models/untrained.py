"""Which modules still stand exactly where they start, and so add nothing yet. Read off the weights themselves."""

import torch
from torch import nn

from .cfw import CFW
from .pcam import PCAM
from .restorer import Restorer
from .stam import STAM


def untrained(restorer: Restorer) -> list[str]:
    """The modules at their starting point, in words; empty for a model that is trained throughout."""
    unet, vae = restorer.unet, restorer.vae
    found = {
        "DCM (bicubic)": restorer.config.dcm.enabled and _zero(restorer.dcm.conv_last),
        "UNet": unet.config.prediction == "residual" and _zero(unet.backbone.conv_out),
        "condition encoder": unet.control.closed,
        "embedding of the empty prompt": unet.context is not None and not unet.context.any(),
        "PCAM of the UNet": _identity(unet.pcam),
        "decoder's convolutions": vae.config.linear and _zero(vae.decoder.conv_out),
        "PCAM of the decoder": _identity(vae.pcam),
        "STAM": vae.stam is not None and all(_stands_still(m) for m in vae.stam),
        "CFW": vae.cfw is not None and _zero(*(module.get_submodule("out") for module in vae.cfw.values())),
    }
    return [name for name, standing in found.items() if standing]


def pass_over_identities(restorer: Restorer) -> None:
    """Has a model that is not to be trained go past modules that return what they are given: as good, and sooner."""
    restorer.vae.idle = None
    restorer.vae.idle = restorer.vae.adds_nothing
    for module in restorer.modules():
        if isinstance(module, PCAM) and module.kind != "none":
            module.idle = _is_delta(module)
        elif isinstance(module, STAM):
            module.idle = _stands_still(module)
        elif isinstance(module, CFW):
            module.idle = _zero(module.out)


def _zero(*modules: nn.Module) -> bool:
    return not any(p.any() for module in modules for p in module.parameters())


def _identity(modules: nn.ModuleList) -> bool:
    """Whether there are PCAMs here and all of them return their input."""
    present = [m for m in modules if isinstance(m, PCAM) and m.kind != "none"]
    return bool(present) and all(_is_delta(m) for m in present)


def _stands_still(module: nn.Module) -> bool:
    return isinstance(module, STAM) and not module.alpha_t.any() and not module.beta_t.any()


def _is_delta(module: PCAM) -> bool:
    weight = module.conv_out.weight
    transformer = module.transformer
    delta = nn.init.dirac_(torch.empty_like(weight))
    bias = module.conv_out.bias
    return (
        torch.equal(weight, delta)
        and (bias is None or not bias.any())
        and _zero(transformer.attention.project, transformer.feed_forward.project)
    )
