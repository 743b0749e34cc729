"""Forward and reverse diffusion, eqs. (1)-(4), against NumPy in float64."""

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from hypothesis import given
from hypothesis import strategies as st

from sdatc_models.config import ScheduleConfig
from sdatc_models.schedule import Schedule


def alpha_bar() -> np.ndarray:
    """Stable Diffusion's: the root of beta grows linearly from 0.00085 to 0.012 over 1000 steps."""
    product, found = 1.0, []
    for i in range(1000):
        beta = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / 999) ** 2
        product *= 1 - beta
        found.append(product)
    return np.array(found)


ABAR = alpha_bar()
SCHEDULE = Schedule(ScheduleConfig())


def test_noise_levels_are_those_of_stable_diffusion() -> None:
    np.testing.assert_allclose(SCHEDULE.alpha_bar.numpy(), ABAR, rtol=1e-10)


def test_without_terminal_signal_as_diffusers_has_it() -> None:
    schedule = Schedule(ScheduleConfig(zero_snr=True))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0)
    torch.testing.assert_close(schedule.alpha_bar, expected)
    assert schedule.alpha_bar[-1] == 0 and schedule.alpha_bar[0] == pytest.approx(ABAR[0])


def test_v_is_the_derivative_of_the_noising_and_gives_x_0_back() -> None:
    """With z = cos(p) x_0 + sin(p) eps, v = dz / dp (Salimans and Ho, 2022)."""
    torch.manual_seed(0)
    schedule = Schedule(ScheduleConfig(zero_snr=True))
    x_0, noise, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0, 417, 999])
    v = schedule.velocity(x_0, t, noise)
    angle = torch.arccos(schedule.alpha_bar[t].sqrt()).view(3, 1, 1, 1)
    ahead, behind = (torch.cos(angle + d) * x_0 + torch.sin(angle + d) * noise for d in (1e-4, -1e-4))
    torch.testing.assert_close(v.double(), (ahead - behind) / 2e-4, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(schedule.x_0_from_velocity(schedule.q_sample(x_0, t, noise), t, v), x_0)


def test_one_step_after_another_gives_the_closed_form() -> None:
    """Eq. (1) applied t times has the mean and variance of eq. (3)."""
    mean, variance = 1.0, 0.0
    for t in range(1000):
        alpha = SCHEDULE.alpha_bar[t].item() / (SCHEDULE.alpha_bar[t - 1].item() if t else 1.0)
        mean, variance = alpha**0.5 * mean, alpha * variance + 1 - alpha
        assert mean == pytest.approx(ABAR[t] ** 0.5, rel=1e-9)
        assert variance == pytest.approx(1 - ABAR[t], rel=1e-9)


def test_q_sample_follows_equation_2_for_each_example_of_a_batch() -> None:
    torch.manual_seed(0)
    x_0, noise, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0, 417, 999])
    z = SCHEDULE.q_sample(x_0, t, noise)
    for i in range(3):
        a = ABAR[t[i]]
        expected = a**0.5 * x_0[i].double().numpy() + (1 - a) ** 0.5 * noise[i].double().numpy()
        np.testing.assert_allclose(z[i].numpy(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(SCHEDULE.x_0_from_epsilon(z, t, noise), x_0, rtol=1e-3, atol=1e-4)


@given(st.integers(1, 999), st.integers(0, 998))
def test_posterior_is_the_product_of_two_gaussians(t: int, following: int) -> None:
    """Eq. (4) by Bayes: q(z_s | x_0) times q(z_t | z_s), for any s < t of a respaced chain."""
    s = min(following, t - 1)
    alpha = ABAR[t] / ABAR[s]
    precision = 1 / (1 - ABAR[s]) + alpha / (1 - alpha)
    x_0, z_t = torch.tensor([[0.7, -1.2]]), torch.tensor([[0.3, 2.0]])
    weighted = ABAR[s] ** 0.5 / (1 - ABAR[s]) * x_0 + alpha**0.5 / (1 - alpha) * z_t
    mean, variance = SCHEDULE.posterior(z_t, x_0, t, s)
    assert variance == pytest.approx(1 / precision, rel=1e-6)
    torch.testing.assert_close(mean, (weighted / precision).float(), rtol=1e-4, atol=1e-5)


def test_last_step_gives_x_0_without_noise() -> None:
    x_0 = torch.randn(1, 3)
    mean, variance = SCHEDULE.posterior(torch.randn(1, 3), x_0, 0, None)
    assert variance == 0
    torch.testing.assert_close(mean, x_0)


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_timesteps_are_respaced_from_the_start_to_zero(steps: int, start: int) -> None:
    t = Schedule(ScheduleConfig(start=start)).timesteps(steps)
    assert len(t) == min(steps, start)
    assert t[0] == start - 1
    assert t[-1] == 0 or steps == 1
    gaps = -np.diff(t)
    assert len(gaps) == 0 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_shift_moves_the_mean_from_z_0_to_the_condition() -> None:
    """Z_t = sqrt(abar) (Z_0 + eta (C - Z_0)) + sqrt(1 - abar) eps, with eta growing to 1 at the start."""
    schedule = Schedule(ScheduleConfig(start=200, shift=True))
    x_0, c, noise = (torch.randn(1, 5) for _ in range(3))
    for t in (0, 50, 199):
        when = torch.tensor([t])
        eta = (1 - ABAR[t]) / (1 - ABAR[199])
        expected = ABAR[t] ** 0.5 * (x_0 + eta * (c - x_0)) + (1 - ABAR[t]) ** 0.5 * noise
        z = schedule.q_sample(x_0, when, noise) + schedule.offset(x_0, c, when)
        torch.testing.assert_close(z, expected.float(), rtol=1e-5, atol=1e-6)
    assert schedule.eta[199] == 1
    assert torch.equal(SCHEDULE.offset(x_0, c, torch.tensor([500])), torch.zeros(1, 5))
