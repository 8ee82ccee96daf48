"""The rolling step: speech and controls of the next frames in, their motion out, for B streams.

One pure function of (params, state, inputs) with fixed shapes, so a process compiles it once. With
the same weights it runs in two modes, which are values of ``RollingConfig``::

    windowed (the paper)   hop = W = 50           K past | hop ........................ | ahead
    live                   hop = 2 to 5           K past | hop .. | ahead .. |
                                                  given    made     drafted, heard already

Windowed: a step makes a whole window of W frames after K = 10 past ones (VASA-1, section 3.3).
Live: a step makes ``hop`` frames and drafts ``ahead`` more, which the next step makes again with
more sound. Either way the step's sound reaches ``ahead`` frames beyond the frames it gives out, and
nothing later can change them. ``ahead`` is what the audio encoder looks forward
(``MotionModelConfig.lookahead_frames``); the features themselves see no future.

Latency, from a sound to the frame that shows it, compute excluded: at most ``(hop + ahead) * 40
ms``, since the first frame of a hop waits until the hop's last frame and its look-ahead were heard.
With ``ahead = 3``: 2120 ms at hop 50, 240 ms at hop 3, 200 ms at hop 2. A live stream may wait for
less sound than the encoder could use (``RollingConfig.ahead``): the rest is marked as not heard,
which training's hidden tails cover, so the same weights serve it.

Streams are independent: each has its own key, clock, past, controls and guidance scales, starts,
pauses (``active_B``) and starts anew (``reset_B``) at any hop, and none of that compiles again.
Noise of frame f is a function of (stream key, f) alone, so any frame can be made again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vasa_jax.core.errors import UserError
from vasa_jax.core.space import MotionSpace
from vasa_jax.core.types import FPS, Controls
from vasa_jax.diffusion import samplers
from vasa_jax.diffusion.times import TIME_GRIDS
from vasa_jax.motion.conditions import CONDITION_NAMES
from vasa_jax.motion.guided import Seen, guided_denoiser
from vasa_jax.motion.model import MotionModelConfig
from vasa_jax.runtime.programs import Program

# Lids are rare events: a deterministic few-step sampler averages them away (2 blinks a minute),
# an ancestral one blinks but loosens the lips. So the lids alone are sampled ancestrally.
LID_SAMPLER = "ddim_lids"

# On voices unlike those of training the model is unsure, and a fair sample of what it thinks
# possible moves lips without a sound. What is heard starts from little noise, which keeps it near
# the most likely one (eighteen recordings, temperature 1 -> 0: sync 0.41 -> 0.44, closures 0.58
# -> 0.68).
TEMPERATURE = 0.2

SAMPLERS = (*samplers.SAMPLERS, LID_SAMPLER)  # names


def sampler_of(name: str, space: MotionSpace) -> samplers.Step:
    """The step of a sampler of ``SAMPLERS``. UserError for one that the space has no lids for."""
    if name != LID_SAMPLER:
        return samplers.SAMPLERS[name]
    if "lids" not in space.groups:
        raise UserError(f"the sampler {name} is for named lids; a {space.cfg.kind} space has none")
    return samplers.Ddim(eta=tuple(space.per_dim({"lids": 1.0}, default=0.0).tolist()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollingConfig:
    """How motion is rolled out: windowed or live (see above). Static: a change compiles anew."""

    hop: int = 50  # frames per step: the model's window, or 2 to 5 live
    sampler: str = "ddim"
    steps: int = 10  # of the sampler
    grid: str = "uniform"
    guided: tuple[str, ...] = ("audio", "gaze")  # conditions with a guidance branch
    temperature: float = TEMPERATURE  # of the noise that what is heard (the mouth) starts from
    ahead: int | None = None  # frames of sound waited for after the hop; None: all that are of use

    def __post_init__(self) -> None:
        if self.hop < 1 or self.steps < 1:
            raise ValueError(f"rolling: hop {self.hop} and steps {self.steps} must be at least 1")
        if self.ahead is not None and self.ahead < 0:
            raise ValueError(f"rolling: {self.ahead} frames of look-ahead")
        unknown = set(self.guided) - set(CONDITION_NAMES)
        if unknown:
            raise ValueError(
                f"rolling: no condition {sorted(unknown)}; there are {CONDITION_NAMES}"
            )

    def lookahead(self, model: MotionModelConfig) -> int:
        """Frames of sound after the hop that a step must be given."""
        most = model.lookahead_frames
        return most if self.ahead is None else min(self.ahead, most)

    def frames(self, model: MotionModelConfig) -> int:
        """Frames in the network's window: the hop, and in live modes the drafted look-ahead."""
        return min(model.window, self.hop + model.lookahead_frames)

    def latency_ms(self, model: MotionModelConfig) -> float:
        """From a sound to the frame that shows it, at most, compute excluded."""
        return 1000.0 / FPS * (self.hop + self.lookahead(model))


