"""DCM, eq. (5): window attention against attention over all pixels with a mask, and the bicubic start."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sdatc_models.config import DCMConfig
from sdatc_models.dcm import (
    DCM,
    Modulation,
    SwinLayer,
    WindowAttention,
    quantiser_code,
    shift_mask,
    window_merge,
    window_partition,
)

SMALL = DCMConfig(dim=8, layers=2, heads=2, blocks=1, up_dim=4)


def full_attention(layer: WindowAttention, x: np.ndarray, shift: int) -> np.ndarray:
    """Attention of every pixel of (H, W, C) over all pixels; those outside its window weigh nothing.

    Windows start at multiples of the window's size, moved down and right by `shift`; what is left over at the edges
    are smaller windows, so nothing wraps round.
    """
    state = {name: value.detach().double().numpy() for name, value in layer.named_parameters()}
    height, width, channels = x.shape
    window, heads = layer.window, layer.heads
    size = channels // heads
    at = [(y, x) for y in range(height) for x in range(width)]
    tokens = x.reshape(-1, channels).astype(np.float64)
    q, k, v = np.split(tokens @ state["qkv.weight"].T + state["qkv.bias"], 3, axis=1)
    out = np.zeros_like(tokens)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        score = q[:, part] @ k[:, part].T / size**0.5
        for i, (y, x_) in enumerate(at):
            for j, (v_, u) in enumerate(at):
                same = (y - shift) // window == (v_ - shift) // window and (x_ - shift) // window == (
                    u - shift
                ) // window
                row = (y - v_ + window - 1) * (2 * window - 1) + x_ - u + window - 1
                score[i, j] = score[i, j] + state["relative_bias"][row, head] if same else -np.inf
        weight = np.exp(score - score.max(1, keepdims=True))
        out[:, part] = weight / weight.sum(1, keepdims=True) @ v[:, part]
    return (out @ state["proj.weight"].T + state["proj.bias"]).reshape(x.shape)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(8, 12), (4, 4)])
def test_window_attention_equals_masked_attention_over_the_whole_frame(shift: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layer = SwinLayer(8, heads=2, window=4, shift=shift, mlp_ratio=2.0)
    torch.nn.init.normal_(layer.attention.relative_bias)
    x = torch.randn(1, *size, 8)
    mask = shift_mask(*size, 4, 2, x.device)
    attended = x[0] + torch.from_numpy(full_attention(layer.attention, layer.norm1(x)[0].detach().numpy(), shift))
    expected = attended.float() + layer.mlp(layer.norm2(attended.float()))
    torch.testing.assert_close(layer(x, mask)[0], expected, rtol=1e-4, atol=1e-5)


def test_windows_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    layer = SwinLayer(8, heads=2, window=4, shift=2, mlp_ratio=2.0)
    x = torch.randn(3, 8, 12, 8)
    mask = shift_mask(8, 12, 4, 2, x.device)
    alone = torch.cat([layer(x[i : i + 1], mask) for i in range(3)])
    torch.testing.assert_close(layer(x, mask), alone, rtol=1e-5, atol=1e-6)


def test_partition_and_merge_are_inverse() -> None:
    x = torch.arange(2 * 8 * 12 * 3).view(2, 8, 12, 3)
    windows = window_partition(x, 4)
    assert windows.shape == (2 * 2 * 3, 16, 3)
    assert torch.equal(windows[1], x[0, :4, 4:8].reshape(16, 3))
    assert torch.equal(window_merge(windows, 4, 8, 12), x)


@pytest.mark.parametrize("size", [(16, 16), (17, 23)])
def test_untrained_dcm_is_exactly_bicubic(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    expected = F.interpolate(x, scale_factor=4, mode="bicubic", align_corners=False)
    assert torch.equal(DCM(SMALL)(x), expected)
    assert torch.equal(DCM(DCMConfig(dim=8, layers=2, heads=2, enabled=False))(x), expected)


def told() -> DCM:
    """A network that is told the quantiser, nothing in it at zero."""
    torch.manual_seed(0)
    dcm = DCM(replace(SMALL, quantiser=True)).requires_grad_(False)
    for parameter in dcm.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return dcm


def test_being_told_the_quantiser_changes_nothing_at_first() -> None:
    torch.manual_seed(0)
    told, plain = (DCM(replace(SMALL, quantiser=on)).requires_grad_(False) for on in (True, False))
    torch.nn.init.normal_(plain.conv_last.weight, std=0.1)
    told.load_state_dict(plain.state_dict(), strict=False)
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(told(x, torch.tensor([12.0, 40.0])), plain(x))


def test_each_frame_follows_its_own_quantiser_and_one_that_is_not_known_changes_nothing() -> None:
    dcm, x = told(), torch.rand(1, 3, 16, 16)
    low, high, unknown = dcm(x.expand(3, -1, -1, -1), torch.tensor([15.0, 35.0, torch.nan])).split(1)
    for alone, quantiser in ((low, 15.0), (high, 35.0)):
        torch.testing.assert_close(dcm(x, torch.tensor([quantiser])), alone)
    torch.testing.assert_close(dcm(x), unknown)
    apart = [(a - b).abs().mean() for a, b in ((low, high), (low, unknown), (high, unknown))]
    assert min(apart) > 1e-3


def test_a_modulation_is_an_affine_map_by_a_polynomial_of_the_quantiser() -> None:
    torch.manual_seed(0)
    layer = Modulation(2)
    torch.nn.init.normal_(layer.terms.weight)
    x, quantiser = torch.randn(1, 2, 3, 3), 40.0
    u = (quantiser - 28) / 12
    scale, shift = np.split(layer.terms.weight.detach().numpy() @ np.array([1, u, u * u]), 2)
    expected = x.numpy() * (1 + scale)[None, :, None, None] + shift[None, :, None, None]
    np.testing.assert_allclose(layer(x, quantiser_code(torch.tensor([quantiser]))).detach(), expected, atol=1e-5)
    assert torch.equal(quantiser_code(torch.tensor([51.0])), quantiser_code(torch.tensor([45.0]))), "never trained on"


def test_mirror_images_give_mirror_images() -> None:
    """The mean over both does not favour a side, where the network alone does."""
    torch.manual_seed(0)
    dcm = DCM(replace(SMALL, mirror=True)).requires_grad_(False)
    torch.nn.init.normal_(dcm.conv_last.weight, std=0.1)
    x = torch.rand(2, 3, 16, 24)
    torch.testing.assert_close(dcm(x.flip(-1)).flip(-1), dcm(x))
    plain, mirrored = dcm(x, mirror=False), dcm(x.flip(-1), mirror=False).flip(-1)
    assert not torch.allclose(mirrored, plain, atol=1e-3)
    torch.testing.assert_close(dcm(x), (plain + mirrored) / 2)


def test_padding_does_not_move_the_picture() -> None:
    """A frame whose size is no multiple of the window is treated like the corner of a larger one, away from the cut."""
    torch.manual_seed(0)
    dcm = DCM(SMALL)
    torch.nn.init.normal_(dcm.conv_last.weight, std=0.1)
    x = torch.rand(1, 3, 24, 24)
    whole, corner = dcm(x), dcm(x[..., :21, :22])
    assert corner.shape == (1, 3, 84, 88)
    torch.testing.assert_close(corner[..., :16, :16], whole[..., :16, :16])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_gets_a_bias_that_the_fast_kernels_of_cards_take(dtype, monkeypatch) -> None:
    """One whose last axis lies closely in memory; any other makes PyTorch take a slow one, on a card alone."""
    strides, attend = [], F.scaled_dot_product_attention

    def watch(q, k, v, attn_mask):
        strides.append(attn_mask.stride(-1))
        return attend(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", watch)
    DCM(SMALL).to(dtype)(torch.rand(1, 3, 16, 24).to(dtype))
    assert strides == [1] * SMALL.layers * SMALL.blocks
