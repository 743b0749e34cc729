"""PCAM, eqs. (7) and (8), against NumPy."""

from math import erf

import numpy as np
import pytest
import torch

from sdatc_models.config import PCAMConfig, PromptKind
from sdatc_models.pcam import PCAM, TransformerBlock, unit

KINDS: list[PromptKind] = ["none", "prompt", "softmax", "pcam"]


def numpy_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in module.named_parameters()}


def conv3x3(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(C, H, W) with zero padding; weight (O, C, 3, 3), or (C, 1, 3, 3) for a depthwise convolution."""
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1)])
    out = np.zeros((weight.shape[0], *x.shape[1:]))
    for y in range(x.shape[1]):
        for x_ in range(x.shape[2]):
            patch = padded[:, y : y + 3, x_ : x_ + 3]
            same = weight.shape[1] == 1
            out[:, y, x_] = (patch * weight[:, 0]).sum((1, 2)) if same else np.tensordot(weight, patch, 3)
    return out + bias[:, None, None]


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel centres, edges repeated."""

    def taps(size: int, out: int) -> list[tuple[int, int, float]]:
        found = []
        for i in range(out):
            at = max((i + 0.5) * size / out - 0.5, 0)
            low = min(int(at), size - 1)
            found.append((low, min(low + 1, size - 1), at - low))
        return found

    out = np.zeros((image.shape[0], height, width))
    for y, (y0, y1, fy) in enumerate(taps(image.shape[1], height)):
        for x, (x0, x1, fx) in enumerate(taps(image.shape[2], width)):
            top = image[:, y0, x0] * (1 - fx) + image[:, y0, x1] * fx
            bottom = image[:, y1, x0] * (1 - fx) + image[:, y1, x1] * fx
            out[:, y, x] = top * (1 - fy) + bottom * fy
    return out


def weights_by_hand(kind: PromptKind, w: dict[str, np.ndarray], z: np.ndarray) -> np.ndarray:
    if kind == "prompt":
        return w["weigh.weight"] @ z.mean((1, 2)) + w["weigh.bias"]
    v = conv3x3(z, w["estimate.weight"], w["estimate.bias"]).mean((1, 2))
    return np.exp(v) / np.exp(v).sum() if kind == "softmax" else v


@pytest.mark.parametrize("kind", ["prompt", "softmax", "pcam"])
def test_prompt_follows_equation_7(kind: PromptKind) -> None:
    torch.manual_seed(1)
    module = PCAM(6, PCAMConfig(kind=kind, length=5, size=4, heads=3))
    z = torch.randn(2, 6, 7, 9)
    for i in range(2):
        w, feature = numpy_of(module), z[i].double().numpy()
        v = weights_by_hand(kind, w, feature)
        torch.testing.assert_close(module.prompt_weights(z)[i].detach().numpy(), v.astype(np.float32))
        mixed = sum(v[k] * w["prompts"][k] for k in range(5))
        p_c = conv3x3(bilinear(np.asarray(mixed), 7, 9), w["conv_prompt.weight"], w["conv_prompt.bias"])
        torch.testing.assert_close(module.prompt(z)[i].detach().double(), torch.from_numpy(p_c), rtol=1e-4, atol=1e-5)


def test_only_softmax_weights_add_up_to_one() -> None:
    torch.manual_seed(1)
    z = torch.randn(3, 6, 8, 8) * 4
    sums = {kind: PCAM(6, PCAMConfig(kind=kind, heads=3)).prompt_weights(z).sum(1) for kind in KINDS[1:]}
    torch.testing.assert_close(sums["softmax"], torch.ones(3))
    assert not torch.allclose(sums["pcam"], torch.ones(3))


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    return centred / np.sqrt((centred**2).mean(0) + 1e-5) * weight[:, None, None] + bias[:, None, None]


def conv1x1(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return np.einsum("oc,chw->ohw", weight[:, :, 0, 0], x) + bias[:, None, None]


def transformer_by_hand(w: dict[str, np.ndarray], x: np.ndarray, heads: int) -> np.ndarray:
    """Channel attention and gated feed-forward of one (C, H, W) feature."""
    channels, pixels = x.shape[0], x[0].size
    y = layer_norm(x, w["norm1.norm.weight"], w["norm1.norm.bias"])
    y = conv1x1(y, w["attention.qkv.weight"], w["attention.qkv.bias"])
    y = conv3x3(y, w["attention.local.weight"], w["attention.local.bias"])
    q, k, v = (part.reshape(heads, channels // heads, pixels) for part in np.split(y, 3))
    out = []
    for head in range(heads):
        rows = []
        for a in range(channels // heads):
            cosines = [
                q[head, a] @ k[head, b] / np.linalg.norm(q[head, a]) / np.linalg.norm(k[head, b])
                for b in range(channels // heads)
            ]
            weight = np.exp(np.array(cosines) * w["attention.temperature"][head, 0, 0])
            rows.append(weight / weight.sum() @ v[head])
        out += rows
    x = x + conv1x1(np.stack(out).reshape(x.shape), w["attention.project.weight"], w["attention.project.bias"])
    y = layer_norm(x, w["norm2.norm.weight"], w["norm2.norm.bias"])
    y = conv1x1(y, w["feed_forward.inner.weight"], w["feed_forward.inner.bias"])
    gate, value = np.split(conv3x3(y, w["feed_forward.local.weight"], w["feed_forward.local.bias"]), 2)
    gelu = gate * 0.5 * (1 + np.vectorize(erf)(gate / 2**0.5))
    return x + conv1x1(gelu * value, w["feed_forward.project.weight"], w["feed_forward.project.bias"])


def randomise(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)


def test_trained_module_follows_equation_8() -> None:
    torch.manual_seed(2)
    module = PCAM(4, PCAMConfig(length=3, size=4, heads=2, expansion=1.5))
    randomise(module)
    z = torch.randn(1, 4, 6, 5)
    joined = torch.cat([z, module.prompt(z)], 1)[0].detach().double().numpy()
    mixed = transformer_by_hand(numpy_of(module.transformer), joined, heads=2)
    w = numpy_of(module)
    expected = conv3x3(mixed, w["conv_out.weight"], w["conv_out.bias"])
    torch.testing.assert_close(module(z)[0].detach().double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 5, 7), (2, 16, 32, 32), (5, 64, 16, 24)])
def test_new_module_is_exactly_the_identity(kind: PromptKind, shape: tuple[int, int, int, int]) -> None:
    torch.manual_seed(3)
    z = torch.randn(shape) * 3
    assert torch.equal(PCAM(shape[1], PCAMConfig(kind=kind, size=4))(z), z)


def test_new_transformer_block_is_exactly_the_identity() -> None:
    x = torch.randn(2, 12, 9, 9)
    assert torch.equal(TransformerBlock(12, 2, 2.0)(x), x)


def test_a_channel_that_is_nothing_stays_nothing_in_half_precision() -> None:
    assert (unit(torch.zeros(1, 2, 4, 5, dtype=torch.float16)) == 0).all()
