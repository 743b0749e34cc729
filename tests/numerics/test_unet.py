"""The denoiser: diffusers' UNet untouched at first, the condition behind zero convolutions, eq. (6)."""

from dataclasses import replace

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from sdatc_models.config import PCAMConfig, ScheduleConfig, UNetConfig
from sdatc_models.control import zero_conv
from sdatc_models.schedule import Schedule
from sdatc_models.unet import UNet, build_backbone

PLAIN = UNetConfig(channels=(8, 16), layers=1, groups=4)
ATTENDING = UNetConfig(channels=(8, 16), layers=2, groups=4, context=6, heads=(2, 4))
PROMPTS = PCAMConfig(size=4)


def own_forward(backbone: UNet2DConditionModel, unet: UNet, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    context = unet.context.expand(z.shape[0], -1, -1) if unet.context is not None else torch.zeros(z.shape[0], 1, 1)
    return backbone(z, t, encoder_hidden_states=context).sample


@pytest.mark.parametrize("config", [PLAIN, ATTENDING])
def test_untrained_condition_and_prompts_leave_the_backbone_as_it_was(config: UNetConfig) -> None:
    torch.manual_seed(0)
    unet = UNet(config, PROMPTS, latent=4)
    if unet.context is not None:
        torch.nn.init.normal_(unet.context)
    z, c_hr, t = torch.randn(2, 4, 8, 12), torch.randn(2, 4, 8, 12), torch.tensor([3, 700])
    expected = own_forward(unet.backbone, unet, z, t)
    assert torch.equal(unet(z, c_hr, t), expected)


def test_zero_convolutions_are_exactly_zero_for_every_output_of_the_encoder() -> None:
    torch.manual_seed(0)
    unet = UNet(PLAIN, PROMPTS, latent=4)
    z = torch.randn(2, 4, 8, 12)
    skips, middle = unet.control(z, z, torch.tensor([3, 700]), None)
    for residual in (*skips, middle):
        assert torch.equal(residual, torch.zeros_like(residual))
    assert torch.equal(zero_conv(5)(torch.randn(1, 5, 3, 3)), torch.zeros(1, 5, 3, 3))


@pytest.mark.parametrize("config", [PLAIN, ATTENDING])
def test_condition_encoder_copies_the_unets_and_ignores_the_condition_at_first(config: UNetConfig) -> None:
    torch.manual_seed(0)
    unet = UNet(config, PROMPTS, latent=4)
    copy, original = unet.control.encoder.state_dict(), unet.backbone.state_dict()
    assert all(torch.equal(value, original[name]) for name, value in copy.items() if name != "conv_in.weight")
    assert torch.equal(copy["conv_in.weight"][:, :4], original["conv_in.weight"])
    assert torch.equal(copy["conv_in.weight"][:, 4:], torch.zeros(8, 4, 3, 3))
    assert not any(name.startswith(("up_blocks", "conv_out", "conv_norm_out")) for name in copy)


def test_the_condition_reaches_the_output_through_trained_zero_convolutions() -> None:
    """Residuals are added to the skips: with all of them at r, the UNet equals diffusers' with r added to its own."""
    torch.manual_seed(0)
    unet = UNet(PLAIN, PCAMConfig(kind="none"), latent=4)
    for conv in (*unet.control.zero_skips, unet.control.zero_mid):
        torch.nn.init.normal_(conv.get_parameter("weight"), std=0.1)
    z, c_hr, t = torch.randn(1, 4, 8, 12), torch.randn(1, 4, 8, 12), torch.tensor([40])
    skips, middle = unet.control(z, c_hr, t, None)
    expected = unet.backbone(
        z,
        t,
        encoder_hidden_states=torch.zeros(1, 1, 1),
        down_block_additional_residuals=tuple(skips),
        mid_block_additional_residual=middle,
    ).sample
    torch.testing.assert_close(unet(z, c_hr, t), expected)
    assert not torch.allclose(expected, own_forward(unet.backbone, unet, z, t))


def test_x_0_is_solved_from_epsilon_or_v_or_added_to_the_condition() -> None:
    torch.manual_seed(0)
    schedule = Schedule(ScheduleConfig())
    z, c_hr, t = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8), torch.tensor([10, 500])
    epsilon_net = UNet(PLAIN, PROMPTS, latent=4)
    abar = schedule.alpha_bar[t].float().view(2, 1, 1, 1)
    expected = (z - (1 - abar).sqrt() * epsilon_net(z, c_hr, t)) / abar.sqrt()
    torch.testing.assert_close(epsilon_net.predict_x_0(z, c_hr, t, schedule), expected)
    v_net = UNet(replace(PLAIN, prediction="v"), PROMPTS, latent=4)
    expected = abar.sqrt() * z - (1 - abar).sqrt() * v_net(z, c_hr, t)
    torch.testing.assert_close(v_net.predict_x_0(z, c_hr, t, schedule), expected)
    residual_net = UNet(UNetConfig(channels=(8, 16), layers=1, groups=4, prediction="residual"), PROMPTS, latent=4)
    assert torch.equal(residual_net.predict_x_0(z, c_hr, t, schedule), c_hr)


def test_each_example_of_a_batch_has_its_own_time() -> None:
    torch.manual_seed(0)
    unet = UNet(PLAIN, PROMPTS, latent=4)
    z = torch.randn(1, 4, 8, 8).expand(2, -1, -1, -1)
    both = unet(z, z, torch.tensor([5, 900]))
    for i, t in enumerate((5, 900)):
        torch.testing.assert_close(both[i : i + 1], unet(z[:1], z[:1], torch.tensor([t])), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1])


def test_backbone_has_the_layout_of_stable_diffusion() -> None:
    names = set(build_backbone(ATTENDING, 4, 4).state_dict())
    for expected in (
        "time_embedding.linear_1.weight",
        "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.attentions.0.proj_in.weight",
        "up_blocks.1.attentions.2.proj_out.weight",
    ):
        assert expected in names
