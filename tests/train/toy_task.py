"""Linear regression as a training task: small, and its answer is known from linear algebra."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig, descend, make_optimizer
from vasa_jax.train.state import TrainState

BATCH = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig:
    seed: int = 3
    noise: float = 0.0  # added inside the step from the step's key
    width: int = 2
    poison_step: int = -1  # this batch holds a nan
    optim: OptimConfig = OptimConfig(lr=0.1, steps=6, warmup=1, weight_decay=0.0, ema_decay=0.9)
    loop: LoopConfig = LoopConfig(log_every=1, picture_every=2, evaluate_every=2)
    pure: bool = False  # the task with all that is optional
    delay_s: float = 0.0  # for each batch, so that a test can interrupt

    def task(self) -> ToyTask:
        return PureToyTask(self) if self.pure else ToyTask(self)


class ToyTask:
    def __init__(self, cfg: ToyConfig):
        self.cfg = cfg
        self.tx = make_optimizer(cfg.optim)
        self.served: list[int] = []  # steps whose batches were made

    def init(self, key: jax.Array) -> TrainState:
        kernel = jax.random.normal(key, (4, self.cfg.width), jnp.float32)
        params = {"dense": {"kernel": kernel, "bias": jnp.zeros((self.cfg.width,), jnp.float32)}}
        return TrainState.create(params, self.tx, key)

    def update(self, state, batch, key, constants):
        noise = self.cfg.noise * jax.random.normal(key, batch["y"].shape, jnp.float32)

        def loss(params, batch):
            y = batch["x"] @ params["dense"]["kernel"] + params["dense"]["bias"][None]
            return jnp.mean(jnp.square(y + batch["noise"] - batch["y"])), {}

        return descend(self.cfg.optim, self.tx, loss, state, {**batch, "noise": noise})

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        step = start_step
        while True:
            rng = np.random.default_rng((self.cfg.seed, step))
            x = rng.normal(size=(BATCH, 4)).astype(np.float32)
            y = (x @ truth(self.cfg.width) + 0.5).astype(np.float32)
            if step == self.cfg.poison_step:
                y[0, 0] = np.nan
            self.served.append(step)
            yield {"x": x, "y": y}
            step += 1

    def pictures(self, state: TrainState, step: int) -> dict[str, np.ndarray]:
        return {"kernel": np.zeros((4, 6, 3), np.uint8)}

    def evaluate(self, state: TrainState) -> dict[str, jax.Array]:
        error = state.params["dense"]["kernel"] - truth(self.cfg.width)
        return {"kernel_error": jnp.max(jnp.abs(error))}

    def stats(self) -> dict[str, list[float]]:
        return {"mean": [0.5] * self.cfg.width}


class PureToyTask(ToyTask):
    """The same regression as a task for many devices; its bias comes from outside the state."""

    shared = ("bias",)

    def __init__(self, cfg: ToyConfig):
        super().__init__(cfg)
        self.batch_size = BATCH
        self.constants = {"one": np.ones((), np.float32)}

    def batches(self, start_step, rows=None):
        for batch in super().batches(start_step):
            if self.cfg.delay_s:
                time.sleep(self.cfg.delay_s)
            rows = rows or slice(None)
            # As long as the batch, so that only its name tells that it is no row.
            bias = np.full((BATCH,), 0.25, np.float32)
            yield {"x": batch["x"][rows], "y": batch["y"][rows], "bias": bias}

    def update(self, state, batch, key, constants):
        noise = self.cfg.noise * jax.random.normal(key, batch["y"].shape, jnp.float32)

        def loss(params, batch):
            y = batch["x"] @ params["dense"]["kernel"] + params["dense"]["bias"][None]
            y = y + (batch["bias"].mean() - 0.25) * constants["one"]
            return jnp.mean(jnp.square(y + batch["noise"] - batch["y"])), {}

        batch = {**batch, "noise": noise}
        return descend(self.cfg.optim, self.tx, loss, state, batch, shared=self.shared)


def truth(width: int) -> np.ndarray:
    """The kernel (4, width) that made the data; the bias is 0.5."""
    return np.linspace(-1, 1, 4 * width, dtype=np.float32).reshape(4, width)
