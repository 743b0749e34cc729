"""Attention over more items than a card takes at once."""

import pytest
import torch
import torch.nn.functional as F

from sdatc_models.layers import AT_ONCE, attention


@pytest.mark.parametrize("biases", [None, 1, 2 * AT_ONCE + 7])
def test_attention_in_parts_has_the_bits_of_the_whole(biases: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2 * AT_ONCE + 7, 1, 2, 2, generator=generator)
    bias = None if biases is None else torch.randn(biases, 1, 2, 2, generator=generator)
    assert torch.equal(attention(q, k, v, bias), F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