@struct.dataclass
class RollingState:
    """Everything that survives between steps, for B streams; bounded, whatever the duration."""

    past_motion: jax.Array  # (B, K, M) normalised
    past_audio: jax.Array  # (B, K, D) features
    past_valid: jax.Array  # (B, K) bool, False before the beginning
    past_heard: jax.Array  # (B, K) bool, False also where the sound was missing
    key: jax.Array  # (B,) typed keys
    frame: jax.Array  # (B,) int32, index of the next frame


def stream_keys(seeds: jax.Array) -> jax.Array:
    """One key per stream from integer seeds ``(B,)``."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


def init_state(model: MotionModelConfig, seeds: jax.Array) -> RollingState:
    """Fresh streams, one per seed."""
    keys = stream_keys(seeds)
    batch = keys.shape[0]
    return RollingState(
        past_motion=jnp.zeros((batch, model.past, model.motion_space.dim), jnp.float32),
        past_audio=jnp.zeros((batch, model.past, model.features.dim), jnp.float32),
        past_valid=jnp.zeros((batch, model.past), bool),
        past_heard=jnp.zeros((batch, model.past), bool),
        key=keys,
        frame=jnp.zeros((batch,), jnp.int32),
    )


kept_init_state = Program(init_state, static=("model",))  # one program instead of one per array


def branches(guidance: Mapping[str, float]) -> dict[str, float]:
    """The scales that get a branch of the network, in their order: all but zeros.

    Also where nobody asks for it now: live, somebody may at any hop, and offline is to be its
    equal to the bit.
    """
    return {name: float(scale) for name, scale in guidance.items() if scale}


def guidance_scales(
    cfg: RollingConfig, batch: int, scales: Mapping[str, float | np.ndarray]
) -> dict[str, np.ndarray]:
    """Scales (equation 2) as ``step`` takes them: ``(B,)`` float32 for every guided condition.

    A number holds for all streams, an array ``(B,)`` for each. What is not named gets 0, which is
    exactly no guidance; so one compiled step serves any mixture. Raises ValueError for a condition
    without a branch in ``cfg.guided``.
    """
    missing = {n for n, s in scales.items() if n not in cfg.guided and np.any(s)}
    if missing:
        raise ValueError(f"no guidance branch for {sorted(missing)}; compiled are {cfg.guided}")
    table = {n: np.asarray(scales.get(n, 0.0), np.float32) for n in cfg.guided}
    return {n: np.array(np.broadcast_to(s, (batch,))) for n, s in table.items()}


def step(
    params: Any,
    model: MotionModelConfig,
    cfg: RollingConfig,
    state: RollingState,
    audio_BAD: jax.Array,
    valid_BA: jax.Array,
    controls: Controls,
    scales: Mapping[str, jax.Array],
    *,
    active_B: jax.Array,
    reset_B: jax.Array,
    seed_B: jax.Array | None = None,
    interval: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[RollingState, jax.Array]:
    """The next ``hop`` frames of normalised motion ``(B, hop, M)``.

    Args:
        audio_BAD: features of ``hop + lookahead`` frames, from the next frame on.
        valid_BA: False where there is no sound (after the end); such frames may hold anything.
        controls: rows of the same frames.
        scales: guidance scale of each of ``cfg.guided``: arrays, scalar or ``(B,)``.
        active_B: streams that advance; others keep their state and return zeros.
        reset_B: streams that start anew before this step: frame 0, no past.
        seed_B: uint32, the seed of each stream that starts anew; None keeps its key.
        interval: lowest and highest diffusion time at which guidance acts; None: at all times.

    Row b of the results depends on row b of the inputs alone.
    """
    ahead, frames, hop = cfg.lookahead(model), cfg.frames(model), cfg.hop
    if audio_BAD.shape[1] != hop + ahead:
        raise ValueError(f"a step takes hop + lookahead = {hop + ahead} frames of features")
    if hop > model.window:
        raise ValueError(f"hop {hop} is longer than the model's window {model.window}")
    batch = audio_BAD.shape[0]
    fresh = reset_B
    past_valid = state.past_valid & ~fresh[:, None]
    past_heard = state.past_heard & ~fresh[:, None]
    frame = jnp.where(fresh, 0, state.frame)
    key = state.key if seed_B is None else jnp.where(fresh, stream_keys(seed_B), state.key)

    # Features: K past, the window, and the encoder's look-ahead, which live modes do not have.
    missing = frames + model.lookahead_frames - (hop + ahead)
    audio = jnp.where(valid_BA[..., None], audio_BAD, 0.0)
    features = jnp.concatenate(
        [state.past_audio, audio, jnp.zeros((batch, missing, audio.shape[-1]))], axis=1
    )
    valid = jnp.concatenate([past_heard, valid_BA, jnp.zeros((batch, missing), bool)], axis=1)
    held = jax.tree.map(lambda x: _held(x, frames), controls)

    seen = Seen(
        features=features, audio_valid=valid, past=state.past_motion, past_valid=past_valid,
        motion_valid=jnp.ones((batch, frames), bool), controls=held, keep={},
    )  # fmt: skip
    denoise = guided_denoiser(
        model, params, seen, {name: scales[name] for name in cfg.guided}, interval=interval
    )

    schedule, space = model.make_schedule(), model.motion_space

    def noise(draw: Any) -> jax.Array:
        return _frame_noise(key, frame, frames, draw, space.dim)

    x = samplers.sample(
        sampler_of(cfg.sampler, space),
        schedule,
        denoise,
        jnp.asarray(temperatures(space, cfg.temperature)) * noise(0),
        TIME_GRIDS[cfg.grid](schedule, cfg.steps),
        lambda i: noise(1 + i),
    )
    motion = x[:, :hop]

    def roll(past: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.concatenate([past, new], axis=1)[:, -model.past :]

    advanced = RollingState(
        past_motion=roll(state.past_motion, motion),
        past_audio=roll(state.past_audio, audio[:, :hop]),
        past_valid=roll(past_valid, jnp.ones((batch, hop), bool)),
        past_heard=roll(past_heard, valid_BA[:, :hop]),
        key=key,
        frame=frame + hop,
    )
    reset_only = state.replace(  # type: ignore[attr-defined]
        past_valid=past_valid, past_heard=past_heard, key=key, frame=frame
    )

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(active_B.reshape(batch, *(1,) * (a.ndim - 1)), a, b)

    new_state = jax.tree.map(choose, advanced, reset_only)
    return new_state, choose(motion, jnp.zeros_like(motion))


live_step = Program(step, static=("model", "cfg"), donate=("state",))
"""``step`` compiled, its state donated: the buffers of the state that goes in are used for the one
that comes out, so never look at the old one again. A process that serves one release in one mode
compiles it once; give every argument the same shape, dtype and device each time."""


def _held(x: jax.Array, frames: int) -> jax.Array:
    """The first ``frames`` along axis 1; the last one is repeated where there are fewer."""
    short = max(0, frames - x.shape[1])
    return jnp.concatenate([x[:, :frames], jnp.repeat(x[:, -1:], short, axis=1)], axis=1)


def temperatures(space: MotionSpace, heard: float) -> np.ndarray:
    """Deviation (1, 1, M) of the noise that each number starts from."""
    return space.per_dim({"heard": heard})[None, None]


def _frame_noise(
    key_B: jax.Array, frame_B: jax.Array, frames: int, draw: Any, dim: int
) -> jax.Array:
    """Standard normal ``(B, frames, dim)``, a function of (stream key, draw, absolute frame)."""

    def one(key: jax.Array, frame: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, draw), frame)
        return jax.random.normal(key, (dim,), jnp.float32)

    index = frame_B[:, None] + jnp.arange(frames)[None]
    return jax.vmap(jax.vmap(one, (None, 0)))(key_B, index)
