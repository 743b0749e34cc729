"""What CUDA graphs ask of the networks, seen without a card: meta tensors have no values that Python could wait for."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sdatc_models.config import base, lite, tiny
from sdatc_models.restorer import RestoreOptions, Restorer
from sdatc_models.schedule import Schedule
from sdatc_models.unet import UNet
from sdatc_models.untrained import pass_over_identities


class Crossings(TorchDispatchMode):
    """Gathers the operations that take more than a number from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor) and x.ndim]
        if len({x.device for x in tensors}) > 1:
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("size", [tiny, lite, base])
def test_a_pass_of_the_unet_stays_on_its_device(size) -> None:
    config = size()
    with torch.device("meta"):
        unet = UNet(config.unet, config.pcam, config.vae.latent)
        z, c_hr = torch.empty(2, 5, config.vae.latent, 16, 24)
        t = torch.full((5,), 7)
    with torch.inference_mode(), Crossings() as crossings:
        assert unet(z, c_hr, t).shape == z.shape
    assert crossings.found == []


@pytest.mark.parametrize(("solver", "draws"), [("ddpm", 6), ("dpmpp", 1)])
def test_sampling_brings_only_noise_to_the_device(solver, draws) -> None:
    """And the two tables of the schedule, once. An `.item()` would raise."""
    config = base()
    with torch.device("meta"):
        restorer = Restorer(config)
        c_hr, x_hr = torch.empty(5, config.vae.latent, 8, 8), torch.empty(5, 3, 64, 64)
    restorer.schedule = Schedule(config.schedule)
    counts = []
    for _ in range(2):
        with torch.inference_mode(), Crossings() as crossings:
            restorer.sample(c_hr, x_hr, range(5), RestoreOptions(steps=6, solver=solver, flow="none"))
        counts.append(len(crossings.found))
    assert counts == [draws + 2, draws]


@pytest.mark.parametrize("trained", [False, True])
def test_decoding_does_not_wait_for_a_look_at_the_weights(trained: bool) -> None:
    """As a model is loaded to restore with; a look at values would raise."""
    restorer = Restorer(tiny())
    if trained:
        torch.nn.init.ones_(restorer.vae.decoder.conv_out.weight)
    pass_over_identities(restorer)
    restorer.to("meta")
    z, x_hr = torch.empty(2, tiny().vae.latent, 8, 8, device="meta"), torch.empty(2, 3, 64, 64, device="meta")
    with torch.inference_mode():
        assert restorer.decode(z, x_hr, RestoreOptions()).shape == x_hr.shape
