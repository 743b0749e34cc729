"""The whole restorer at its tiny size: sizes, clips, noise, tiles, determinism, colour."""

import weakref
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sdatc_models import motion
from sdatc_models.config import DCMConfig, DetailConfig, ModelConfig, ScheduleConfig, tiny
from sdatc_models.layers import zero_init
from sdatc_models.noise import frame_noise
from sdatc_models.restorer import RestoreOptions, Restorer
from sdatc_models.tiling import tiled

QUICK = RestoreOptions(steps=3, color="none")


def lively(config: ModelConfig, strength: float = 0.02) -> Restorer:
    torch.manual_seed(0)
    restorer = Restorer(replace(config, dcm=replace(config.dcm, quantiser=False))).eval()  # not told here
    with torch.no_grad():
        for parameter in restorer.parameters():
            parameter.add_(torch.randn(parameter.shape) * strength)  # the same however the weights lie
    return restorer


def apart(config: ModelConfig) -> ModelConfig:
    """Without fusion, which makes frames depend on each other from the start."""
    return replace(config, fusion=False)


@pytest.fixture(scope="module")
def untrained() -> Restorer:
    torch.manual_seed(0)
    return Restorer(apart(tiny())).eval()


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return lively(tiny())


def test_the_quantiser_reaches_the_network() -> None:
    restorer, clip = Restorer(tiny()).eval().requires_grad_(False), pan(1, 16, 24)
    torch.nn.init.normal_(restorer.dcm.conv_last.weight, std=0.1)
    torch.nn.init.constant_(restorer.dcm.modulation.terms.weight, 0.3)  # type: ignore[union-attr]
    first, other, none = (restorer.restore(clip, [0], replace(QUICK, quantiser=q)) for q in (30.0, 40.0, None))
    assert not torch.equal(first, other) and not torch.equal(first, none) and not torch.equal(other, none)


def test_finely_compressed_frames_keep_half_of_what_diffusion_adds() -> None:
    """Between nothing of it and all of it; frames of which nothing is known keep all."""
    config, clip = apart(tiny()), 0.25 + 0.5 * pan(1, 16, 24)  # far from black and white
    images = {}
    for fine in (0.0, 0.5, 1.0):
        restorer = lively(replace(config, detail=DetailConfig(fine=fine)), 0.002)
        zero_init(restorer.vae.decoder.conv_out)  # a decoder that is linear
        images[fine] = [restorer.restore(clip, [0], replace(QUICK, quantiser=q)) for q in (10.0, 30.0, None)]
    nothing, half, everything = (images[fine][0] for fine in (0.0, 0.5, 1.0))
    assert (everything - nothing).abs().max() > 1e-3
    torch.testing.assert_close(half, (nothing + everything) / 2, rtol=0, atol=1e-6)
    assert all(torch.equal(image, everything) for found in images.values() for image in found[1:])


def pan(frames: int, height: int, width: int) -> torch.Tensor:
    """A clip of blocks of random colours that moves by one pixel a frame."""
    generator = torch.Generator().manual_seed(5)
    cells = torch.rand(1, 3, height // 4 + 2, (width + frames) // 4 + 2, generator=generator)
    wide = F.interpolate(cells, scale_factor=4)
    return torch.cat([wide[..., :height, i : i + width] for i in range(frames)])


def soft_pan(frames: int, height: int, width: int) -> torch.Tensor:
    """As `pan`, without edges."""
    return F.avg_pool2d(F.pad(pan(frames, height, width), (3, 3, 3, 3), mode="replicate"), 7, stride=1)


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp"])
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_untrained_restorer_equals_bicubic(untrained: Restorer, solver, guidance: float) -> None:
    """Whatever the path there: x_0 is C_HR, and the decoder gives back x_HR."""
    clip = pan(3, 16, 24)
    options = replace(QUICK, solver=solver, guidance=guidance, steps=4)
    expected = F.interpolate(clip, scale_factor=4, mode="bicubic", align_corners=False).clamp(0, 1)
    torch.testing.assert_close(untrained.restore(clip, range(3), options), expected, rtol=0, atol=2e-5)


def test_untrained_restorer_equals_bicubic_away_from_a_padded_edge(untrained: Restorer) -> None:
    clip = pan(1, 19, 21)
    expected = F.interpolate(clip, scale_factor=4, mode="bicubic", align_corners=False).clamp(0, 1)
    out = untrained.restore(clip, [0], QUICK)
    torch.testing.assert_close(out[..., :-8, :-8], expected[..., :-8, :-8], rtol=0, atol=2e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5])
