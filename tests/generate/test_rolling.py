import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.arkit import MOTION_DIM, MOUTH
from vasa_jax.core.types import Controls
from vasa_jax.generate import offline, rolling
from vasa_jax.generate.rolling import RollingConfig, live_step
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig, init_params
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
SCALES = {"audio": np.full(2, 0.5, np.float32), "gaze": np.full(2, 1.0, np.float32)}
AHEAD = MODEL.lookahead_frames
FRAMES = 24  # whole hops of both modes


@pytest.fixture(scope="module")
def params():
    tree = jax.jit(init_params, static_argnums=0)(MODEL, jax.random.key(0))
    out = tree["transformer"]["out"]
    out["kernel"] = 0.3 * jax.random.normal(jax.random.key(1), out["kernel"].shape)
    return tree


def inputs(frames=FRAMES, seed=0):
    """Speech and gaze for two streams: all tests share one compiled step that way."""
    rng = np.random.default_rng(seed)
    shape = (2, frames + AHEAD)
    audio = rng.standard_normal((*shape, MODEL.features.dim)).astype(np.float32)
    controls = Controls.none(*shape)._replace(
        gaze=rng.normal(0, 0.2, (*shape, 2)).astype(np.float32),
        gaze_on=np.ones(shape, np.float32),
    )
    return audio, np.ones(shape, bool), controls


def live(params, cfg, audio, valid, controls, seeds, *, active=None, reset=None, scales=SCALES):
    """The live loop: one call of the step per hop; motion (B, T, M)."""
    seeds = jnp.asarray(seeds, jnp.uint32)
    state, out = rolling.init_state(MODEL, seeds), []
    for n, start in enumerate(range(0, audio.shape[1] - AHEAD, cfg.hop)):
        part = slice(start, start + cfg.hop + AHEAD)
        state, motion = live_step(
            params, MODEL, cfg, state, audio[:, part], valid[:, part],
            jax.tree.map(lambda x: x[:, part], controls), scales,  # noqa: B023
            active_B=jnp.ones(2, bool) if active is None else active[n],
            reset_B=jnp.zeros(2, bool) if reset is None else reset[n],
            seed_B=seeds,
        )  # fmt: skip
        out.append(np.asarray(motion))
    return np.concatenate(out, axis=1)


@pytest.mark.parametrize(
    "cfg",
    [
        pytest.param(LIVE, id="live"),
        pytest.param(WINDOWED, id="windowed"),
        pytest.param(
            dataclasses.replace(LIVE, sampler="ddim_lids"), id="noisy", marks=pytest.mark.slow
        ),
    ],
)
def test_offline_scan_equals_the_live_loop_bit_for_bit(params, cfg):
    audio, valid, controls = inputs()
    state = rolling.init_state(MODEL, jnp.asarray([5, 6]))
    _, whole = offline.roll_chunk(MODEL, cfg, params, state, audio, valid, controls, SCALES)
    parts = live(params, cfg, audio, valid, controls, [5, 6])
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.slow
@pytest.mark.parametrize("hop", [3, 50])
def test_offline_equals_live_bit_for_bit_with_the_shipped_weights(hop):
    from vasa_jax.checkpoint.release import load_release
    from vasa_jax.core.config import from_json

    release = load_release("lite")
    model = from_json(MotionModelConfig, release.config["motion"]["model"])
    cfg = RollingConfig(hop=hop, sampler="ddim_lids", steps=4, guided=("audio",))
    ahead, scales = cfg.lookahead(model), {"audio": np.full(1, 0.5, np.float32)}
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, (1, 3 * hop + ahead, model.features.dim)).astype(np.float32)
    valid, rows = np.ones(audio.shape[:2], bool), Controls.none(*audio.shape[:2])
    weights = jax.device_put(release.params["motion"])
    state = rolling.init_state(model, jnp.asarray([1]))
    _, whole = offline.roll_chunk(model, cfg, weights, state, audio, valid, rows, scales)
    state, parts = rolling.init_state(model, jnp.asarray([1])), []
    for n in range(3):
        part = slice(n * hop, (n + 1) * hop + ahead)
        state, motion = live_step(
            weights, model, cfg, state, audio[:, part], valid[:, part],
            Controls(*(x[:, part] for x in rows)), scales,
            active_B=np.ones(1, bool), reset_B=np.zeros(1, bool),
        )  # fmt: skip
        parts.append(np.asarray(motion))
    np.testing.assert_array_equal(whole, np.concatenate(parts, 1))


