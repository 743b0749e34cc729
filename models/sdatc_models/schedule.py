"""Forward and reverse diffusion, eqs. (1)-(4), with respaced ancestral steps.

With `shift` (ours, after ResShift, Yue et al., 2023) the mean of Z_t also moves from Z_0 to C_HR as t grows, so that a
reverse process that starts from C_HR at an intermediate t starts where training left off:

    Z_t = sqrt(abar_t) (Z_0 + eta_t (C_HR - Z_0)) + sqrt(1 - abar_t) eps,  eta_t = (1 - abar_t) / (1 - abar_start)

Z_t - sqrt(abar_t) eta_t (C_HR - Z_0) is then a chain of eqs. (1)-(4), and is stepped as one.
"""

import torch
from torch import Tensor

from .config import ScheduleConfig


def without_terminal_signal(alpha_bar: Tensor) -> Tensor:
    """abar moved and stretched, in its square root, so that the last one is zero and the first one stays (Lin et al.,
    2024, algorithm 1)."""
    roots = alpha_bar.sqrt()
    return ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2


class Schedule:
    """Noise levels of T training steps. Indices t run from 0 (least noise) to T - 1. All arithmetic in float64/32."""

    def __init__(self, config: ScheduleConfig):
        self.config = config
        roots = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, config.steps, dtype=torch.float64)
        self.alpha_bar = torch.cumprod(1 - roots**2, 0)
        if config.zero_snr:
            self.alpha_bar = without_terminal_signal(self.alpha_bar)
        rising = (1 - self.alpha_bar) / (1 - self.alpha_bar[config.start - 1])
        self.eta = rising if config.shift else torch.zeros_like(rising)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def timesteps(self, steps: int) -> list[int]:
        """`steps` indices evenly spaced from `start` - 1 down to 0 (fewer if `start` is smaller)."""
        start = self.config.start
        spaced = torch.linspace(start - 1, 0, min(steps, start), dtype=torch.float64)
        return [int(t) for t in spaced.round().long()]

    def q_sample(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t of eq. (2): sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps. t (N,) indexes the first axis of x_0."""
        abar = self.at(t, x_0)
        return abar.sqrt() * x_0 + (1 - abar).sqrt() * noise

    def at(self, t: Tensor, like: Tensor) -> Tensor:
        """abar_t shaped to multiply `like`."""
        return self._on(like.device)[0][t].view(-1, *[1] * (like.ndim - 1))

    def offset(self, x_0: Tensor, c_hr: Tensor, t: Tensor) -> Tensor:
        """sqrt(abar_t) eta_t (C_HR - x_0): what the shift adds to Z_t; zero without `shift`. t (N,)."""
        eta = self._on(x_0.device)[1][t].view(-1, *[1] * (x_0.ndim - 1))
        return self.at(t, x_0).sqrt() * eta * (c_hr - x_0)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """abar and eta, float32, on a device; brought there once, for a card would have to wait for it every time."""
        if device not in self._tables:
            with torch.inference_mode(False):
                self._tables[device] = self.alpha_bar.to(device, torch.float32), self.eta.to(device, torch.float32)
        return self._tables[device]

    def x_0_from_epsilon(self, z_t: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """Solve eq. (2) for x_0."""
        abar = self.at(t, z_t)
        return (z_t - (1 - abar).sqrt() * epsilon) / abar.sqrt()

    def velocity(self, x_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (Salimans and Ho, 2022)."""
        abar = self.at(t, x_0)
        return abar.sqrt() * noise - (1 - abar).sqrt() * x_0

    def x_0_from_velocity(self, z_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """x_0 of eq. (2) and `velocity`; defined where no signal is left, too."""
        abar = self.at(t, z_t)
        return abar.sqrt() * z_t - (1 - abar).sqrt() * v

    def posterior(self, z_t: Tensor, x_0: Tensor, t: int, t_next: int | None) -> tuple[Tensor, float]:
        """Mean and variance sigma_t^2 of q(z_{t_next} | z_t, x_0), eq. (4), for a respaced chain.

        `t_next` is the following (smaller) index of the chain, None after the last step: then the mean is x_0 itself.
        """
        abar = float(self.alpha_bar[t])
        abar_next = float(self.alpha_bar[t_next]) if t_next is not None else 1.0
        alpha = abar / abar_next
        mean = (abar_next**0.5 * (1 - alpha) * x_0 + alpha**0.5 * (1 - abar_next) * z_t) / (1 - abar)
        return mean, (1 - alpha) * (1 - abar_next) / (1 - abar)