def test_every_clip_length(restorer: Restorer, frames: int) -> None:
    clip = pan(frames, 16, 16)
    out = restorer.restore(clip, range(frames), replace(QUICK, guidance=1.0))
    assert out.shape == (frames, 3, 64, 64)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all() and out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (16, 45), (33, 18)])
def test_odd_sizes(restorer: Restorer, size: tuple[int, int]) -> None:
    out = restorer.restore(pan(2, *size), [0, 1], replace(QUICK, guidance=1.0, color="adain"))
    assert out.shape == (2, 3, size[0] * 4, size[1] * 4)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(
    "shape, frames",
    [((0, 3, 16, 16), 0), ((6, 3, 16, 16), 6), ((1, 1, 16, 16), 1), ((2, 3, 16, 16), 1), ((1, 3, 15, 40), 1)],
)
def test_other_clips_are_refused(restorer: Restorer, shape: tuple[int, ...], frames: int) -> None:
    with pytest.raises(ValueError):
        restorer.restore(torch.zeros(shape), range(frames), QUICK)


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp"])
def test_the_same_call_gives_the_same_bits(restorer: Restorer, solver) -> None:
    clip, options = pan(3, 16, 24), RestoreOptions(steps=4, solver=solver, guidance=1.0)
    torch.manual_seed(1)
    first = restorer.restore(clip, [7, 8, 9], options)
    torch.manual_seed(2)
    assert torch.equal(lively(tiny()).restore(clip, [7, 8, 9], options), first)
    assert not torch.equal(restorer.restore(clip, [7, 8, 9], replace(options, seed=1)), first)
    assert not torch.equal(restorer.restore(clip, [8, 9, 10], options), first)


def test_mirror_images_can_be_left_out(restorer: Restorer) -> None:
    """As a model does that makes none."""
    clip, config = pan(2, 16, 24), tiny()
    assert config.dcm.mirror
    plain = lively(replace(config, dcm=replace(config.dcm, mirror=False))).restore(clip, [0, 1], QUICK)
    assert torch.equal(restorer.restore(clip, [0, 1], replace(QUICK, mirror=False)), plain)
    assert not torch.equal(restorer.restore(clip, [0, 1], QUICK), plain)


@pytest.mark.parametrize("steps", [1, 2, 1000])
@pytest.mark.parametrize("solver", ["ddpm", "dpmpp"])
def test_any_number_of_steps(restorer: Restorer, solver, steps: int) -> None:
    if steps == 1000:
        restorer = lively(replace(tiny(), schedule=replace(tiny().schedule, start=20)))
    out = restorer.restore(pan(1, 16, 16), [0], replace(QUICK, solver=solver, steps=steps))
    assert torch.isfinite(out).all()


def test_noise_belongs_to_the_absolute_frame() -> None:
    cpu = torch.device("cpu")
    clip = frame_noise(3, [5, 6, 7], 2, (4, 8, 8), cpu)
    other = frame_noise(3, [7, 8], 2, (4, 8, 8), cpu)
    assert torch.equal(clip[2], other[0])
    keys = [(seed, frame, step) for seed in (0, 1) for frame in (0, 1, 2) for step in (0, 1)]
    draws = [frame_noise(seed, [frame], step, (4, 8, 8), cpu)[0] for seed, frame, step in keys]
    everything = torch.stack(draws).flatten(1)
    likeness = torch.corrcoef(everything) - torch.eye(len(everything))
    assert likeness.abs().max() < 0.3
    assert abs(everything.mean()) < 0.05 and abs(everything.std() - 1) < 0.05