def test_sound_after_the_declared_lookahead_cannot_change_a_frame(params):
    audio, valid, controls = inputs()
    base = live(params, LIVE, audio, valid, controls, [1, 2])
    changed = audio.copy()
    cut = 12
    changed[:, cut:] += 3.0
    got = live(params, LIVE, changed, valid, controls, [1, 2])
    # A hop that starts at s hears up to s + hop + AHEAD: untouched while that is at most ``cut``.
    untouched = [s for s in range(0, FRAMES, LIVE.hop) if s + LIVE.hop + AHEAD <= cut]
    last = untouched[-1] + LIVE.hop
    np.testing.assert_array_equal(base[:, :last], got[:, :last])
    assert np.abs(base[:, last:] - got[:, last:]).max() > 1e-3
    assert LIVE.latency_ms(MODEL) == 40.0 * (LIVE.hop + AHEAD)


@pytest.fixture(scope="module")
def sensitivity(params):
    """d motion / d (audio, gaze, scales, past motion) for two streams, by hop and stream.

    Squared sums over a hop of one stream, differentiated by everything of both streams.
    """
    audio, valid, controls = inputs(frames=4 * LIVE.hop)
    scales = rolling.guidance_scales(LIVE, 2, {"audio": 0.5, "gaze": 1.0})

    def hop_of(stream, hop, audio, gaze, scales, past):
        state = rolling.init_state(MODEL, jnp.asarray([1, 2]))
        state = state.replace(past_motion=past, past_valid=jnp.ones((2, MODEL.past), bool))
        _, motion = offline.roll_chunk(
            MODEL, LIVE, params, state, audio, valid, controls._replace(gaze=gaze), scales
        )
        part = jax.lax.dynamic_slice_in_dim(motion[stream], hop * LIVE.hop, LIVE.hop)
        return jnp.square(part).sum()

    grad = jax.jit(jax.grad(hop_of, argnums=(2, 3, 4, 5)))
    past = jnp.full((2, MODEL.past, MOTION_DIM), 0.1)
    return {
        (stream, hop): grad(stream, hop, audio, controls.gaze, scales, past)
        for stream, hop in ((0, 0), (0, 1), (1, 1), (1, 3))
    }


def test_by_gradient_too_no_frame_hears_beyond_the_lookahead(sensitivity):
    for (stream, hop), (audio, *_) in sensitivity.items():
        heard = np.abs(np.asarray(audio[stream])).sum(-1) > 0
        end = (hop + 1) * LIVE.hop + AHEAD
        assert heard[:end].all() and not heard[end:].any()


def test_by_gradient_too_streams_cannot_see_each_other(sensitivity):
    for (stream, _), (audio, gaze, scales, past) in sensitivity.items():
        for g in (audio, gaze, scales["audio"], scales["gaze"], past):
            assert np.any(np.asarray(g[stream])) and not np.any(np.asarray(g[1 - stream]))


def test_streams_cannot_see_each_other(params):
    audio, valid, controls = inputs()
    base = live(params, LIVE, audio, valid, controls, [1, 2])
    hops = FRAMES // LIVE.hop
    for stream in (0, 1):
        other, gaze, heard = audio.copy(), controls.gaze.copy(), valid.copy()
        other[1 - stream], gaze[1 - stream], heard[1 - stream, 5:] = np.nan, 0.0, False
        seeds = [1, 2]
        seeds[1 - stream] = 9
        mine = np.arange(2) == stream
        got = live(
            params, LIVE, other, heard, controls._replace(gaze=gaze), seeds,
            scales={n: np.where(mine, s, 7).astype(np.float32) for n, s in SCALES.items()},
            active=[jnp.asarray(mine | (n % 2 == 0)) for n in range(hops)],
            reset=[jnp.asarray(~mine & (n == 2)) for n in range(hops)],
        )  # fmt: skip
        np.testing.assert_array_equal(got[stream], base[stream])
        assert not np.array_equal(got[1 - stream], base[1 - stream])


def test_reset_equals_a_fresh_start(params):
    audio, valid, controls = inputs()
    hops = FRAMES // LIVE.hop
    at = 3
    reset = [jnp.asarray([n == at, False]) for n in range(hops)]
    got = live(params, LIVE, audio, valid, controls, [1, 2], reset=reset)
    start = at * LIVE.hop
    later = jax.tree.map(lambda x: x[:, start:], (audio, valid, controls))
    fresh = live(params, LIVE, *later, [1, 2])
    undisturbed = live(params, LIVE, audio, valid, controls, [1, 2])
    np.testing.assert_array_equal(got[0, start:], fresh[0])
    np.testing.assert_array_equal(got[1], undisturbed[1])


