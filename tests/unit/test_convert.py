"""Public checkpoints into ours: the same numbers as diffusers' own classes, and no tensor unaccounted for."""

import copy
import re
from pathlib import Path

import numpy as np
import public_checkpoints as public
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.flop_counter import FlopCounterMode

from sdatc_models import weights
from sdatc_models.checkpoints import read
from sdatc_models.config import base, tiny
from sdatc_models.convert import PLACES, Conversion, convert, fill
from sdatc_models.empty_prompt import embed, names_of_openclip
from sdatc_models.restorer import RestoreOptions, Restorer
from sdatc_models.untrained import pass_over_identities, untrained
from sdatc_models.weights import WeightsError

State = dict[str, torch.Tensor]
STANDING = ["PCAM of the UNet", "PCAM of the decoder", "STAM", "CFW"]


def fresh() -> Restorer:
    torch.manual_seed(0)
    return Restorer(public.small_base()).eval()


@pytest.fixture(scope="module")
def blank() -> Restorer:
    """For checkpoints that are refused: it must stay as it is."""
    return fresh()


def refusal(state: State, restorer: Restorer) -> str:
    with pytest.raises(WeightsError) as caught:
        fill(restorer, state)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def original() -> State:
    return public.original_stable_diffusion()


@pytest.fixture(scope="module")
def diffbir() -> State:
    return public.diffbir()


@pytest.fixture(scope="module")
def diffusers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return public.write_diffusers_folder(tmp_path_factory.mktemp("diffusers"))


@pytest.fixture(scope="module")
def from_original(original: State, diffbir: State) -> tuple[Restorer, Conversion]:
    restorer = fresh()
    result = fill(restorer, original)
    fill(restorer, diffbir)
    return restorer, result


@pytest.fixture(scope="module")
def from_folder(diffusers_folder: Path) -> Restorer:
    restorer = fresh()
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        fill(restorer, read(diffusers_folder / f"{part}.safetensors"))
    return restorer


@pytest.mark.parametrize("kind", ["folder", "original"])
def test_unet_and_vae_give_the_numbers_of_diffusers_own_classes(
    kind: str, from_folder: Restorer, from_original: tuple[Restorer, Conversion], diffusers_folder: Path
) -> None:
    """Both layouts hold the same numbers; diffusers loads its folder by itself."""
    ours = from_folder if kind == "folder" else from_original[0]
    unet = UNet2DConditionModel.from_pretrained(diffusers_folder / "unet").eval()
    vae = AutoencoderKL.from_pretrained(diffusers_folder / "vae").eval()
    context = ours.unet.context
    assert context is not None and context.abs().sum() > 0
    with torch.no_grad():
        z, t = torch.randn(2, 4, 8, 16), torch.tensor([3, 700])
        expected = unet(z, t, encoder_hidden_states=context.expand(2, -1, -1)).sample
        if kind == "folder":  # its condition encoder is closed, so it must be the UNet alone
            torch.testing.assert_close(ours.unet(z, z, t), expected, rtol=1e-4, atol=1e-5)
        alone = ours.unet.backbone(z, t, encoder_hidden_states=context.expand(2, -1, -1)).sample
        torch.testing.assert_close(alone, expected)
        image = torch.rand(1, 3, 32, 64)
        latent = vae.encode(image * 2 - 1).latent_dist.mode()
        torch.testing.assert_close(ours.vae.encode(image), latent * 0.18215, rtol=1e-4, atol=1e-5)
        picture = vae.decode(latent).sample
        torch.testing.assert_close(ours.vae.decode(latent * 0.18215, 1) * 2 - 1, picture, rtol=1e-4, atol=1e-4)


def test_attention_names_of_older_diffusers_are_read(
    diffusers_folder: Path, from_folder: Restorer, blank: Restorer
) -> None:
    new_names = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    state = read(diffusers_folder / "vae/diffusion_pytorch_model.safetensors")
    old = {re.sub("|".join(new_names), lambda m: new_names[m[0]], name): value for name, value in state.items()}
    assert old.keys() != state.keys()
    tensors = convert(old, blank).tensors
    assert all(torch.equal(value, from_folder.state_dict()[name]) for name, value in tensors.items())


