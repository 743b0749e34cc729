"""Public checkpoints into ours: Stable Diffusion 2's UNet, autoencoder and text encoder, and DiffBIR's ControlNet.

Takes the tensors of diffusers folders and of original files (`model.diffusion_model.*`, `first_stage_model.*`,
`cond_stage_model.*`; DiffBIR's `input_blocks.*`, `zero_convs.*`). Names are translated by diffusers' own tables, whose
layers ours are. No tensor goes missing unseen: one that has no place, or a place that has no tensor, is an error, and
what does not belong to these networks is listed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .checkpoints import State
from .config import ModelConfig
from .empty_prompt import embed, names_of_openclip
from .restorer import Restorer
from .weights import WeightsError

_Finder = Callable[[State, ModelConfig], tuple[State, State]]

# The beginnings of names in original files. DiffBIR's ControlNet also comes without.
UNET, VAE, CLIP, CONTROL = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model.", "control_model."
EMPTY_PROMPT = "empty_prompt"  # the only tensor of a file that holds just the embedding
PLACES = {
    "UNet": ("unet.backbone.",),
    "VAE": ("vae.encoder.", "vae.decoder.", "vae.quant_conv.", "vae.post_quant_conv."),
    "ControlNet": ("unet.control.",),
    "empty prompt": ("unet.context",),
}
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of diffusers before 0.14


@dataclass
class Conversion:
    """What became of a checkpoint: its tensors under our names, and, under theirs, what was read and what was not."""

    tensors: State = field(default_factory=dict)
    used: dict[str, list[str]] = field(default_factory=dict)  # by part, as in PLACES
    unused: list[str] = field(default_factory=list)


def convert(state: State, restorer: Restorer) -> Conversion:
    """The tensors of one checkpoint as those of `restorer`, which stays as it is. WeightsError names what is wrong."""
    state = {name.removeprefix("module."): value for name, value in state.items()}
    result = Conversion()
    for part, find in (("UNet", _unet), ("VAE", _vae), ("ControlNet", _controlnet)):
        source, made = _translated(part, find, state, restorer.config)
        if source:
            _check(part, source, made, restorer)
            result.tensors |= made
            result.used[part] = sorted(source)
    prompt, source = _prompt(state)
    if prompt is not None:
        _check("empty prompt", {}, {"unet.context": prompt}, restorer)
        result.tensors["unet.context"] = prompt
        result.used["empty prompt"] = sorted(source)
    if not result.used:
        raise WeightsError("holds no part of Stable Diffusion 2 or of DiffBIR's ControlNet under a name known here")
    read = {name for names in result.used.values() for name in names}
    result.unused = sorted(state.keys() - read)
    return result


@torch.no_grad()
def fill(restorer: Restorer, state: State) -> Conversion:
    """`convert`, and copy the tensors into `restorer`. A new UNet's encoder is also what an untrained condition encoder
    starts from, eq. (6)."""
    result = convert(state, restorer)
    own = restorer.state_dict()
    for name, value in result.tensors.items():
        own[name].copy_(value)
    if "UNet" in result.used and "ControlNet" not in result.used and restorer.unet.control.closed:
        restorer.unet.control.copy_encoder(restorer.unet.backbone)
    return result


def _translated(part: str, find: _Finder, state: State, config: ModelConfig) -> tuple[State, State]:
    """What `find` makes of the checkpoint; diffusers' tables fail in several ways where a tensor is missing."""
    try:
        source, made = find(state, config)
    except (KeyError, IndexError, AttributeError) as error:
        raise WeightsError(f"the {part} is incomplete, or not of Stable Diffusion 2's form ({error})") from error
    return source, {name: value for name, value in made.items() if value is not None}


def _starting(state: State, prefix: str) -> State:
    return {name: value for name, value in state.items() if name.startswith(prefix)}


def _unet(state: State, config: ModelConfig) -> tuple[State, State]:
    """(the checkpoint's tensors, the same under our names); empty without a UNet. So do the next two."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint  # takes seconds to import

    source = _starting(state, UNET)
    if source:
        made = convert_ldm_unet_checkpoint(dict(source), {"layers_per_block": config.unet.layers})
    else:
        source = made = state if "down_blocks.0.resnets.0.norm1.weight" in state else {}
    return source, {f"unet.backbone.{name}": value for name, value in made.items()}


def _vae(state: State, config: ModelConfig) -> tuple[State, State]:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    source = _starting(state, VAE)
    if source:
        blocks = (None,) * len(config.vae.channels)
        made = convert_ldm_vae_checkpoint(dict(source), {"down_block_types": blocks, "up_block_types": blocks})
    else:
        source = state if "encoder.down_blocks.0.resnets.0.norm1.weight" in state else {}
        made = {_present_name(name): value for name, value in source.items()}
    return source, {f"vae.{name}": value for name, value in made.items()}


def _present_name(name: str) -> str:
    old = re.fullmatch(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)", name)
    return f"{old[1]}{_OLD_ATTENTION[old[2]]}{old[3]}" if old else name


def _controlnet(state: State, config: ModelConfig) -> tuple[State, State]:
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    source = _starting(state, CONTROL) or (state if "zero_convs.0.0.weight" in state else {})
    if not source:
        return {}, {}
    bare = {name.removeprefix(CONTROL): value for name, value in source.items()}
    made = convert_controlnet_checkpoint(bare, {"layers_per_block": config.unet.layers})
    ours: State = {}
    for name, value in made.items():
        place = name if name.startswith("controlnet_") else f"encoder.{name}"
        place = place.replace("controlnet_down_blocks", "zero_skips").replace("controlnet_mid_block", "zero_mid")
        ours[f"unet.control.{place}"] = value
    return source, ours


def _prompt(state: State) -> tuple[Tensor | None, list[str]]:
    """The embedding (1, 77, D) of the empty prompt and the names of the tensors behind it."""
    if EMPTY_PROMPT in state:
        value = state[EMPTY_PROMPT]
        return value.reshape(1, *value.shape[-2:]) if value.ndim >= 2 else value, [EMPTY_PROMPT]
    bare = "" if "embeddings.token_embedding.weight" in state else "text_model."  # transformers writes it either way
    for prefix, skip_last in ((CLIP, True), (bare, False)):
        source = _starting(state, prefix)
        if source:
            own = {name.removeprefix(prefix): value for name, value in source.items()}
            embedding, unused = embed(names_of_openclip(own), skip_last)
            return embedding, [name for name in source if name.removeprefix(prefix) not in unused]
    return None, []


def _check(part: str, source: State, made: State, restorer: Restorer) -> None:
    """Every tensor of `source` has a place, every place of the part a tensor of its shape that half precision holds."""
    own = {name: value for name, value in restorer.state_dict().items() if name.startswith(PLACES[part])}
    placed = {value.data_ptr() for name, value in made.items() if name in own}
    homeless = [name for name, value in source.items() if value.data_ptr() not in placed]
    if homeless:
        raise WeightsError(
            f"the {part} holds {len(homeless)} tensors with no place in this model, such as {homeless[0]}"
        )
    missing = sorted(own.keys() - made.keys())
    if missing:
        raise WeightsError(f"the {part} lacks {len(missing)} tensors, such as the one for {missing[0]}")
    for name, value in made.items():
        if name not in own:
            raise WeightsError(f"this model has no {part}")
        if value.shape != own[name].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(own[name].shape)}"
            raise WeightsError(f"the {part} does not fit: the tensor for {name} is {shapes}")
        if not torch.isfinite(value.half()).all():
            raise WeightsError(f"the {part} is unusable: the tensor for {name} has values half precision cannot hold")
