"""What Stable Diffusion's text encoder says of the empty prompt: a constant, computed once from its weights.

SD 2's encoder is the text half of OpenCLIP ViT-H (Ilharco et al., 2021), a causal pre-norm transformer whose last
block is left out. It is walked here by hand, once, so that no tokenizer and no other package is needed.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from .checkpoints import State
from .weights import WeightsError

HEAD = 64  # channels of an attention head
_PARTS = ("ln_1", "attn.in_proj", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")  # of a block, each with a bias
_RENAMED = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def names_of_openclip(state: State) -> State:
    """The encoder of a diffusers folder under OpenCLIP's names; query, key and value are one tensor there."""
    renamed: State = {}
    for name, value in state.items():
        for theirs, ours in _RENAMED.items():
            name = name.replace(theirs, ours)
        renamed[name.removeprefix("text_model.")] = value
    for name in [name for name in renamed if ".self_attn.q_proj." in name]:
        thirds = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(third in renamed for third in thirds):
            joined = torch.cat([renamed.pop(third) for third in thirds])
            renamed[name.replace("self_attn.q_proj.", "attn.in_proj_")] = joined
    return renamed


def embed(state: State, skip_last: bool) -> tuple[Tensor, set[str]]:
    """The embedding (1, length, D) of the empty prompt in float32, and the names of tensors it does not depend on.

    `state` has OpenCLIP's names; `skip_last` leaves out the last block. WeightsError names a tensor that is missing.
    """
    unused = set(state)

    def tensor(name: str) -> Tensor:
        if name not in state:
            raise WeightsError(f"the text encoder lacks the tensor {name}")
        unused.discard(name)
        return state[name].float()

    def pair(name: str) -> tuple[Tensor, Tensor]:
        joint = "_" if name.endswith("in_proj") else "."
        return tensor(f"{name}{joint}weight"), tensor(f"{name}{joint}bias")

    words, positions = tensor("token_embedding.weight"), tensor("positional_embedding")
    # CLIP's vocabulary ends with the tokens of begin and end; SD 2 fills up with token 0.
    tokens = [len(words) - 2, len(words) - 1] + [0] * (len(positions) - 2)
    blocks = 1 + max(
        (int(n) for name in state for n in re.findall(r"^transformer\.resblocks\.(\d+)\.", name)), default=0
    )
    try:
        x = words[tokens] + positions
        for i in range(blocks - skip_last):
            x = _block(x, [pair(f"transformer.resblocks.{i}.{part}") for part in _PARTS])
        return F.layer_norm(x, x.shape[-1:], *pair("ln_final"))[None], unused
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError("the tensors of the text encoder do not fit each other") from error


def _block(x: Tensor, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """One pre-norm transformer block over tokens x (length, D)."""
    norm1, qkv, out, norm2, widen, narrow = parts
    length, width = x.shape
    split = F.linear(F.layer_norm(x, (width,), *norm1), *qkv).view(length, 3, max(1, width // HEAD), -1)
    q, k, v = split.permute(1, 2, 0, 3)
    mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    x = x + F.linear(mixed.transpose(0, 1).reshape(length, width), *out)
    return x + F.linear(F.gelu(F.linear(F.layer_norm(x, (width,), *norm2), *widen)), *narrow)