def test_reset_with_a_seed_is_another_stream_from_its_beginning(params):
    audio, valid, controls = inputs(frames=2 * LIVE.hop)
    first, second = (slice(i * LIVE.hop, (i + 1) * LIVE.hop + AHEAD) for i in range(2))

    def run(state, part, reset):
        return live_step(
            params, MODEL, LIVE, state, audio[:, part], valid[:, part],
            Controls(*(x[:, part] for x in controls)), SCALES, active_B=jnp.ones(2, bool),
            reset_B=jnp.asarray(reset), seed_B=jnp.asarray([7, 8], jnp.uint32),
        )  # fmt: skip

    state, _ = run(rolling.init_state(MODEL, jnp.asarray([1, 2])), first, [False, False])
    state, got = run(state, second, [True, False])
    _, fresh = run(rolling.init_state(MODEL, jnp.asarray([7, 2])), second, [False, False])
    np.testing.assert_array_equal(got[0], fresh[0])
    assert state.frame.tolist() == [LIVE.hop, 2 * LIVE.hop]


def test_scale_zero_is_no_guidance_and_each_stream_has_its_own(params):
    audio, valid, controls = inputs()
    mixed = rolling.guidance_scales(LIVE, 2, {"audio": np.array([0.0, 2.0])})
    got = live(params, LIVE, audio, valid, controls, [1, 2], scales=mixed)
    plain = dataclasses.replace(LIVE, guided=())
    unguided = live(params, plain, audio, valid, controls, [1, 2], scales={})
    np.testing.assert_allclose(got[0], unguided[0], atol=2e-6)
    assert np.abs(got[1] - unguided[1]).max() > 1e-3
    with pytest.raises(ValueError, match="no guidance branch"):
        rolling.guidance_scales(LIVE, 2, {"emotion": 1.0})


def test_missing_sound_is_missing_in_the_past_too(params):
    """What a lost packet held (here NaN) is never looked at, also when it has become the past."""
    audio, valid, controls = inputs()
    valid = valid.copy()
    valid[:, 4:8] = False
    lost = live(params, LIVE, np.where(valid[..., None], audio, np.nan), valid, controls, [1, 2])
    zeros = live(params, LIVE, np.where(valid[..., None], audio, 0), valid, controls, [1, 2])
    silent = live(
        params, LIVE, np.where(valid[..., None], audio, 0), valid | True, controls, [1, 2]
    )
    np.testing.assert_array_equal(lost, zeros)
    assert np.isfinite(lost).all() and np.abs(lost[:, 9:12] - silent[:, 9:12]).max() > 1e-5


def test_a_paused_stream_continues_where_it_was(params):
    audio, valid, controls = inputs()
    plain = live(params, LIVE, audio, valid, controls, [1, 2])
    twice = jax.tree.map(
        lambda x: np.concatenate([x[:, : LIVE.hop + AHEAD], x[:, LIVE.hop + AHEAD :]], 1),
        (audio, valid, controls),
    )
    state = rolling.init_state(MODEL, jnp.asarray([1, 2]))
    out = []
    for start in range(0, FRAMES, LIVE.hop):
        part = slice(start, start + LIVE.hop + AHEAD)
        for active in (False, True):  # every hop is refused once
            state, motion = live_step(
                params, MODEL, LIVE, state, twice[0][:, part], twice[1][:, part],
                jax.tree.map(lambda x: x[:, part], twice[2]), SCALES,  # noqa: B023
                active_B=jnp.asarray([active, active]), reset_B=jnp.zeros(2, bool),
                seed_B=jnp.zeros(2, jnp.uint32),
            )  # fmt: skip
            if active:
                out.append(np.asarray(motion))
            else:
                assert not np.asarray(motion).any()
    np.testing.assert_array_equal(np.concatenate(out, 1), plain)


def test_padding_may_hold_anything(params):
    audio, valid, controls = inputs()
    valid = valid.copy()
    valid[:, 14:] = False
    clean = live(params, LIVE, np.where(valid[..., None], audio, 0), valid, controls, [1, 2])
    poisoned = live(
        params, LIVE, np.where(valid[..., None], audio, np.nan), valid, controls, [1, 2]
    )
    np.testing.assert_array_equal(clean, poisoned)
    assert np.isfinite(clean).all()


def test_guided_step_equals_the_branches_evaluated_one_by_one(params):
    """Equation 2 by hand, with one evaluation (a single step from noise)."""
    from vasa_jax.motion.model import MotionModel

    audio, valid, controls = inputs(frames=8)
    cfg = RollingConfig(hop=8, steps=1, guided=("audio", "gaze"), temperature=1.0)
    state, again = (rolling.init_state(MODEL, jnp.asarray([1, 2])) for _ in range(2))
    args = (audio, valid, controls)
    yes, no = jnp.ones(2, bool), jnp.zeros(2, bool)
    _, got = live_step(params, MODEL, cfg, again, *args, SCALES, active_B=yes, reset_B=no)

    net, k = MotionModel(MODEL), MODEL.past
    noise = rolling._frame_noise(state.key, state.frame, 8, 0, MOTION_DIM)
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


