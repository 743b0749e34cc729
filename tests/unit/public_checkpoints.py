"""Checkpoints as they are published, at a reduced width and filled with random numbers: the true layouts and names.

Original names are made here from diffusers' by rules of our own, so that the converter meets something it did not make.
"""

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from sdatc_models.config import ModelConfig, PCAMConfig, ScheduleConfig, UNetConfig, VAEConfig, lite
from sdatc_models.unet import build_backbone

State = dict[str, Tensor]
WIDTH, LAYERS = 64, 2  # of the text encoder
RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}


def small_base() -> ModelConfig:
    """base's layout, with its four scales and two layers a scale, narrow."""
    return ModelConfig(
        name="base",
        dcm=lite().dcm,
        vae=VAEConfig(latent=4, channels=(32, 32, 64, 64), layers=2, groups=32, scaling=0.18215, stam_heads=2),
        unet=UNetConfig(channels=(32, 64, 64, 64), layers=2, groups=32, context=WIDTH, heads=(1, 2, 2, 2)),
        pcam=PCAMConfig(size=4),
        schedule=ScheduleConfig(),
        guidance=0.1,
    )


def fill_with_noise(module: torch.nn.Module, seed: int) -> None:
    """The same numbers every time, norms and biases too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            start = parameter.mean().round() if parameter.ndim == 1 else 0.0
            parameter.copy_(start + torch.randn(parameter.shape, generator=generator) * 0.05)


def diffusers_unet(inputs: int = 4) -> UNet2DConditionModel:
    unet = build_backbone(small_base().unet, inputs, 4)
    fill_with_noise(unet, 1)
    return unet.eval()


def diffusers_vae() -> AutoencoderKL:
    config = small_base().vae
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        latent_channels=4,
    )
    fill_with_noise(vae, 2)
    return vae.eval()


def text_encoder() -> State:
    """diffusers' (transformers') names; query, key and value apart. SD 2's width of a head, a short vocabulary."""
    generator = torch.Generator().manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (50, WIDTH),
        "embeddings.position_embedding.weight": (77, WIDTH),
        "final_layer_norm.weight": (WIDTH,),
        "final_layer_norm.bias": (WIDTH,),
    }
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}."
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{layer}self_attn.{part}.weight"] = (WIDTH, WIDTH)
            shapes[f"{layer}self_attn.{part}.bias"] = (WIDTH,)
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}{norm}.weight"] = shapes[f"{layer}{norm}.bias"] = (WIDTH,)
        shapes[f"{layer}mlp.fc1.weight"], shapes[f"{layer}mlp.fc1.bias"] = (4 * WIDTH, WIDTH), (4 * WIDTH,)
        shapes[f"{layer}mlp.fc2.weight"], shapes[f"{layer}mlp.fc2.bias"] = (WIDTH, 4 * WIDTH), (WIDTH,)
    state = {f"text_model.{k}": torch.randn(shape, generator=generator) * 0.3 for k, shape in shapes.items()}
    return state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


def original_text_encoder(state: State) -> State:
    """OpenCLIP's names, with the last block that SD leaves out and what only its loss needs."""
    made: State = {}
    bare = {k.removeprefix("text_model."): v for k, v in state.items()}
    for i in range(LAYERS):
        theirs, ours = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for end in ("weight", "bias"):
            qkv = [bare[f"{theirs}self_attn.{part}_proj.{end}"] for part in "qkv"]
            made[f"{ours}attn.in_proj_{end}"] = torch.cat(qkv)
            made[f"{ours}attn.out_proj.{end}"] = bare[f"{theirs}self_attn.out_proj.{end}"]
            made[f"{ours}ln_1.{end}"], made[f"{ours}ln_2.{end}"] = (
                bare[f"{theirs}layer_norm1.{end}"],
                bare[f"{theirs}layer_norm2.{end}"],
            )
            made[f"{ours}mlp.c_fc.{end}"], made[f"{ours}mlp.c_proj.{end}"] = (
                bare[f"{theirs}mlp.fc1.{end}"],
                bare[f"{theirs}mlp.fc2.{end}"],
            )
    last = {k.replace(f"resblocks.{LAYERS - 1}.", f"resblocks.{LAYERS}."): v + 1 for k, v in made.items()}
    made |= {k: v for k, v in last.items() if f"resblocks.{LAYERS}." in k}
    made["token_embedding.weight"] = bare["embeddings.token_embedding.weight"]
    made["positional_embedding"] = bare["embeddings.position_embedding.weight"]
    made["ln_final.weight"], made["ln_final.bias"] = bare["final_layer_norm.weight"], bare["final_layer_norm.bias"]
    made["text_projection"], made["logit_scale"] = torch.randn(WIDTH, WIDTH), torch.tensor(4.6)
    return {f"cond_stage_model.model.{k}": v for k, v in made.items()}


def _moved(state: State, old: str, new: str, inner: dict[str, str]) -> State:
    """The tensors below `old`, below `new`, with the beginnings of their inner names replaced."""
    moved = {}
    for name, value in state.items():
        if name.startswith(f"{old}."):
            rest = name.removeprefix(f"{old}.")
            start = next((key for key in inner if rest.startswith(key)), "")
            moved[f"{new}.{inner.get(start, '')}{rest.removeprefix(start)}"] = value
    return moved


