"""The table of measured and declared orders; see tools/sampler_orders.

Deterministic samplers: slope of the error against the exact flow (``exact.measure_order``).
Stochastic ones: slope of the error of the covariance (``exact.moments``).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.diffusion import exact
from vasa_jax.diffusion.samplers import SAMPLERS, Step
from vasa_jax.diffusion.schedules import SCHEDULES, Schedule

GAUSSIAN, MIXTURE = exact.Gaussian(), exact.Mixture()


def covariance_order(step: Step, schedule: Schedule) -> tuple[float, list[float]]:
    counts, errors = (32, 64, 128), []
    with jax.enable_x64(True):
        for count in counts:
            times = exact.uneven_grid(schedule, count, 0.9, 0.1)
            a, s = schedule.alpha(times[-1]), schedule.sigma(times[-1])
            true = a * a * jnp.asarray(GAUSSIAN.covariance) + s * s * jnp.eye(2)
            got = exact.moments(step, schedule, GAUSSIAN, times)[1]
            errors.append(float(jnp.abs(got - true).max()))
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0]), errors


def main() -> None:
    print("| sampler | calls a step | declared | cosine, Gaussian | cosine, mixture "
          "| linear, mixture | error at 32 steps |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, step in SAMPLERS.items():
        cosine, linear = SCHEDULES["cosine"](), SCHEDULES["linear"]()
        if step.order:
            measured = [
                exact.measure_order(step, schedule, data)
                for schedule, data in ((cosine, GAUSSIAN), (cosine, MIXTURE), (linear, MIXTURE))
            ]
            slopes = [f"{slope:.2f}" for slope, _ in measured]
            first = measured[1][1][0]
        else:
            (slope, errors), (other, _) = (covariance_order(step, s) for s in (cosine, linear))
            slopes = [f"{slope:.2f} (covariance)", "", f"{other:.2f} (covariance, Gaussian)"]
            first = errors[0]
        declared = str(step.order) if step.order else "stochastic"
        print(f"| `{name}` | {step.evaluations} | {declared} | {' | '.join(slopes)} "
              f"| {first:.1e} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
