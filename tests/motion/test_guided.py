"""The guided denoiser against equation 2 evaluated branch by branch."""

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.arkit import MOTION_DIM
from vasa_jax.core.types import Controls
from vasa_jax.motion.guided import Seen, guided_denoiser
from vasa_jax.motion.model import MotionModelConfig, init_params
from vasa_jax.motion.transformer import TransformerConfig

MODEL = MotionModelConfig(
    features=FeatureConfig(),
    encoder=EncoderConfig(width=16, hidden=16, num_blocks=1),
    transformer=TransformerConfig(width=16, depth=1, num_heads=2),
    window=12, past=4,
)  # fmt: skip
BATCH = 3


def params():
    fresh = init_params(MODEL, jax.random.key(0))
    return jax.tree.map(  # fresh networks answer zero
        lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape), fresh
    )


def seen(**keep) -> Seen:
    rng = np.random.default_rng(0)
    length = MODEL.past + MODEL.window + MODEL.lookahead_frames
    controls = Controls.none(BATCH, MODEL.window)
    return Seen(
        features=jnp.asarray(rng.normal(size=(BATCH, length, MODEL.features.dim)), jnp.float32),
        audio_valid=jnp.ones((BATCH, length), bool),
        past=jnp.asarray(rng.normal(size=(BATCH, MODEL.past, MOTION_DIM)), jnp.float32),
        past_valid=jnp.ones((BATCH, MODEL.past), bool),
        motion_valid=jnp.ones((BATCH, MODEL.window), bool),
        controls=controls._replace(
            gaze=0.3 * jnp.ones_like(jnp.asarray(controls.gaze)),
            gaze_on=jnp.ones_like(jnp.asarray(controls.gaze_on)),
        ),
        keep={name: jnp.asarray(rows) for name, rows in keep.items()},
    )


def test_two_conditions_with_a_scale_per_stream_are_equation_2():
    weights, x = params(), jax.random.normal(jax.random.key(3), (BATCH, MODEL.window, MOTION_DIM))
    t, past, none = jnp.float32(0.6), [True, False, True], jnp.zeros(BATCH, bool)
    full = guided_denoiser(MODEL, weights, seen(past=past), {})(x, t)
    deaf = guided_denoiser(MODEL, weights, seen(past=past, audio=none), {})(x, t)
    free = guided_denoiser(MODEL, weights, seen(past=past, gaze=none), {})(x, t)
    assert float(jnp.abs(full - deaf).max()) > 1e-3 and float(jnp.abs(full - free).max()) > 1e-3
    audio, gaze = jnp.asarray([0.5, 0.0, 2.0]), jnp.asarray([1.0, 1.0, 0.0])
    guided = guided_denoiser(MODEL, weights, seen(past=past), {"audio": audio, "gaze": gaze})(x, t)
    a, g = audio[:, None, None], gaze[:, None, None]
    np.testing.assert_allclose(guided, (1 + a + g) * full - a * deaf - g * free, atol=2e-5)


def test_outside_the_interval_nothing_is_guided():
    weights, x = params(), jax.random.normal(jax.random.key(3), (BATCH, MODEL.window, MOTION_DIM))
    full = guided_denoiser(MODEL, weights, seen(), {})
    some = guided_denoiser(
        MODEL, weights, seen(), {"audio": jnp.float32(2.0)}, interval=(0.2, 0.7)
    )  # fmt: skip
    # Not bit for bit: the enlarged batch may be summed in another order.
    np.testing.assert_allclose(
        some(x, jnp.float32(0.9)), full(x, jnp.float32(0.9)), atol=1e-5
    )  # fmt: skip
    assert float(jnp.abs(some(x, jnp.float32(0.5)) - full(x, jnp.float32(0.5))).max()) > 1e-3
