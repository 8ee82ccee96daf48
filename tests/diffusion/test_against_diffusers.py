"""The same steps as the schedulers of ``diffusers``, where it has the method (extra ``oracles``).

Every scheduler is given our noise levels and the exact denoiser of a mixture as its network, so all
that is compared is the step. Its schedulers are float32 inside here and there, hence 3e-6.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.diffusion import exact, samplers, times
from vasa_jax.diffusion.schedules import Cosine, Linear

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.torch

COSINE = Cosine(log_snr_max=9.0, log_snr_min=-9.0)
MIXTURE = exact.Mixture()
X = np.array([[0.4, -1.3, 0.1, 2.0]], np.float32)  # UniPC and DDPM want a second axis


@dataclasses.dataclass(frozen=True)
class Exploding:
    """``alpha = 1, sigma = t`` but for its ends: the process of Karras et al. 2022."""

    low: float = 0.02
    high: float = 20.0

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return self.low + (self.high - self.low) * t

    def log_snr(self, t):
        return -2.0 * jnp.log(self.sigma(t))

    def time(self, log_snr):
        return (jnp.exp(-0.5 * log_snr) - self.low) / (self.high - self.low)


def grid(ends_in_data: bool) -> np.ndarray:
    """Uneven times; the interior ones test the method, the others its last step too."""
    inner = np.array([0.95, 0.9, 0.7, 0.62, 0.4, 0.35, 0.2, 0.1], np.float32)
    return np.append(inner, np.float32(0.0)) if ends_in_data else inner


def ours(step: Any, schedule: Any, t: np.ndarray, noise: np.ndarray, x: np.ndarray = X):
    """Every state on the way ``(len(t), 1, 4)``."""
    return samplers.trajectory(
        step, schedule, lambda x, t: MIXTURE.denoise(schedule, x, t), jnp.asarray(x),
        jnp.asarray(t), lambda i: jnp.asarray(noise)[i],
    )  # fmt: skip


def denoise(schedule: Any, x: Any, t: float) -> Any:
    return torch.tensor(
        np.array(MIXTURE.denoise(schedule, jnp.asarray(x.numpy(), jnp.float32), jnp.float32(t)))
    )


def levels(schedule: Any, t: np.ndarray) -> Any:
    """``sigma / alpha``."""
    return torch.tensor(np.exp(-0.5 * np.array(schedule.log_snr(jnp.asarray(t)))))


def normal(t: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(t) - 1, *X.shape)).astype(np.float32)


MULTISTEP = {
    "dpmpp_2m": (samplers.DpmPP2M(), "DPMSolverMultistepScheduler",
                 {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}),
    "dpmpp_2m_sde": (samplers.DpmPP2M(eta=1.0), "DPMSolverMultistepScheduler",
                     {"algorithm_type": "sde-dpmsolver++", "solver_order": 2,
                      "solver_type": "midpoint"}),
    "unipc": (samplers.UniPC(), "UniPCMultistepScheduler",
              {"solver_type": "bh2", "solver_order": 2}),
    "unipc of three points": (samplers.UniPC(points=3), "UniPCMultistepScheduler",
                              {"solver_type": "bh2", "solver_order": 3}),
}  # fmt: skip


@pytest.mark.parametrize("ends_in_data", [False, True])
@pytest.mark.parametrize("name", MULTISTEP)
def test_multistep_samplers(name, ends_in_data):
    step, scheduler_name, options = MULTISTEP[name]
    if ends_in_data and name == "unipc of three points":
        pytest.skip("diffusers lowers the order over the last two steps, we over the last one")
    t = grid(ends_in_data)
    noise = normal(t)
    expected = ours(step, COSINE, t, noise)
    scheduler = getattr(diffusers, scheduler_name)(
        prediction_type="sample", lower_order_final=ends_in_data, final_sigmas_type="sigma_min",
        **options,
    )  # fmt: skip
    scheduler.set_timesteps(len(t) - 1)
    scheduler.sigmas = levels(COSINE, t)
    x = torch.tensor(X)
    for i, timestep in enumerate(scheduler.timesteps):
        extra = {"variance_noise": torch.tensor(noise[i])} if "dpmpp" in name else {}
        x = scheduler.step(denoise(COSINE, x, t[i]), timestep, x, **extra).prev_sample
        np.testing.assert_allclose(x.numpy(), expected[i + 1], atol=3e-6, err_msg=str(i))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta):
    t = grid(True)
    noise = normal(t)
    expected = ours(samplers.Ddim(eta=eta), COSINE, t, noise)
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=len(t) - 1, prediction_type="sample", clip_sample=False,
        timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(len(t) - 1)
    signal = torch.tensor(np.array(jnp.square(COSINE.alpha(jnp.asarray(t)))))
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = signal[:-1].flip(0), signal[-1]
    x = torch.tensor(X)
    for i, timestep in enumerate(scheduler.timesteps):
        x = scheduler.step(
            denoise(COSINE, x, t[i]), int(timestep), x, eta=eta,
            variance_noise=torch.tensor(noise[i]) if eta else None,
        ).prev_sample  # fmt: skip
        np.testing.assert_allclose(x.numpy(), expected[i + 1], atol=3e-6, err_msg=str(i))


def test_ancestral_is_ddpm():
    t = grid(False)
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=len(t), prediction_type="sample", clip_sample=False,
        variance_type="fixed_small", timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(len(t))
    scheduler.alphas_cumprod = torch.tensor(
        np.array(jnp.square(COSINE.alpha(jnp.asarray(t))))
    ).flip(0)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(X.shape, generator=generator) for _ in t[1:]]
    expected = ours(samplers.SAMPLERS["ancestral"], COSINE, t, torch.stack(drawn).numpy())
    generator.manual_seed(0)
    x = torch.tensor(X)
    for i, timestep in enumerate(scheduler.timesteps[:-1]):
        x = scheduler.step(
            denoise(COSINE, x, t[i]), int(timestep), x, generator=generator
        ).prev_sample
        np.testing.assert_allclose(x.numpy(), expected[i + 1], atol=3e-6, err_msg=str(i))


@pytest.mark.parametrize("name, scheduler_name", [
    ("euler", "EulerDiscreteScheduler"), ("heun", "HeunDiscreteScheduler"),
])  # fmt: skip
def test_euler_and_heun_of_karras(name, scheduler_name):
    schedule, t = Exploding(), np.asarray(times.karras(Exploding(), 8))[:-1]
    start = X * np.float32(20.0)
    expected = ours(samplers.SAMPLERS[name], schedule, t, normal(t), start)
    scheduler = getattr(diffusers, scheduler_name)(prediction_type="epsilon")
    scheduler.set_timesteps(len(t) - 1)
    sigma = torch.tensor(np.array(schedule.sigma(jnp.asarray(t))))
    each = SAMPLER_CALLS[name]
    # Heun's scheduler takes its two calls as two steps: s0 s1 s1 s2 s2 ...
    scheduler.sigmas = torch.cat([sigma[:1], sigma[1:].repeat_interleave(each)])
    scheduler.timesteps = torch.arange(len(scheduler.sigmas) - 1, 0, -1).float()
    x, i = torch.tensor(start), 0
    for k, timestep in enumerate(scheduler.timesteps):
        scheduler.is_scale_input_called = True
        when = float(schedule.time(-2.0 * jnp.log(jnp.asarray(scheduler.sigmas[k].numpy()))))
        noise = (x - denoise(schedule, x, when)) / scheduler.sigmas[k]
        x = scheduler.step(noise, timestep, x).prev_sample
        if (k + 1) % each == 0:
            i += 1
            np.testing.assert_allclose(x.numpy(), expected[i], atol=1e-5, err_msg=str(i))
    assert i == len(t) - 1


@pytest.mark.parametrize("name, scheduler_name", [
    ("euler", "FlowMatchEulerDiscreteScheduler"), ("ddim", "FlowMatchEulerDiscreteScheduler"),
    ("heun", "FlowMatchHeunDiscreteScheduler"),
])  # fmt: skip
def test_flow_matching(name, scheduler_name):
    schedule, t = Linear(), grid(False)
    expected = ours(samplers.SAMPLERS[name], schedule, t, normal(t))
    scheduler = getattr(diffusers, scheduler_name)()
    scheduler.set_timesteps(len(t) - 1)
    sigma = torch.tensor(np.array(schedule.sigma(jnp.asarray(t))))
    each = SAMPLER_CALLS[name]
    scheduler.sigmas = torch.cat([sigma[:1], sigma[1:].repeat_interleave(each)])
    scheduler.timesteps = torch.arange(len(scheduler.sigmas) - 1, 0, -1).float()
    x, i = torch.tensor(X), 0
    for k, timestep in enumerate(scheduler.timesteps):
        level = scheduler.sigmas[k]
        when = float(schedule.time(2.0 * jnp.log((1 - level.item()) / level.item())))
        flow = (x - denoise(schedule, x, when)) / level  # eps - x0 = (x - x0) / sigma
        x = scheduler.step(flow, timestep, x).prev_sample
        if (k + 1) % each == 0:
            i += 1
            np.testing.assert_allclose(x.numpy(), expected[i], atol=3e-6, err_msg=str(i))
    assert i == len(t) - 1


SAMPLER_CALLS = {name: step.evaluations for name, step in samplers.SAMPLERS.items()}


def test_the_comparison_sees_a_wrong_coefficient():
    """Half as much of the last x0 as belongs there is far outside every tolerance above."""
    t = grid(False)

    @dataclasses.dataclass(frozen=True)
    class Wrong(samplers.DpmPP2M):
        def __call__(self, schedule, state, denoise, t, s, noise):
            x, (last_x0, last_h) = state.x, state.memory
            state = samplers.State(x, (0.5 * (last_x0 + denoise(x, t)), last_h))
            return super().__call__(schedule, state, denoise, t, s, noise)

    good, bad = (ours(step, COSINE, t, normal(t)) for step in (samplers.DpmPP2M(), Wrong()))
    assert float(jnp.abs(good[-1] - bad[-1]).max()) > 1e-2
