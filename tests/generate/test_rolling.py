import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.types import MOTION_DIM, Controls
from vasa_jax.generate import offline, rolling
from vasa_jax.generate.model import MotionModelConfig, init_params
from vasa_jax.generate.rolling import RollingConfig
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.transformer import TransformerConfig

MODEL = MotionModelConfig(
    features=FeatureConfig(num_mels=8),
    encoder=EncoderConfig(width=16, hidden=24, num_blocks=2),
    transformer=TransformerConfig(depth=1, width=16, num_heads=2),
    window=8,
    past=4,
)
LIVE = RollingConfig(hop=3, steps=2, guided=("audio", "gaze"))
WINDOWED = dataclasses.replace(LIVE, hop=8)
SCALES = {"audio": jnp.float32(0.5), "gaze": jnp.float32(1.0)}
AHEAD = MODEL.lookahead_frames
FRAMES = 24  # whole hops of both modes
JITTED = jax.jit(rolling.step, static_argnums=(1, 2))


@pytest.fixture(scope="module")
def params():
    tree = jax.jit(init_params, static_argnums=0)(MODEL, jax.random.key(0))
    out = tree["transformer"]["out"]
    out["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), out["kernel"].shape)
    return tree


def inputs(batch, frames=FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    shape = (batch, frames + AHEAD)
    audio = rng.standard_normal((*shape, MODEL.features.dim)).astype(np.float32)
    controls = Controls.none(*shape)._replace(
        gaze=rng.normal(0, 0.2, (*shape, 2)).astype(np.float32),
        gaze_on=np.ones(shape, np.float32),
    )
    return audio, np.ones(shape, bool), controls


def live(params, cfg, audio, valid, controls, seeds, *, active=None, reset=None):
    """The live loop: one call of the step per hop; motion (B, T, M)."""
    batch = audio.shape[0]
    state, out = rolling.init_state(MODEL, jnp.asarray(seeds)), []
    for n, start in enumerate(range(0, audio.shape[1] - AHEAD, cfg.hop)):
        part = slice(start, start + cfg.hop + AHEAD)
        state, motion = JITTED(
            params, MODEL, cfg, state, audio[:, part], valid[:, part],
            jax.tree.map(lambda x: x[:, part], controls), SCALES,  # noqa: B023
            active_B=jnp.ones(batch, bool) if active is None else active[n],
            reset_B=jnp.zeros(batch, bool) if reset is None else reset[n],
        )  # fmt: skip
        out.append(np.asarray(motion))
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize("cfg", [LIVE, WINDOWED], ids=["live", "windowed"])
def test_offline_scan_equals_the_live_loop(params, cfg):
    audio, valid, controls = inputs(2)
    state = rolling.init_state(MODEL, jnp.asarray([5, 6]))
    _, whole = offline.roll_chunk(MODEL, cfg, params, state, audio, valid, controls, SCALES)
    parts = live(params, cfg, audio, valid, controls, [5, 6])
    np.testing.assert_allclose(whole, parts, atol=2e-6)


def test_sound_after_the_declared_lookahead_cannot_change_a_frame(params):
    audio, valid, controls = inputs(1)
    base = live(params, LIVE, audio, valid, controls, [1])
    changed = audio.copy()
    cut = 12
    changed[:, cut:] += 3.0
    got = live(params, LIVE, changed, valid, controls, [1])
    # A hop that starts at s hears up to s + hop + AHEAD: untouched while that is at most ``cut``.
    untouched = [s for s in range(0, FRAMES, LIVE.hop) if s + LIVE.hop + AHEAD <= cut]
    last = untouched[-1] + LIVE.hop
    np.testing.assert_array_equal(base[:, :last], got[:, :last])
    assert np.abs(base[:, last:] - got[:, last:]).max() > 1e-3
    assert LIVE.latency_ms(MODEL) == 40.0 * (LIVE.hop + AHEAD)


def test_streams_cannot_see_each_other(params):
    audio, valid, controls = inputs(3)
    together = live(params, LIVE, audio, valid, controls, [1, 2, 3])
    other = audio.copy()
    other[[0, 2]] = -other[[0, 2]]
    changed = live(params, LIVE, other, valid, controls, [9, 2, 8])
    np.testing.assert_allclose(together[1], changed[1], atol=2e-6)
    assert np.abs(together[0] - changed[0]).max() > 1e-3


def test_reset_equals_a_fresh_start(params):
    audio, valid, controls = inputs(2)
    hops = FRAMES // LIVE.hop
    at = 3
    reset = [jnp.asarray([n == at, False]) for n in range(hops)]
    got = live(params, LIVE, audio, valid, controls, [1, 2], reset=reset)
    start = at * LIVE.hop
    later = jax.tree.map(lambda x: x[:, start:], (audio, valid, controls))
    fresh = live(params, LIVE, *later, [1, 2])
    undisturbed = live(params, LIVE, audio, valid, controls, [1, 2])
    np.testing.assert_allclose(got[0, start:], fresh[0], atol=2e-6)
    np.testing.assert_allclose(got[1], undisturbed[1], atol=2e-6)


def test_a_paused_stream_continues_where_it_was(params):
    audio, valid, controls = inputs(1)
    plain = live(params, LIVE, audio, valid, controls, [4])
    twice = jax.tree.map(
        lambda x: np.concatenate([x[:, : LIVE.hop + AHEAD], x[:, LIVE.hop + AHEAD :]], 1),
        (audio, valid, controls),
    )
    state = rolling.init_state(MODEL, jnp.asarray([4]))
    out = []
    for start in range(0, FRAMES, LIVE.hop):
        part = slice(start, start + LIVE.hop + AHEAD)
        for active in (False, True):  # every hop is refused once
            state, motion = JITTED(
                params, MODEL, LIVE, state, twice[0][:, part], twice[1][:, part],
                jax.tree.map(lambda x: x[:, part], twice[2]), SCALES,  # noqa: B023
                active_B=jnp.asarray([active]), reset_B=jnp.asarray([False]),
            )  # fmt: skip
            if active:
                out.append(np.asarray(motion))
            else:
                assert not np.asarray(motion).any()
    np.testing.assert_array_equal(np.concatenate(out, 1), plain)


def test_padding_may_hold_anything(params):
    audio, valid, controls = inputs(1)
    valid = valid.copy()
    valid[:, 14:] = False
    clean = live(params, LIVE, np.where(valid[..., None], audio, 0), valid, controls, [1])
    poisoned = live(params, LIVE, np.where(valid[..., None], audio, np.nan), valid, controls, [1])
    np.testing.assert_array_equal(clean, poisoned)
    assert np.isfinite(clean).all()


def test_guided_step_equals_the_branches_evaluated_one_by_one(params):
    """Equation 2 by hand, with one evaluation (a single step from noise)."""
    from vasa_jax.generate.model import MotionModel

    audio, valid, controls = inputs(2, frames=8)
    cfg = RollingConfig(hop=8, steps=1, guided=("audio", "gaze"))
    state = rolling.init_state(MODEL, jnp.asarray([1, 2]))
    args = (audio, valid, controls)
    yes, no = jnp.ones(2, bool), jnp.zeros(2, bool)
    _, got = JITTED(params, MODEL, cfg, state, *args, SCALES, active_B=yes, reset_B=no)

    net, k = MotionModel(MODEL), MODEL.past
    noise = rolling._frame_noise(state.key, state.frame, 8, 0)
    features = jnp.concatenate([state.past_audio, audio], 1)
    heard = jnp.concatenate([state.past_valid, valid], 1)

    @jax.jit
    def branch(keep):
        x0, _, _ = net.apply(
            {"params": params}, noise, jnp.ones(2), features_BAD=features, audio_valid_BA=heard,
            past_BKM=state.past_motion, past_valid_BK=state.past_valid,
            motion_valid_BT=jnp.ones((2, 8), bool),
            controls=jax.tree.map(lambda x: x[:, :8], controls), keep=keep,
        )  # fmt: skip
        return x0

    assert features.shape[1] == k + 8 + AHEAD
    full = branch({})
    expected = 2.5 * full - 0.5 * branch({"audio": no}) - 1.0 * branch({"gaze": no})
    # One DDIM step to t = 0 returns x0 up to the schedule's last trace of noise.
    np.testing.assert_allclose(got, expected, atol=5e-3)


@pytest.fixture
def compilations():
    """Names of what the process compiles from now on."""
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_the_step_compiles_once_while_everything_changes(params, compilations):
    audio, valid, controls = inputs(2)
    step = jax.jit(rolling.step, static_argnums=(1, 2))
    state = rolling.init_state(MODEL, jnp.asarray([1, 2]))
    for n in range(6):
        part = slice(n * LIVE.hop, (n + 1) * LIVE.hop + AHEAD)
        state, motion = step(
            params, MODEL, LIVE, state, audio[:, part], valid[:, part],
            Controls(*(x[:, part] for x in controls)),
            {"audio": np.float32(0.1 * n), "gaze": np.float32(n)},
            active_B=np.asarray([True, n % 2 == 0]), reset_B=np.asarray([n == 3, False]),
        )  # fmt: skip
        jax.block_until_ready(motion)
        if n == 0:
            compilations.clear()
    assert not compilations


@pytest.mark.parametrize("frames", [1, 7, 33, 70])
def test_any_length_comes_out_whole(params, frames):
    rng = np.random.default_rng(0)
    feats = rng.standard_normal((frames, MODEL.features.dim)).astype(np.float32)
    calls = []
    motion = offline.generate_motion(
        MODEL, params, MotionStats.unit(), feats, steps=1, guidance={},
        progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    assert motion.shape == (frames, MOTION_DIM) and np.isfinite(motion).all()
    assert calls[-1] == (frames, frames)


def test_any_length_compiles_once(params, compilations):
    for frames in (40, 5, 100):
        feats = np.zeros((frames, MODEL.features.dim), np.float32)
        offline.generate_motion(MODEL, params, MotionStats.unit(), feats, steps=3, guidance={})
        if frames == 40:
            compilations.clear()
    assert not compilations


def test_the_same_seed_gives_the_same_motion_and_another_does_not(params):
    feats = np.random.default_rng(0).standard_normal((20, MODEL.features.dim)).astype(np.float32)

    def run(seed):
        return offline.generate_motion(MODEL, params, MotionStats.unit(), feats, steps=2, seed=seed)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1e-3