def test_a_frame_starts_from_the_same_noise_in_every_clip() -> None:
    """Without temporal modules and guidance a frame comes out the same whichever clip it was in."""
    config = tiny()
    config = apart(replace(config, vae=replace(config.vae, stam=False)))
    clip = pan(5, 16, 16)
    options = replace(QUICK, guidance=0.0)
    first = lively(config).restore(clip[:3], [10, 11, 12], options)
    second = lively(config).restore(clip[2:], [12, 13, 14], options)
    torch.testing.assert_close(first[2], second[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("guidance", "expected"), [(0.0, 5), (1.0, 6)])
def test_clips_that_share_a_frame_sample_it_once_unless_they_are_guided(guidance: float, expected: int) -> None:
    restorer, clip, options = lively(tiny()), pan(5, 16, 16), replace(QUICK, guidance=guidance)
    seen = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal seen
        seen += inputs[0].shape[0]

    restorer.dcm.register_forward_pre_hook(count)
    restorer.restore(clip[:3], [10, 11, 12], options)
    second = restorer.restore(clip[2:], [12, 13, 14], options)
    assert seen == expected
    assert torch.equal(second, lively(tiny()).restore(clip[2:], [12, 13, 14], options))


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp"])
def test_v_prediction_starts_where_no_signal_is_left(solver) -> None:
    config = tiny()
    config = replace(config, unet=replace(config.unet, prediction="v"), schedule=ScheduleConfig(zero_snr=True))
    out = lively(config).restore(pan(2, 16, 16), [0, 1], replace(QUICK, solver=solver, guidance=1.0))
    assert out.isfinite().all() and out.std() > 0 and out.shape == (2, 3, 64, 64)


def test_a_frame_is_made_again_when_its_picture_or_the_options_change(restorer: Restorer) -> None:
    clip = pan(2, 16, 16)
    alone = replace(QUICK, guidance=0.0)
    for picture, options in ((clip[:1], alone), (clip[1:], alone), (clip[1:], replace(alone, steps=2))):
        made = restorer.restore(picture, [3], options)
        assert torch.equal(made, lively(tiny()).restore(picture, [3], options))


def test_bf16_networks_round_what_they_add_and_not_the_picture(untrained: Restorer) -> None:
    """A network that adds nothing gives the picture of float32, whose levels are finer than bf16's."""
    clip = pan(2, 16, 16)
    exact = untrained.restore(clip, [0, 1], QUICK)
    half = Restorer(untrained.config).eval().in_format(torch.bfloat16)
    torch.testing.assert_close(half.restore(clip, [0, 1], QUICK), exact, rtol=0, atol=2e-5)


def test_bf16_is_close_to_float32() -> None:
    clip, options = soft_pan(3, 16, 24), replace(QUICK, guidance=1.0)
    exact, half = (lively(tiny()).in_format(dtype) for dtype in (torch.float32, torch.bfloat16))
    difference = (half.restore(clip, range(3), options) - exact.restore(clip, range(3), options)).abs()
    assert 0 < difference.mean() < 1 / 255


def test_tiles_change_little_and_leave_no_step() -> None:
    """Tiles see less around them (and normalise by themselves), so the picture is the same within a tolerance only."""
    restorer, clip = lively(tiny(), 0.002), soft_pan(2, 32, 96)
    whole = restorer.restore(clip, [0, 1], QUICK)
    difference = restorer.restore(clip, [0, 1], replace(QUICK, tile=64)) - whole
    detail = whole - F.interpolate(clip, scale_factor=4, mode="bicubic").clamp(0, 1)
    assert difference.abs().mean() < 0.2 * detail.abs().mean()
    assert difference.abs().max() < 0.05
    steps = difference.diff(dim=-1).abs().mean((0, 1, 2))
    assert steps.max() < 5 * steps.median()


def test_tiles_as_large_as_the_frame_change_nothing(restorer: Restorer) -> None:
    clip = pan(1, 24, 40)
    assert torch.equal(restorer.restore(clip, [0], replace(QUICK, tile=40)), restorer.restore(clip, [0], QUICK))


@pytest.mark.parametrize("tile", [32, 40, 56])
def test_tiles_fit_a_network_of_four_scales(tile: int) -> None:
    """`base` needs latents that halve three times: a tile of any size asked for is brought to one that does."""

    def halve_three_times(x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] % 8 == x.shape[-2] % 8 == 0
        return x

    latent = torch.rand(1, 4, 48, 64)
    torch.testing.assert_close(tiled(halve_three_times, [latent], [0.5], 0.5, tile), latent)


@pytest.mark.parametrize("color", ["adain", "wavelet"])
def test_colour_follows_the_input(restorer: Restorer, color) -> None:
    clip = pan(2, 24, 24) * 0.5 + 0.2
    reference = F.interpolate(clip, scale_factor=4, mode="bicubic")
    out = restorer.restore(clip, [0, 1], replace(QUICK, color=color))
    torch.testing.assert_close(out.mean((2, 3)), reference.mean((2, 3)), rtol=0, atol=0.01)


def test_guidance_brings_the_frames_of_a_still_clip_closer(restorer: Restorer) -> None:
    """Frames that are alike but for noise: the stronger the guidance, the less the results differ along time."""
    still = soft_pan(1, 24, 24).expand(4, -1, -1, -1)
    flicker = [
        restorer.restore(still, range(4), replace(QUICK, steps=8, guidance=s)).diff(dim=0).abs().mean()
        for s in (0.0, 1.0, 2.0)
    ]
    assert flicker[2] < flicker[1] < flicker[0]


def test_switched_off_dcm_is_bicubic() -> None:
    config = replace(tiny(), dcm=DCMConfig(dim=8, layers=2, heads=2, enabled=False))
    assert not list(Restorer(config).dcm.parameters())


def test_fidelity_zero_leaves_cfw_out(restorer: Restorer) -> None:
    clip = pan(1, 16, 16)
    free, true = (restorer.restore(clip, [0], replace(QUICK, fidelity=f)) for f in (0.0, 1.0))
    without = lively(replace(tiny(), vae=replace(tiny().vae, cfw=False)))
    without.load_state_dict({k: v for k, v in restorer.state_dict().items() if ".cfw." not in k and "vae.cfw" not in k})
    assert torch.equal(without.restore(clip, [0], QUICK), free)
    assert not torch.equal(free, true)


def test_detail_scales_what_the_networks_add() -> None:
    """None of it, most of it, more of it than was made; at sizes that are padded on the way as well."""
    restorer = lively(tiny(), 0.005)
    clip = pan(2, 20, 28) * 0.1 + 0.45  # far from what is clamped
    plain = F.interpolate(clip, scale_factor=4, mode="bicubic", align_corners=False)
    made = restorer.restore(clip, [0, 1], QUICK)
    assert (made - plain).abs().max() > 1e-3 and 0 < made.min() < made.max() < 1
    for detail in (0.0, 0.75, 1.5):
        wanted = (plain + detail * (made - plain)).clamp(0, 1)
        found = restorer.restore(clip, [0, 1], replace(QUICK, detail=detail))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_motion_search_that_found_no_memory_is_made_again(restorer: Restorer, monkeypatch) -> None:
    clip, refusals = soft_pan(3, 16, 24), [MemoryError()]

    def scarce(first, second, dis=motion.dis):
        if refusals:
            raise refusals.pop()
        return dis(first, second)

    monkeypatch.setattr(motion, "dis", scarce)
    with pytest.raises(MemoryError):
        restorer.restore(clip, range(3), QUICK)
    assert torch.equal(restorer.restore(clip, range(3), QUICK), lively(tiny()).restore(clip, range(3), QUICK))


def test_nothing_of_a_clip_that_failed_is_kept(monkeypatch) -> None:
    """Its memory is what the next try, with smaller tiles, may lack."""
    restorer, made = lively(tiny()), []

    def refuse(*_: object) -> None:
        raise MemoryError

    restorer.dcm.register_forward_hook(lambda module, inputs, x_hr: made.append(weakref.ref(x_hr)))
    monkeypatch.setattr(Restorer, "decode", refuse)
    with suppress(MemoryError):
        restorer.restore(pan(2, 16, 16), [0, 1], QUICK)
    assert [x_hr() for x_hr in made] == [None, None]


def test_frames_of_a_clip_learn_from_each_other() -> None:
    """A noisy clip that stands still: together nearer to the truth than alone; a single frame as without motion."""
    torch.manual_seed(0)
    restorer, true = Restorer(tiny()).eval(), soft_pan(1, 24, 32)
    clip = (true * 0.8 + 0.1 + 0.02 * torch.randn(5, 3, 24, 32)).clamp(0, 1)
    wanted = F.interpolate(true * 0.8 + 0.1, scale_factor=4, mode="bicubic")
    together, alone = (restorer.restore(clip, range(5), replace(QUICK, flow=flow)) for flow in ("dis", "none"))
    assert (together - wanted).square().mean() < 0.7 * (alone - wanted).square().mean()
    single = restorer.restore(clip[2:3], [2], QUICK)
    assert torch.equal(single, restorer.restore(clip[2:3], [2], replace(QUICK, flow="none")))
    torch.testing.assert_close(single, alone[2:3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_values_that_are_no_numbers_stay_so(bad: float) -> None:
    """As white or black they would go unnoticed."""
    restorer = Restorer(replace(apart(tiny()), detail=DetailConfig())).eval()
    torch.nn.init.constant_(restorer.vae.decoder.conv_out.bias, bad)
    assert restorer.restore(pan(2, 16, 16), [0, 1], QUICK).isnan().any()