def original_encoder(state: State, layers: int = 2, scales: int = 4) -> State:
    """The encoder half of a UNet under the names of Stable Diffusion's first code."""
    made = _moved(state, "conv_in", "input_blocks.0.0", {})
    made |= _moved(state, "time_embedding", "time_embed", {"linear_1.": "0.", "linear_2.": "2."})
    n = 1
    for i in range(scales):
        for j in range(layers):
            made |= _moved(state, f"down_blocks.{i}.resnets.{j}", f"input_blocks.{n}.0", RESNET)
            made |= _moved(state, f"down_blocks.{i}.attentions.{j}", f"input_blocks.{n}.1", {})
            n += 1
        if i < scales - 1:
            made |= _moved(state, f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{n}.0.op", {})
            n += 1
    made |= _moved(state, "mid_block.resnets.0", "middle_block.0", RESNET)
    made |= _moved(state, "mid_block.attentions.0", "middle_block.1", {})
    return made | _moved(state, "mid_block.resnets.1", "middle_block.2", RESNET)


def original_unet(state: State, layers: int = 2, scales: int = 4) -> State:
    made = original_encoder(state, layers, scales)
    for i in range(scales):
        for j in range(layers + 1):
            n = i * (layers + 1) + j
            made |= _moved(state, f"up_blocks.{i}.resnets.{j}", f"output_blocks.{n}.0", RESNET)
            made |= _moved(state, f"up_blocks.{i}.attentions.{j}", f"output_blocks.{n}.1", {})
            if j == layers and i < scales - 1:
                made |= _moved(state, f"up_blocks.{i}.upsamplers.0", f"output_blocks.{n}.{2 if i else 1}", {})
    made |= _moved(state, "conv_norm_out", "out.0", {}) | _moved(state, "conv_out", "out.2", {})
    assert len(made) == len(state)
    return {f"model.diffusion_model.{name}": value for name, value in made.items()}


def original_vae(state: State, layers: int = 2, scales: int = 4) -> State:
    resnet = {"conv_shortcut.": "nin_shortcut."}
    attention = {"group_norm.": "norm.", "to_q.": "q.", "to_k.": "k.", "to_v.": "v.", "to_out.0.": "proj_out."}
    made = _moved(state, "quant_conv", "quant_conv", {}) | _moved(state, "post_quant_conv", "post_quant_conv", {})
    for half, below, count in (("encoder", "down", layers), ("decoder", "up", layers + 1)):
        for i in range(scales):
            at = i if below == "down" else scales - 1 - i
            block = f"{half}.{below}_blocks.{i}"
            for j in range(count):
                made |= _moved(state, f"{block}.resnets.{j}", f"{half}.{below}.{at}.block.{j}", resnet)
            made |= _moved(state, f"{block}.{below}samplers.0", f"{half}.{below}.{at}.{below}sample", {})
        for j in range(2):
            made |= _moved(state, f"{half}.mid_block.resnets.{j}", f"{half}.mid.block_{j + 1}", resnet)
        squares = _moved(state, f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", attention)
        made |= {k: v[..., None, None].clone() if v.ndim == 2 else v for k, v in squares.items()}
        for name in ("conv_in", "conv_out"):
            made |= _moved(state, f"{half}.{name}", f"{half}.{name}", {})
        made |= _moved(state, f"{half}.conv_norm_out", f"{half}.norm_out", {})
    assert len(made) == len(state)
    return {f"first_stage_model.{name}": value for name, value in made.items()}


def original_stable_diffusion() -> State:
    """All of `v2-1_512-ema-pruned`: the three networks and the constants of the schedule."""
    constants = {name: torch.linspace(0, 1, 1000) for name in ("betas", "alphas_cumprod", "sqrt_alphas_cumprod")}
    extra = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    networks = original_unet(diffusers_unet().state_dict()) | original_vae(diffusers_vae().state_dict())
    return networks | original_text_encoder(text_encoder()) | constants | extra


def diffbir() -> State:
    """DiffBIR's ControlNet: a UNet's encoder with 4 + 4 input channels, and 13 convolutions that began at zero."""
    encoder = diffusers_unet(inputs=8)
    made = original_encoder(encoder.state_dict())
    generator = torch.Generator().manual_seed(4)
    widths = [32] * 4 + [64] * 8  # of the encoder's outputs, in their order
    for i, width in enumerate(widths):
        made[f"zero_convs.{i}.0.weight"] = torch.randn(width, width, 1, 1, generator=generator) * 0.05
        made[f"zero_convs.{i}.0.bias"] = torch.randn(width, generator=generator) * 0.05
    made["middle_block_out.0.weight"] = torch.randn(widths[-1], widths[-1], 1, 1, generator=generator) * 0.05
    made["middle_block_out.0.bias"] = torch.randn(widths[-1], generator=generator) * 0.05
    return made


def write_diffusers_folder(folder: Path) -> Path:
    """What a mirror of Stable Diffusion 2.1-base holds, as diffusers itself writes it."""
    diffusers_unet().save_pretrained(folder / "unet")
    diffusers_vae().save_pretrained(folder / "vae")
    (folder / "text_encoder").mkdir()
    save_file(text_encoder(), folder / "text_encoder" / "model.safetensors")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "epsilon"}')
    return folder
