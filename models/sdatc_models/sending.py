"""Tensors on their way to a device."""

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`. A tensor of the host goes to a card without waiting for what the card still has to do, so that
    it does not run out of work."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
