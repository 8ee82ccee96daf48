"""The whole motion model, and the mistakes that re-implementations of the paper made in it.

Timestep forgotten, audio that cannot be dropped, one position code for all frames, a padding
channel left out: each is a missing dependence (or one too many), so gradients find it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.core.arkit import MOTION_DIM
from vasa_jax.core.config import from_json, load_config
from vasa_jax.core.tree import count, differences, flatten
from vasa_jax.core.types import Controls
from vasa_jax.losses.diffusion import group_weights
from vasa_jax.motion.conditions import CONDITION_NAMES
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModel, MotionModelConfig, init_params
from vasa_jax.train.motion import window_loss

B = 2
NULLS = {
    "audio": {"audio/absent", "audio/null"},
    "past": {"audio/absent", "audio/null", "transformer/null_past"},
    "gaze": {"transformer/controls/null_gaze"},
    "distance": {"transformer/controls/null_distance"},
    "emotion": {"transformer/controls/null_emotion"},
}


class Probe:
    """A small model of a config, its inputs with every condition asked for, and its gradients."""

    def __init__(self, path):
        self.cfg = cfg = load_config(path).model
        self.params = jax.jit(init_params, static_argnums=0)(cfg, jax.random.key(0))
        k, w, rng = cfg.past, cfg.window, np.random.default_rng(0)

        def draw(*shape):
            return jnp.asarray(rng.normal(0, 1, shape), jnp.float32)

        on = jnp.ones((B, w))
        self.inputs = {
            "noisy": draw(B, w, MOTION_DIM),
            "t": jnp.full(B, 0.6),
            "features": draw(B, k + w + cfg.lookahead_frames, cfg.features.dim),
            "past": draw(B, k, MOTION_DIM),
            "controls": Controls(
                0.2 * draw(B, w, 2), on, 1.0 + 0.1 * draw(B, w), on, draw(B, w, 8), on
            ),
        }
        self.heard = jnp.ones(self.inputs["features"].shape[:2], bool)
        weights = draw(B, w, MOTION_DIM)

        def run(params, inputs, heard, keep):
            return MotionModel(cfg).apply(
                {"params": params}, inputs["noisy"], inputs["t"],
                features_BAD=inputs["features"], audio_valid_BA=heard, past_BKM=inputs["past"],
                past_valid_BK=jnp.ones((B, k), bool), motion_valid_BT=jnp.ones((B, w), bool),
                controls=inputs["controls"], keep=keep,
            )[0]  # fmt: skip

        self._run = jax.jit(run)
        self._grad = jax.jit(jax.grad(lambda *a: (run(*a) * weights).sum(), argnums=(0, 1)))

    def keep(self, **dropped):
        """All conditions kept, but for the rows named: ``gaze=[0]`` drops row 0's gaze."""
        rows = np.arange(B)
        return {n: jnp.asarray(~np.isin(rows, dropped.get(n, []))) for n in CONDITION_NAMES}

    def out(self, keep=None, **changed):
        keep = self.keep() if keep is None else keep
        return np.asarray(self._run(self.params, {**self.inputs, **changed}, self.heard, keep))

    def gradients(self, keep, heard=None):
        heard = self.heard if heard is None else heard
        params, inputs = self._grad(self.params, self.inputs, heard, keep)
        by_frame = {
            "noisy": inputs["noisy"], "past": inputs["past"], "features": inputs["features"],
            "gaze": inputs["controls"].gaze, "distance": inputs["controls"].distance[..., None],
            "emotion": inputs["controls"].emotion, "t": inputs["t"][:, None],
        }  # fmt: skip
        return {n: np.abs(np.asarray(g)).sum(-1) for n, g in by_frame.items()}, {
            n: float(np.abs(np.asarray(g)).sum()) for n, g in flatten(params).items() if "nu" in n
            or n == "audio/absent"
        }  # fmt: skip


@pytest.fixture(scope="module", params=["configs/motion_base.py", "configs/motion_lite.py"])
def probe(request):
    return Probe(f"{request.param}:smoke")


def test_time_and_every_frame_of_every_condition_reach_the_motion(probe):
    reached, nulls = probe.gradients(probe.keep())
    for name, g in reached.items():
        assert (g > 0).all(), name
    assert not any(nulls.values()), "a null is in use although nothing was dropped"


@pytest.mark.parametrize("name", CONDITION_NAMES)
def test_a_dropped_condition_is_gone_and_only_its_null_is_used(probe, name):
    everybody = list(range(B))
    reached, nulls = probe.gradients(probe.keep(**{name: everybody}))
    k = probe.cfg.past
    gone = {
        "audio": [reached["features"][:, k:]],
        "past": [reached["features"][:, :k], reached["past"]],
    }.get(name, [reached.get(name)])
    there = [g for n, g in reached.items() if n not in (name, "features")]
    there += {"audio": [reached["features"][:, :k]], "past": [reached["features"][:, k:]]}.get(
        name, [reached["features"]]
    )
    assert not any(g.any() for g in gone)
    assert all((g > 0).all() for g in there if not any(g is h for h in gone))
    assert {n for n, g in nulls.items() if g > 0} == NULLS[name]


def test_dropping_for_one_example_leaves_the_other_alone(probe):
    base = probe.out()
    for name in CONDITION_NAMES:
        got = probe.out(probe.keep(**{name: [0]}))
        np.testing.assert_array_equal(got[1], base[1])
        assert np.abs(got[0] - base[0]).max() > 0, name


