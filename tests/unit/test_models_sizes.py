"""`base` at its true size, on the meta device; gradients reach every parameter of every network."""

import pytest
import torch
from torch import nn

from sdatc_models.config import ModelConfig, UNetConfig, VAEConfig, base, lite, tiny
from sdatc_models.restorer import Restorer


def millions(*modules: nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


@pytest.fixture(scope="module")
def large() -> Restorer:
    with torch.device("meta"):
        return Restorer(base())


def test_base_has_the_parameters_of_stable_diffusion(large: Restorer) -> None:
    vae = large.vae
    assert millions(large.unet.backbone) == pytest.approx(865.9, abs=0.05)
    assert millions(vae.encoder, vae.decoder, vae.quant_conv, vae.post_quant_conv) == pytest.approx(83.7, abs=0.05)
    # SwinIR's 11.9 M, the wider upsampling, and one more convolution a block.
    assert millions(large.dcm) == pytest.approx(14.9, abs=0.1)


def test_base_condition_encoder_is_the_backbones_encoder_with_more_inputs(large: Restorer) -> None:
    backbone = large.unet.backbone
    copied = [m for m in (backbone.conv_in, backbone.time_embedding, backbone.down_blocks, backbone.mid_block) if m]
    assert millions(large.unet.control.encoder) == pytest.approx(millions(*copied) + 320 * 4 * 9 / 1e6)
    assert large.unet.context is not None and large.unet.context.shape == (1, 77, 1024)


def test_base_runs_through_its_shapes_without_memory(large: Restorer) -> None:
    with torch.device("meta"):
        x_hr = torch.empty(1, 3, 128, 192)
        z, f_e = large.vae.encode(x_hr), large.vae.features(x_hr)
        assert z.shape == (1, 4, 16, 24)
        assert large.unet(z, z, torch.zeros(1, dtype=torch.long)).shape == z.shape
        assert large.vae.decode(z, 1, f_e, 0.75).shape == x_hr.shape
        assert large.dcm(torch.empty(1, 3, 16, 24)).shape == (1, 3, 64, 96)


def test_lite_fits_its_budget() -> None:
    """60 MB of fp16 at most."""
    assert millions(Restorer(lite())) * 2 < 60


def loss_of_everything(restorer: Restorer) -> torch.Tensor:
    """A scalar that every network takes part in, over a clip of two frames."""
    torch.manual_seed(1)
    x_hr = restorer.dcm(torch.rand(2, 3, 16, 16), torch.tensor([20.0, torch.nan]))
    z, log_variance = restorer.vae.encode_moments(x_hr)
    x_0 = restorer.unet.predict_x_0(z + torch.randn_like(z), z, torch.tensor([3, 150]), restorer.schedule)
    image = restorer.vae.decode(x_0, 2, restorer.vae.features(x_hr), 0.75)
    return (image * torch.randn_like(image)).sum() + (log_variance * torch.randn_like(log_variance)).sum()


def small_base() -> ModelConfig:
    """base's layout (epsilon, attention, no linear code) at a tiny size."""
    config = tiny()
    vae = VAEConfig(latent=4, channels=(8, 8, 16, 16), layers=1, groups=4, stam_heads=2)
    unet = UNetConfig(channels=(8, 16), layers=1, groups=4, context=6, heads=(2, 4))
    return ModelConfig("small-base", config.dcm, vae, unet, config.pcam)


@pytest.mark.parametrize("config", [tiny(), small_base()], ids=["lite-like", "base-like"])
def test_gradients_reach_every_parameter(config: ModelConfig) -> None:
    """Once nothing sits behind a zero any more."""
    torch.manual_seed(0)
    restorer = Restorer(config)
    with torch.no_grad():
        for parameter in restorer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    if restorer.unet.context is not None:
        torch.nn.init.normal_(restorer.unet.context)
    loss_of_everything(restorer).backward()
    without = [name for name, p in restorer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_the_first_step_already_moves_what_sits_on_a_zero() -> None:
    """A zero layer blocks the gradients behind it, but gets one itself, so training starts."""
    torch.manual_seed(0)
    restorer = Restorer(tiny())
    loss_of_everything(restorer).backward()
    for name, parameter in restorer.named_parameters():
        if name.startswith(("dcm.conv_last", "unet.backbone.conv_out", "vae.decoder.conv_out")):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
