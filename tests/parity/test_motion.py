"""The PyTorch twin of stage 2 against ours: values, gradients, and the rolling step."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.audio.encoder import EncoderConfig
from vasa_jax.core.arkit import MOTION_DIM
from vasa_jax.core.types import Controls
from vasa_jax.generate import rolling as ours
from vasa_jax.motion.model import MotionModel, MotionModelConfig, init_params
from vasa_jax.motion.transformer import TransformerConfig

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tools.torch_ref import motion as twins  # noqa: E402  # after the skip
from tools.torch_ref import rolling, weights  # noqa: E402

ATOL = 2e-5  # float32, outputs of about one
LITE = MotionModelConfig(
    encoder=EncoderConfig(width=16, hidden=24, num_blocks=2),
    transformer=TransformerConfig(depth=2, width=16, num_heads=2, audio_tokens=False),
    window=12, past=4, num_visemes=3,
)  # fmt: skip
PAPER = dataclasses.replace(
    LITE,
    transformer=TransformerConfig(
        depth=2, width=16, num_heads=2, align_audio=False, frame_controls=False
    ),
)


def make(cfg: MotionModelConfig):
    shapes = jax.eval_shape(lambda k: init_params(cfg, k), jax.random.key(0))
    params = weights.random_weights(shapes)
    return params, weights.load(twins.MotionModel(cfg), params)


def random_controls(rng: np.random.Generator, *lead: int) -> Controls:
    on = lambda: rng.integers(0, 2, lead).astype(np.float32)  # noqa: E731
    return Controls(
        gaze=rng.normal(0, 0.2, (*lead, 2)).astype(np.float32), gaze_on=on(),
        distance=rng.uniform(0.8, 1.2, lead).astype(np.float32), distance_on=on(),
        emotion=rng.uniform(0, 1, (*lead, 8)).astype(np.float32), emotion_on=on(),
    )  # fmt: skip


@pytest.mark.parametrize("cfg", [LITE, PAPER], ids=["lite", "paper"])
def test_encoder_and_transformer(cfg: MotionModelConfig) -> None:
    params, net = make(cfg)
    rng = np.random.default_rng(1)
    b, k, w, ahead = 3, cfg.past, cfg.window, cfg.lookahead_frames
    features = rng.normal(size=(b, k + w + ahead, cfg.features.dim)).astype(np.float32)
    heard = rng.random((b, k + w + ahead)) < 0.8
    keep = {"audio": np.array([True, False, True]), "past": np.array([True, True, False]),
            "gaze": np.array([False, True, True])}  # fmt: skip
    past = rng.normal(size=(b, k, MOTION_DIM)).astype(np.float32)
    past_valid = rng.random((b, k)) < 0.7
    motion_valid = np.arange(w)[None] < np.array([w, w - 3, 5])[:, None]
    noisy = rng.normal(size=(b, w, MOTION_DIM)).astype(np.float32)
    t = np.array([0.05, 0.5, 0.99], np.float32)
    controls = random_controls(rng, b, w)

    model, variables = MotionModel(cfg), {"params": params}
    tokens = model.apply(variables, features, heard, keep, method="encode")
    expected = model.apply(
        variables, noisy, t, method="denoise", audio_BAD=tokens, past_BKM=past,
        past_valid_BK=past_valid, motion_valid_BT=motion_valid, controls=controls, keep=keep,
    )  # fmt: skip
    mouth, logits = model.apply(variables, tokens, method="heads")

    q = weights.tensors
    with torch.no_grad():
        made = net.encode(q(features), q(heard), q(keep))
        prepared = net.prepare(
            made, q(past), q(past_valid), q(motion_valid), q(controls), q(keep)
        )  # fmt: skip
        x0 = net.denoise(q(noisy), q(t), prepared)
        made_mouth, made_logits = net.heads(made)
    np.testing.assert_allclose(made, tokens, atol=ATOL)
    np.testing.assert_allclose(made_mouth, mouth, atol=ATOL)
    np.testing.assert_allclose(made_logits, logits, atol=ATOL)
    # A frame that is hidden from the others still has an output, which nobody looks at.
    np.testing.assert_allclose(
        x0.numpy()[motion_valid], np.asarray(expected)[motion_valid], atol=ATOL
    )
    assert np.asarray(expected)[motion_valid].std() > 0.1


@pytest.mark.parametrize("guided", [(), ("audio", "gaze")], ids=["student", "guided"])
def test_rolling_step(guided: tuple[str, ...]) -> None:
    params, net = make(LITE)
    cfg = ours.RollingConfig(hop=3, ahead=1, steps=3, guided=guided)
    scales = {name: np.array([0.5, 1.5], np.float32) for name in guided}
    rng = np.random.default_rng(2)
    state = ours.init_state(LITE, jnp.array([7, 8]))
    twin = rolling.Rolling(net, cfg)
    mine = rolling.RollingState.fresh(LITE, 2, "cpu")
    q = weights.tensors
    step = jax.jit(ours.step, static_argnums=(1, 2))
    for i in range(4):
        audio = rng.normal(size=(2, 4, LITE.features.dim)).astype(np.float32)
        valid = np.array([[True] * 4, [True, True, i < 2, False]])
        controls = random_controls(rng, 2, 4)
        active = np.array([True, i != 1])
        reset = np.array([i == 3, i == 0])
        # Our noise of the frames that the step is about to make.
        frame = jnp.where(reset, 0, state.frame)
        noise = ours._frame_noise(state.key, frame, cfg.frames(LITE), 0)
        state, expected = step(
            params, LITE, cfg, state, audio, valid, controls, scales, active_B=active,
            reset_B=reset,
        )  # fmt: skip
        with torch.no_grad():
            mine, made = twin.step(
                mine, q(audio), q(valid), q(controls), q(scales), active_B=q(active),
                reset_B=q(reset), noise=q(noise),
            )  # fmt: skip
        np.testing.assert_allclose(made, expected, atol=5 * ATOL)
        for name in ("past_motion", "past_audio", "past_valid", "past_heard", "frame"):
            np.testing.assert_allclose(
                getattr(mine, name), getattr(state, name), atol=5 * ATOL, err_msg=name
            )
    assert np.asarray(expected).std() > 0.1


def test_converter_uses_every_leaf_once() -> None:
    params, net = make(LITE)
    names = {name.replace("/scale", "/kernel") for name in weights.flatten(params)}
    assert set(weights.gradients(net)) == names
    with pytest.raises(ValueError, match="without a tensor: audio/surplus"):
        weights.convert({**params, "audio": {**params["audio"], "surplus": np.zeros(2)}},
                        net.state_dict())  # fmt: skip
    short = {**params, "mouth_head": {"bias": params["mouth_head"]["bias"]}}
    with pytest.raises(ValueError, match="mouth_head.weight: no leaf"):
        weights.convert(short, net.state_dict())
    wrong = {**params, "mouth_head": {"bias": np.zeros(3), "kernel": np.zeros((16, 3))}}
    with pytest.raises(ValueError, match="mouth_head/kernel is"):
        weights.convert(wrong, net.state_dict())
