import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.core.arkit import MOTION_DIM
from vasa_jax.core.types import Controls
from vasa_jax.motion.conditions import DropConfig, sample_keep, sample_tail
from vasa_jax.motion.transformer import MotionTransformer, TransformerConfig

B, K, T, D = 2, 4, 6, 16
CONFIGS = {
    "paper": TransformerConfig(depth=2, width=D, num_heads=2, align_audio=False),
    "both": TransformerConfig(depth=2, width=D, num_heads=2),
    "aligned": TransformerConfig(depth=2, width=D, num_heads=2, audio_tokens=False),
}


def setup(name):
    key = jax.random.key(0)
    net = MotionTransformer(CONFIGS[name], MOTION_DIM)
    x = jax.random.normal(key, (B, T, MOTION_DIM))
    inputs = {
        "audio_BAD": jax.random.normal(jax.random.fold_in(key, 1), (B, K + T, 8)),
        "past_BKM": jax.random.normal(jax.random.fold_in(key, 2), (B, K, MOTION_DIM)),
        "past_valid_BK": jnp.ones((B, K), bool),
        "motion_valid_BT": jnp.ones((B, T), bool),
        "controls": Controls.none(B, T)._replace(
            gaze=jnp.full((B, T, 2), 0.3), gaze_on=jnp.ones((B, T))
        ),
        "keep": {},
    }
    params = net.init(jax.random.key(3), x, jnp.zeros(B), **inputs)
    # Fresh output weights are tiny: enlarge them, so that differences are visible.
    params["params"]["out"]["kernel"] = jax.random.normal(
        key, params["params"]["out"]["kernel"].shape
    )
    return lambda x, t, **kw: net.apply(params, x, t, **{**inputs, **kw}), x, inputs


@pytest.mark.parametrize("name", CONFIGS)
def test_the_timestep_matters(name):
    run, x, _ = setup(name)
    params_seen = run(x, jnp.full(B, 0.1)), run(x, jnp.full(B, 0.9))
    assert float(jnp.abs(params_seen[0] - params_seen[1]).max()) > 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_audio_and_past_and_gaze_reach_the_motion(name):
    run, x, inputs = setup(name)
    t = jnp.full(B, 0.5)
    base = run(x, t)
    for change in (
        {"audio_BAD": inputs["audio_BAD"] + 1.0},
        {"past_BKM": inputs["past_BKM"] + 1.0},
        {"past_valid_BK": jnp.zeros((B, K), bool)},
        {"keep": {"gaze": jnp.zeros(B, bool)}},
    ):
        assert float(jnp.abs(run(x, t, **change) - base).max()) > 1e-4, change.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_equal_content_in_different_frames_gets_different_answers(name):
    """Position codes differ per frame (published code once gave every frame the same)."""
    run, x, inputs = setup(name)
    same = jnp.broadcast_to(x[:, :1], x.shape)
    audio = jnp.broadcast_to(inputs["audio_BAD"][:, :1], inputs["audio_BAD"].shape)
    out = np.asarray(run(same, jnp.full(B, 0.5), audio_BAD=audio))
    for i in range(1, T):
        assert np.abs(out[:, i] - out[:, 0]).max() > 1e-5


def test_hidden_frames_may_hold_anything():
    run, x, inputs = setup("both")
    valid = jnp.arange(T)[None] < jnp.array([[T], [3]])
    t = jnp.full(B, 0.5)
    clean = run(x, t, motion_valid_BT=valid)
    poisoned = run(x.at[1, 3:].set(jnp.nan), t, motion_valid_BT=valid)
    np.testing.assert_array_equal(clean[0], poisoned[0])
    np.testing.assert_array_equal(clean[1, :3], poisoned[1, :3])


def test_a_past_that_is_not_valid_may_hold_anything():
    run, x, inputs = setup("both")
    t, none = jnp.full(B, 0.5), jnp.zeros((B, K), bool)
    a = run(x, t, past_valid_BK=none)
    b = run(x, t, past_valid_BK=none, past_BKM=inputs["past_BKM"] * jnp.nan)
    np.testing.assert_array_equal(a, b)


def test_controls_not_asked_for_may_hold_anything():
    run, x, inputs = setup("both")
    t = jnp.full(B, 0.5)
    c = inputs["controls"]._replace(gaze_on=jnp.zeros((B, T)))
    bad = c._replace(gaze=c.gaze * jnp.nan, distance=c.distance * jnp.nan)
    np.testing.assert_array_equal(run(x, t, controls=c), run(x, t, controls=bad))
    # Not asking and dropping are the same thing.
    dropped = run(x, t, keep={"gaze": jnp.zeros(B, bool)})
    np.testing.assert_array_equal(run(x, t, controls=c), dropped)


def test_drops_come_at_their_rates():
    keep = sample_keep(jax.random.key(0), 20_000, DropConfig())
    assert abs(float(keep["past"].mean()) - 0.5) < 0.02
    for name in ("audio", "gaze", "distance", "emotion"):
        assert abs(float(keep[name].mean()) - 0.9) < 0.01
    both = np.asarray(keep["audio"] & keep["gaze"]).mean()
    assert abs(both - 0.81) < 0.015  # independent


def test_tails_are_cut_at_their_rate_and_stay_contiguous():
    audio, motion = sample_tail(jax.random.key(0), 4000, T, 3, DropConfig(tail=0.3, hide_tail=0.5))
    audio, motion = np.asarray(audio), np.asarray(motion)
    assert audio.shape == (4000, T + 3) and motion.shape == (4000, T)
    assert (np.diff(audio.astype(int), axis=1) <= 0).all()
    assert 0.15 < (~motion).any(1).mean() + (~audio).any(1).mean() < 0.45
    assert (motion[:, :4]).all()