def test_every_tensor_of_an_original_checkpoint_is_accounted_for(
    original: State, from_original: tuple[Restorer, Conversion]
) -> None:
    _, result = from_original
    used = [name for names in result.used.values() for name in names]
    assert sorted(used + result.unused) == sorted(original)
    assert set(result.used) == {"UNet", "VAE", "empty prompt"}
    kinds = {name.split(".")[0] for name in result.unused}
    assert kinds == {"betas", "alphas_cumprod", "sqrt_alphas_cumprod", "model_ema", "cond_stage_model"}
    last = [name for name in result.unused if f"resblocks.{public.LAYERS}." in name]
    assert len([n for n in result.unused if n.startswith("cond_stage")]) == len(last) + 2 and len(last) == 12


def test_the_controlnet_is_the_condition_encoder(diffbir: State) -> None:
    """Every residual equals a walk through diffusers' encoder with the checkpoint's own 1x1 convolutions after it."""
    ours = fresh()
    result = fill(ours, diffbir)
    assert result.used == {"ControlNet": sorted(diffbir)} and result.unused == []
    # The two lay their weights alike, so that they round alike.
    encoder = convert_conv2d_weight_memory_format(public.diffusers_unet(inputs=8), torch.channels_last)
    z, c_hr, t = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([500])
    context = torch.randn(1, 77, public.WIDTH)
    with torch.no_grad():
        skips, middle = ours.unet.control(z, c_hr, t, context)
        emb = encoder.time_embedding(encoder.time_proj(t))
        h = encoder.conv_in(torch.cat([z, c_hr], 1))
        outputs = [h]
        for block in encoder.down_blocks:
            attends = {"encoder_hidden_states": context} if hasattr(block, "attentions") else {}
            h, more = block(hidden_states=h, temb=emb, **attends)
            outputs += more
        assert encoder.mid_block is not None
        outputs.append(encoder.mid_block(h, emb, encoder_hidden_states=context))
        names = [f"zero_convs.{i}.0" for i in range(12)] + ["middle_block_out.0"]
        for residual, output, name in zip([*skips, middle], outputs, names, strict=True):
            expected = torch.nn.functional.conv2d(output, diffbir[f"{name}.weight"], diffbir[f"{name}.bias"])
            torch.testing.assert_close(residual, expected)


@pytest.mark.parametrize("prefix", ["module.", "control_model.", "module.control_model."])
def test_the_controlnet_is_known_under_its_other_names(diffbir: State, prefix: str) -> None:
    plain, other = fresh(), fresh()
    fill(plain, diffbir)
    result = fill(other, {f"{prefix}{name}": value for name, value in diffbir.items()})
    assert list(result.used) == ["ControlNet"]
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), other.state_dict().values(), strict=True))


