"""STAM, eqs. (10) and (11), against plain loops."""

import numpy as np
import pytest
import torch

from sdatc_models.stam import STAM


def stam_by_hand(w: dict[str, np.ndarray], clip: np.ndarray, heads: int) -> np.ndarray:
    """One clip (N, C, H, W)."""
    n, c, height, width = clip.shape
    padded = np.pad(clip, [(1, 1), (0, 0), (1, 1), (1, 1)])
    mixed = np.zeros_like(clip)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                patch = padded[i : i + 3, :, y : y + 3, x : x + 3].transpose(1, 0, 2, 3)
                mixed[i, :, y, x] = np.tensordot(w["conv3d.weight"], patch, 4) + w["conv3d.bias"]
    z = w["alpha_t"] * mixed + (1 - w["alpha_t"]) * clip
    attended = np.zeros_like(z)
    for y in range(height):
        for x in range(width):
            tokens = z[:, :, y, x]
            centred = tokens - tokens.mean(1, keepdims=True)
            normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
            normal = normal * w["attention.norm.weight"] + w["attention.norm.bias"]
            q, k, v = np.split(normal @ w["attention.qkv.weight"].T + w["attention.qkv.bias"], 3, axis=1)
            parts = []
            for head in np.split(np.arange(c), heads):
                weight = np.exp(q[:, head] @ k[:, head].T / len(head) ** 0.5)
                parts.append(weight / weight.sum(1, keepdims=True) @ v[:, head])
            joined = np.concatenate(parts, 1)
            attended[:, :, y, x] = joined @ w["attention.project.weight"].T + w["attention.project.bias"]
    return w["beta_t"] * attended + (1 - w["beta_t"]) * z


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_both_blends_follow_the_equations(frames: int) -> None:
    torch.manual_seed(frames)
    module = STAM(4, heads=2)
    torch.nn.init.normal_(module.alpha_t)
    torch.nn.init.normal_(module.beta_t)
    z = torch.randn(2 * frames, 4, 3, 4)
    w = {name: value.detach().double().numpy() for name, value in module.named_parameters()}
    clips = z.double().numpy().reshape(2, frames, 4, 3, 4)
    expected = np.concatenate([stam_by_hand(w, clip, heads=2) for clip in clips])
    torch.testing.assert_close(module(z, frames).detach().double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_new_module_is_exactly_the_identity() -> None:
    z = torch.randn(10, 8, 6, 7)
    assert torch.equal(STAM(8, heads=2)(z, 5), z)


def test_the_two_blends_are_separate() -> None:
    """alpha alone mixes neighbouring pixels, beta alone does not."""
    torch.manual_seed(0)
    module = STAM(4, heads=1)
    z = torch.randn(3, 4, 6, 6)
    touched = z.clone()
    touched[:, :, 2, 2] += torch.randn(3, 4)

    def spread() -> int:
        return int(((module(touched, 3) - module(z, 3)).abs().sum((0, 1)) > 1e-6).sum())

    torch.nn.init.ones_(module.beta_t)
    assert spread() == 1
    torch.nn.init.ones_(module.alpha_t)
    assert spread() == 9
