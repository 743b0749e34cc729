"""The autoencoder: against diffusers' own, the linear code, and CFW (eq. 12)."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from sdatc_models.cfw import CFW
from sdatc_models.config import PCAMConfig, VAEConfig
from sdatc_models.vae import VAE, PatchTransform

LINEAR = VAEConfig(latent=16, channels=(8, 8, 8), layers=1, groups=4, stem=2, linear=True, attention=False)
SPATIAL = VAEConfig(latent=4, channels=(8, 8, 16), layers=2, groups=4, scaling=0.5, stam=False, cfw=False)
PROMPTS = PCAMConfig(size=4)


def lively(module: torch.nn.Module, seed: int = 0) -> None:
    """Random weights everywhere, so that nothing is hidden behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def test_spatial_layers_are_those_of_stable_diffusions_autoencoder() -> None:
    """With the paper's modules left out, our walk through diffusers' blocks equals diffusers' own."""
    torch.manual_seed(0)
    ours = VAE(SPATIAL, PCAMConfig(kind="none")).eval()
    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=4,
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    image = torch.rand(2, 3, 16, 24)
    z, features = ours.encode(image), ours.features(image)
    expected = theirs.encode(image * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(z, expected * 0.5)
    assert [f.shape[-2:] for f in features] == [(4, 6), (8, 12), (16, 24)]
    torch.testing.assert_close(ours.decode(z, frames=2) * 2 - 1, theirs.decode(expected).sample)


def test_new_prompts_and_temporal_modules_leave_the_decoder_exactly_as_it_was() -> None:
    """Without diffusers' attention, whose memory layout, and with it the rounding, depends on its neighbours'."""
    torch.manual_seed(0)
    spatial = replace(SPATIAL, attention=False)
    plain = VAE(spatial, PCAMConfig(kind="none"))
    full = VAE(replace(spatial, stam=True, cfw=True), PCAMConfig(size=4))
    assert not full.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    z = torch.randn(5, 4, 4, 6)
    assert torch.equal(full.decode(z, frames=5), plain.decode(z, frames=5))


def test_decoder_with_new_modules_equals_frame_by_frame_decoding() -> None:
    torch.manual_seed(0)
    vae = VAE(LINEAR, PROMPTS)
    z = torch.randn(5, 16, 3, 4)
    alone = torch.cat([vae.decode(z[i : i + 1], frames=1) for i in range(5)])
    torch.testing.assert_close(vae.decode(z, frames=5), alone, rtol=1e-5, atol=1e-5)


def test_omega_zero_is_the_decoder_without_cfw() -> None:
    torch.manual_seed(0)
    vae = VAE(LINEAR, PROMPTS)
    lively(vae)
    z, f_e = vae.encode(torch.rand(3, 3, 16, 24)), vae.features(torch.rand(3, 3, 16, 24))
    without = vae.decode(z, 3)
    assert torch.equal(vae.decode(z, 3, f_e, omega=0.0), without)
    assert not torch.allclose(vae.decode(z, 3, f_e, omega=0.75), without)


def test_up_receives_f_d_plus_omega_times_the_residual() -> None:
    """Eq. (12) at H/4: read what enters and leaves CFW, and what the next layer gets."""
    torch.manual_seed(0)
    vae = VAE(LINEAR, PROMPTS)
    lively(vae)
    assert vae.cfw is not None and sorted(vae.cfw) == ["1", "2"]
    seen: dict[str, torch.Tensor] = {}
    vae.cfw["1"].register_forward_hook(lambda m, x, out: seen.update(f_e=x[0], f_d=x[1], res=out))
    up = vae.decoder.up_blocks[1].get_submodule("upsamplers.0")
    up.register_forward_pre_hook(lambda m, x: seen.update(up=x[0]))
    image = torch.rand(2, 3, 16, 24)
    z, f_e = vae.encode(image), vae.features(image)
    vae.decode(z, 2, f_e, omega=0.3)
    assert seen["f_e"].shape[-2:] == (4, 6)
    assert torch.equal(seen["f_e"], f_e[-2])
    torch.testing.assert_close(seen["up"], seen["f_d"] + 0.3 * seen["res"])


def test_new_cfw_adds_nothing() -> None:
    assert torch.equal(CFW(8)(torch.randn(2, 8, 5, 5), torch.randn(2, 8, 5, 5)), torch.zeros(2, 8, 5, 5))


@pytest.mark.parametrize("factor", [2, 4])
def test_full_rank_code_is_exact_and_white(factor: int) -> None:
    torch.manual_seed(0)
    patch = PatchTransform(3 * factor**2, factor)
    mixing = torch.randn(3 * factor**2, 3 * factor**2) * 0.05
    patches = (torch.randn(4000, 3 * factor**2) @ mixing + 0.5).view(-1, 3, factor, factor)
    patch.fit(patches)
    code = patch.encode(patches * 2 - 1).flatten(1)
    torch.testing.assert_close(patch.decode(code[..., None, None]), patches * 2 - 1, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        (code - code.mean(0)).T @ (code - code.mean(0)) / 4000, torch.eye(3 * factor**2), rtol=0, atol=2e-2
    )


def smooth_pictures(count: int, size: int) -> torch.Tensor:
    rng = np.random.default_rng(0)
    pictures = [cv2.GaussianBlur(rng.random((size, size, 3), np.float32), (0, 0), 2.5) for _ in range(count)]
    stretched = [(p - p.min()) / (p.max() - p.min()) for p in pictures]
    return torch.from_numpy(np.stack(stretched)).permute(0, 3, 1, 2).contiguous()


def test_principal_components_keep_smooth_pictures() -> None:
    """A few components, fitted on some pictures, reconstruct others well, and the better the more there are."""
    fit, held_out = smooth_pictures(12, 64).split([8, 4])
    patches = fit.unfold(2, 4, 2).unfold(3, 4, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 4, 4)
    quality = []
    for latent in (4, 9, 16):
        patch = PatchTransform(latent, 4)
        patch.fit(patches)
        error = (patch.decode(patch.encode(held_out * 2 - 1)) / 2 + 0.5 - held_out).square().mean()
        quality.append(-10 * error.log10().item())
    assert quality == sorted(quality)
    assert quality[1] > 25 and quality[2] > 32


def test_untrained_linear_autoencoder_returns_x_hr_exactly_from_its_own_latent() -> None:
    torch.manual_seed(0)
    vae = VAE(LINEAR, PROMPTS)
    x_hr = torch.rand(5, 3, 32, 24)
    z, f_e = vae.encode(x_hr), vae.features(x_hr)
    torch.testing.assert_close(vae.decode(z, 5, f_e, 0.75, x_hr), x_hr, rtol=0, atol=1e-6)


def test_added_parameters_are_those_of_prompts_temporal_modules_and_cfw() -> None:
    vae = VAE(LINEAR, PROMPTS)
    added = {id(p) for p in vae.added_parameters()}
    names = {name.split(".")[0] for name, p in vae.named_parameters() if id(p) in added}
    assert names == {"pcam", "stam", "cfw"}


def test_a_linear_code_is_not_rounded_where_training_computes_in_half_precision() -> None:
    torch.manual_seed(0)
    vae, x_hr = VAE(LINEAR, PROMPTS), torch.rand(2, 3, 32, 24)
    z = vae.encode(x_hr)
    picture = vae.decode_code(z, x_hr)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vae.encode(x_hr), z) and torch.equal(vae.decode_code(z, x_hr), picture)


def test_a_decoder_in_half_precision_has_fine_levels_in_bright_places_too() -> None:
    """[-1, 1] is brought to [0, 1] in float32: above 1, bf16 has steps of two levels of 8 bits."""
    vae = VAE(SPATIAL, PROMPTS).to(torch.bfloat16)
    with torch.no_grad():
        vae.decoder.conv_out.weight.zero_()
        vae.decoder.conv_out.bias.fill_(0.30078125)
        picture = vae.decode(torch.randn(1, 4, 4, 4), 1)
    assert (picture.double() == 1.30078125 / 2).all()