def numpy_text_encoder(state: State) -> np.ndarray:
    """CLIP's text transformer by its definition, one head and one token at a time."""
    from math import erf, sqrt

    w = {k.removeprefix("text_model."): v.double().numpy() for k, v in state.items()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    words = w["embeddings.token_embedding.weight"]
    tokens = [len(words) - 2, len(words) - 1] + [0] * 75
    x = words[tokens] + w["embeddings.position_embedding.weight"]
    for i in range(public.LAYERS):
        layer = f"encoder.layers.{i}"
        h = norm(x, f"{layer}.layer_norm1")
        q, k, v = (linear(h, f"{layer}.self_attn.{part}_proj") for part in "qkv")
        out = np.zeros_like(q)
        for at in range(77):
            scores = k[: at + 1] @ q[at] / 8  # the root of 64 channels of the only head
            share = np.exp(scores - scores.max())
            out[at] = share / share.sum() @ v[: at + 1]
        x = x + linear(out, f"{layer}.self_attn.out_proj")
        wide = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        gelu = np.vectorize(lambda value: 0.5 * value * (1 + erf(value / sqrt(2))))
        x = x + linear(gelu(wide), f"{layer}.mlp.fc2")
    return norm(x, "final_layer_norm")


def test_the_empty_prompt_is_what_the_text_encoder_makes_of_it(
    from_folder: Restorer, from_original: tuple[Restorer, Conversion]
) -> None:
    expected = torch.from_numpy(numpy_text_encoder(public.text_encoder())).float()[None]
    for restorer in (from_folder, from_original[0]):
        torch.testing.assert_close(restorer.unet.context, expected, rtol=1e-4, atol=1e-4)
    stored = fresh()
    fill(stored, {name.removeprefix("text_model."): value for name, value in public.text_encoder().items()})
    torch.testing.assert_close(stored.unet.context, from_folder.unet.context)
    assert fill(stored, {"empty_prompt": expected[0].half()}).used == {"empty prompt": ["empty_prompt"]}
    torch.testing.assert_close(stored.unet.context, expected.half().float())


def test_heads_of_the_text_encoder_are_64_wide() -> None:
    """Against torch's own encoder layer, with two heads."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        128, 2, 512, dropout=0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    names = {"self_attn": "attn", "linear1": "mlp.c_fc", "linear2": "mlp.c_proj", "norm1": "ln_1", "norm2": "ln_2"}
    state = {"token_embedding.weight": torch.randn(9, 128), "positional_embedding": torch.randn(77, 128)}
    state |= {"ln_final.weight": torch.ones(128), "ln_final.bias": torch.zeros(128)}
    for name, value in layer.state_dict().items():
        part, rest = name.split(".", 1)
        state[f"transformer.resblocks.0.{names[part]}.{rest}"] = value
    x = (state["token_embedding.weight"][[7, 8] + [0] * 75] + state["positional_embedding"])[None]
    mask = torch.nn.Transformer.generate_square_subsequent_mask(77)
    with torch.no_grad():
        expected = torch.nn.functional.layer_norm(layer(x, src_mask=mask, is_causal=True), (128,))
        embedding, unused = embed(names_of_openclip(state), skip_last=False)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-4)
    assert unused == set()


def test_untrained_modules_are_told_from_the_weights(
    from_original: tuple[Restorer, Conversion], from_folder: Restorer
) -> None:
    assert untrained(from_original[0]) == ["DCM (bicubic)", *STANDING]
    assert untrained(from_folder) == ["DCM (bicubic)", "condition encoder", *STANDING]
    everything = ["DCM (bicubic)", "condition encoder", "embedding of the empty prompt", *STANDING]
    assert untrained(fresh()) == everything
    linear = ["DCM (bicubic)", "UNet", "condition encoder", STANDING[0], "decoder's convolutions", *STANDING[1:]]
    assert untrained(Restorer(tiny())) == linear
    trained = fresh()
    with torch.no_grad():
        for tensor in trained.state_dict().values():
            tensor.add_(0.01)
    assert untrained(trained) == []


def test_modules_at_the_identity_are_passed_over_and_change_nothing(
    from_original: tuple[Restorer, Conversion],
) -> None:
    clip, options, made, work = torch.rand(3, 3, 16, 24), RestoreOptions(steps=2, guidance=1.0), [], []
    for shorter in (False, True):
        restorer = copy.deepcopy(from_original[0])
        if shorter:
            pass_over_identities(restorer)
        with FlopCounterMode(display=False) as counter:
            made.append(restorer.restore(clip, range(3), options))
        work.append(counter.get_total_flops())
    torch.testing.assert_close(*made, rtol=0, atol=2e-5)
    assert work[1] < work[0]


@pytest.mark.parametrize("name", ["unet.pcam.0.conv_out.bias", "vae.stam.1.alpha_t", "vae.cfw.2.out.bias"])
def test_a_module_that_was_trained_is_not_passed_over(name: str) -> None:
    restorer, clip, options = fresh(), torch.rand(2, 3, 16, 16), RestoreOptions(steps=1)
    before = restorer.restore(clip, [0, 1], options)
    with torch.no_grad():
        restorer.get_parameter(name).add_(0.05)
    whole = restorer.restore(clip, [0, 1], options)
    pass_over_identities(restorer)
    torch.testing.assert_close(restorer.restore(clip, [0, 1], options), whole, rtol=0, atol=2e-5)
    assert (whole - before).abs().max() > 1e-3


def test_a_new_unet_opens_only_an_untrained_condition_encoder(original: State, diffbir: State) -> None:
    """Eq. (6): the condition encoder starts as a copy of the UNet's encoder; a trained one is left alone."""
    restorer = fresh()
    fill(restorer, original)
    stem, own = restorer.unet.backbone.conv_in.weight, restorer.unet.control.encoder.conv_in.weight
    assert torch.equal(own[:, :4], stem) and not own[:, 4:].any()
    fill(restorer, diffbir)
    before = own.clone()
    fill(restorer, original)
    assert torch.equal(own, before) and not torch.equal(own[:, :4], stem)


def test_the_whole_restores_and_survives_its_folder(from_original: tuple[Restorer, Conversion], tmp_path: Path) -> None:
    restorer, _ = from_original
    weights.save(restorer, tmp_path / "model")
    loaded = weights.load(tmp_path / "model")
    assert loaded.config == restorer.config
    options = RestoreOptions(steps=2)
    clip = torch.rand(2, 3, 16, 16)
    out = loaded.restore(clip, [0, 1], options)
    assert out.shape == (2, 3, 64, 64) and torch.isfinite(out).all()


def test_names_and_counts_of_the_true_size() -> None:
    """Stable Diffusion 2.1-base has 686 tensors in its UNet, 248 in its autoencoder; the ControlNet has 13 outputs."""
    with torch.device("meta"):
        own = Restorer(base()).state_dict()
    counts = {part: sum(name.startswith(places) for name in own) for part, places in PLACES.items()}
    encoder = sum(name.startswith("unet.control.encoder.") for name in own)
    assert counts["UNet"] == 686 and counts["VAE"] == 248
    assert counts["ControlNet"] == encoder + 2 * 13
    assert own["unet.control.encoder.conv_in.weight"].shape == (320, 8, 3, 3)


@pytest.mark.parametrize(
    "name, part",
    [
        ("model.diffusion_model.input_blocks.4.0.in_layers.2.weight", "UNet"),
        ("model.diffusion_model.output_blocks.5.2.conv.bias", "UNet"),
        ("model.diffusion_model.input_blocks.3.0.op.bias", "UNet"),
        ("first_stage_model.decoder.up.2.upsample.conv.bias", "VAE"),
        ("first_stage_model.encoder.mid.attn_1.q.weight", "VAE"),
        ("cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias", "text encoder"),
    ],
)
def test_a_missing_tensor_is_one_line(original: State, blank: Restorer, name: str, part: str) -> None:
    state = dict(original)
    del state[name]
    assert part in refusal(state, blank)


@pytest.mark.parametrize("name", ["zero_convs.3.0.bias", "middle_block_out.0.weight", "input_blocks.0.0.weight"])
def test_a_missing_tensor_of_the_controlnet_is_one_line(diffbir: State, blank: Restorer, name: str) -> None:
    state = dict(diffbir)
    del state[name]
    assert "ControlNet lacks" in refusal(state, blank)


def test_a_wrong_shape_a_surplus_and_an_overflow_are_one_line(original: State, blank: Restorer) -> None:
    name = "model.diffusion_model.out.2.weight"
    assert "is (9, 64, 3, 3), not (4, 32, 3, 3)" in refusal(original | {name: torch.zeros(9, 64, 3, 3)}, blank)
    surplus = {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(2)}
    assert "no place in this model, such as model.diffusion_model.label_emb" in refusal(original | surplus, blank)
    assert "half precision" in refusal(original | {name: torch.full((4, 32, 3, 3), 1e6)}, blank)
    assert "77" in refusal({"empty_prompt": torch.zeros(3, 3)}, blank)
    assert "no part of" in refusal({"weight": torch.zeros(3)}, blank)


def test_another_model_has_no_place_for_stable_diffusion(original: State) -> None:
    assert "no place in this model" in refusal(original, Restorer(tiny()))


def test_a_refused_checkpoint_leaves_the_model_as_it_was(original: State) -> None:
    restorer = fresh()
    before = {name: value.clone() for name, value in restorer.state_dict().items()}
    refusal({k: v for k, v in original.items() if not k.endswith("attn_1.q.weight")}, restorer)
    assert all(torch.equal(value, before[name]) for name, value in restorer.state_dict().items())


class Planted:
    """What a malicious pickle does when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("planted"),)  # type: ignore[return-value]


def test_pickles_hold_tensors_or_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diffbir: State) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": diffbir}, tmp_path / "v2.pth")
    assert all(torch.equal(value, diffbir[name]) for name, value in read(tmp_path / "v2.pth").items())
    torch.save(diffbir, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    assert read(tmp_path / "old.ckpt").keys() == diffbir.keys()
    torch.save({"a": torch.zeros(1), "b": Planted()}, tmp_path / "code.pth")
    for name, content in {"list.pth": [1, 2], "mixed.pth": {"a": torch.zeros(1), "step": 3}}.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "torn.pth").write_bytes((tmp_path / "v2.pth").read_bytes()[:5000])
    (tmp_path / "text.bin").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    for name in ("code.pth", "list.pth", "mixed.pth", "torn.pth", "text.bin", "notes.txt", "absent.pth"):
        with pytest.raises(WeightsError, match=name) as caught:
            read(tmp_path / name)
        assert "perhaps code" in str(caught.value) if name == "code.pth" else True
    assert not (tmp_path / "planted").exists()


def test_a_truncated_safetensors_file_is_one_line(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "whole.safetensors")
    for keep in (0, 5, 60, 2000):
        path = tmp_path / f"{keep}.safetensors"
        path.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:keep])
        with pytest.raises(WeightsError, match=f"{keep}.safetensors cannot be read"):
            read(path)