@pytest.mark.parametrize(
    "cfg",
    [
        pytest.param(LIVE, id="live"),
        pytest.param(WINDOWED, id="windowed", marks=pytest.mark.slow),
    ],
)
def test_the_step_compiles_once_while_everything_changes(params, compilations, cfg):
    """Speech, controls, scales, and streams that start, pause, stop, come back and start anew."""
    cfg = dataclasses.replace(cfg, steps=3)  # no other test compiles this
    rng = np.random.default_rng(0)
    frames = cfg.hop + AHEAD
    weights = jax.device_put(params)
    state = jax.device_put(rolling.init_state(MODEL, jnp.asarray([1, 2])))
    hops = []
    for n in range(8):
        audio, valid, controls = inputs(cfg.hop, seed=n)
        valid[1] = np.arange(frames) < frames - n  # its recording ends
        controls = controls._replace(
            gaze_on=np.full((2, frames), n % 3 == 0, np.float32),
            emotion=rng.uniform(0, 1, (2, frames, 8)).astype(np.float32),
            emotion_on=np.full((2, frames), n % 2, np.float32),
        )
        scales = rolling.guidance_scales(cfg, 2, {"audio": rng.uniform(0, 2, 2), "gaze": 0.2 * n})
        active, reset = np.array([n > 1, n % 2 == 0]), np.array([n == 2, n == 5])
        seeds = rng.integers(0, 1000, 2).astype(np.uint32)
        hops.append(jax.device_put((audio, valid, controls, scales, active, reset, seeds)))

    def run(state, hop):
        *given, active, reset, seeds = hop
        return live_step(weights, MODEL, cfg, state, *given, active_B=active, reset_B=reset,
                         seed_B=seeds)  # fmt: skip

    compilations.clear()
    old = state
    state, motion = run(state, hops[0])
    jax.block_until_ready(motion)
    assert len(compilations) == 1 and old.past_motion.is_deleted()  # donated
    with jax.no_tracing(True), jax.transfer_guard("disallow"):
        for hop in hops[1:]:
            state, motion = run(state, hop)
        jax.block_until_ready(motion)
    assert len(compilations) == 1
    assert state.frame.tolist() == [6 * cfg.hop, cfg.hop]


def test_a_config_says_what_is_wrong():
    with pytest.raises(ValueError, match="hop 0"):
        RollingConfig(hop=0)
    with pytest.raises(ValueError, match="no condition"):
        RollingConfig(guided=("posture",))


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


def test_temperature_scales_the_noise_of_the_mouth_alone(params, monkeypatch):
    """With a sampler that gives back what it starts from, the step's motion is its noise."""
    monkeypatch.setattr(rolling.samplers, "sample", lambda step, schedule, denoise, x, *_: x)
    audio, valid, controls = inputs()
    made = {}
    for temperature in (1.0, 0.25):
        cfg = RollingConfig(hop=8, guided=(), temperature=temperature)
        state = rolling.init_state(MODEL, jnp.asarray([5, 6]))
        part = slice(0, 8 + AHEAD)
        _, made[temperature] = rolling.step(
            params, MODEL, cfg, state, audio[:, part], valid[:, part],
            jax.tree.map(lambda x: x[:, part], controls), {},  # noqa: B023
            active_B=jnp.ones(2, bool), reset_B=jnp.zeros(2, bool),
        )  # fmt: skip
    mouth = np.zeros(MOTION_DIM, bool)
    mouth[list(MOUTH)] = True
    np.testing.assert_array_equal(made[0.25][..., ~mouth], made[1.0][..., ~mouth])
    np.testing.assert_allclose(made[0.25][..., mouth], 0.25 * made[1.0][..., mouth], rtol=1e-6)
    assert made[1.0][..., mouth].std() > 0.8


def test_guidance_interval_is_guidance_at_those_times_only(params):
    audio, valid, controls = inputs(8)
    made = {}
    for name, interval in (("all", (0.0, 1.0)), ("none", (2.0, 3.0)), ("some", (0.3, 0.8))):
        _, made[name] = live_step(
            params, MODEL, WINDOWED, rolling.init_state(MODEL, jnp.asarray([5, 6])), audio, valid,
            controls, SCALES, active_B=jnp.ones(2, bool), reset_B=jnp.zeros(2, bool),
            interval=(jnp.float32(interval[0]), jnp.float32(interval[1])),
        )  # fmt: skip
    guided = live(params, WINDOWED, audio, valid, controls, [5, 6])
    unguided = live(
        params, WINDOWED, audio, valid, controls, [5, 6],
        scales=jax.tree.map(np.zeros_like, SCALES),
    )  # fmt: skip
    np.testing.assert_allclose(made["all"], guided, atol=2e-6)
    np.testing.assert_allclose(made["none"], unguided, atol=2e-6)
    assert np.abs(made["some"] - guided).max() > 1e-3
    assert np.abs(made["some"] - unguided).max() > 1e-3