def test_sound_cut_off_at_the_end_is_masked_and_replaced_by_the_null(probe):
    """Tail truncation: what lies after the cut has no effect, what lies before has."""
    cut = probe.cfg.past + 9
    heard = probe.heard & (jnp.arange(probe.heard.shape[1]) < cut)[None]
    reached, nulls = probe.gradients(probe.keep(), heard)
    assert (reached["features"][:, :cut] > 0).all() and not reached["features"][:, cut:].any()
    assert {n for n, g in nulls.items() if g > 0} == NULLS["audio"]


def test_every_frame_has_its_own_position_code(probe):
    """With the same content in all frames, no two frames of the window get the same answer; and a
    shuffled window is not answered by the shuffled answer."""
    noisy = probe.inputs["noisy"]
    same = jnp.broadcast_to(noisy[:, :1], noisy.shape)
    silent = probe.keep(audio=[0, 1], past=[0, 1])  # no other clue to the place in the window
    controls = jax.tree.map(lambda x: jnp.broadcast_to(x[:, :1], x.shape), probe.inputs["controls"])
    out = probe.out(silent, noisy=same, controls=controls)[0]
    gap = np.abs(out[:, None] - out[None]).max(-1) + np.eye(len(out))
    assert (gap > 1e-7).all()
    order = np.random.default_rng(0).permutation(len(out))
    shuffled = probe.out(silent, noisy=noisy[:, order], controls=controls)[0]
    plain = probe.out(silent, controls=controls)[0]
    assert np.abs(shuffled - plain[order]).max() > 1e-6


# --- the full-size config ------------------------------------------------------------------------


@pytest.fixture
def flax_may_promote():
    """Flax's own layer norm mixes bfloat16 and float32."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def base():
    return load_config("configs/motion_base.py")


@functools.cache
def shapes(model):
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def test_the_full_model_has_the_papers_size_and_tokens(base, flax_may_promote):
    model = base.model
    assert 25e6 < count(shapes(model)) < 30e6
    t = model.transformer
    assert (t.depth, t.width, t.num_heads) == (8, 512, 8)
    assert model.prediction == "x0" and base.loss.velocity == 0.0
    assert not t.align_audio and not t.frame_controls  # figure 2 draws neither
    drop = base.drop
    assert (drop.condition, drop.past) == (0.1, 0.5) and drop.tail > 0
    k, w = model.past, model.window

    def trace(key):
        _, seen = MotionModel(model).apply(
            {"params": init_params(model, key)}, jnp.zeros((1, w, MOTION_DIM)), jnp.zeros(1),
            features_BAD=jnp.zeros((1, k + w + model.lookahead_frames, model.features.dim)),
            audio_valid_BA=jnp.ones((1, k + w + model.lookahead_frames), bool),
            past_BKM=jnp.zeros((1, k, MOTION_DIM)), past_valid_BK=jnp.ones((1, k), bool),
            motion_valid_BT=jnp.ones((1, w), bool), controls=Controls.none(1, w), keep={},
            capture_intermediates=True, mutable=["intermediates"],
        )  # fmt: skip
        return seen["intermediates"]["transformer"]["blocks"]["__call__"][0]

    assert jax.eval_shape(trace, jax.random.key(0)).shape == (1, 2 * (k + w) + 1, 512)


def test_pose_and_dynamics_weigh_the_same_in_the_full_model(base):
    space = base.model.motion_space
    weights = group_weights(base.loss, space)
    pose = weights[list(space.groups["pose"])].sum()
    np.testing.assert_allclose(pose, weights.sum() - pose, rtol=1e-5)


@pytest.mark.parametrize("variant", ["base", "aligned"])
def test_a_training_step_of_the_full_model_traces(variant, flax_may_promote):
    """Shapes and dtypes only (compute in bfloat16); nothing of this size is computed."""
    cfg = load_config(f"configs/motion_base.py:{variant}")
    model, b = cfg.model, 4
    k, w, a = model.past, model.window, model.past + model.window + model.lookahead_frames
    batch = {
        "features": jnp.zeros((b, a, model.features.dim)),
        "audio_valid": jnp.ones((b, a), bool),
        "motion": jnp.zeros((b, k + w, MOTION_DIM)),
        "motion_valid": jnp.ones((b, k + w), bool),
        "viseme": jnp.zeros((b, k + w), jnp.int32),
        "trust": jnp.ones((b, MOTION_DIM)),
        "controls": Controls.none(b, w),
    }
    params = shapes(model)

    def gradient(params):
        stats = MotionStats.unit()
        return jax.grad(
            lambda p: window_loss(cfg, stats, p, batch, jax.random.key(0)), has_aux=True
        )(params)

    grads, terms = jax.eval_shape(gradient, params)
    assert not differences(params, grads) and terms["loss"].dtype == jnp.float32


def test_the_shipped_weights_fit_the_code():
    from vasa_jax.checkpoint.release import load_release

    release = load_release("lite")
    model = from_json(MotionModelConfig, release.config["motion"]["model"])
    assert not differences(shapes(model), release.params["motion"])
    table = release.stats["motion"]["motion"]  # statistics travel with the weights
    assert MotionStats.from_json(table).std.shape == (MOTION_DIM,)
