"""Train ``E_motion`` (``face/head/reader.py``) on the head model: unlimited people, no pictures.

One example is a person of random shape, seen twice: at rest and with an expression, each in its own
pose and crop, through a detector that errs. Expressions come from acted speech (which weights occur
together) and, for coverage, from random sparse combinations. The detector's errors have a part
that belongs to the person (it cancels), a smooth part and a white part of each frame. What is known
of the person's depth is a guess of identity, as a fit to one frame would give it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.arkit import EXPRESSION, EXPRESSION_NAMES
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import Array
from vasa_jax.data.faces import example_head
from vasa_jax.data.folders import data_folder
from vasa_jax.data.shards import Shard, motion_shards
from vasa_jax.face.find.finder import LEFT_LIDS, RIGHT_LIDS
from vasa_jax.face.head import head as heads
from vasa_jax.face.head import reader as encoder
from vasa_jax.face.head.fit import landmark_head
from vasa_jax.face.head.head import Head
from vasa_jax.face.head.reader import MotionEncoder, MotionEncoderConfig
from vasa_jax.motion.arkit import lips
from vasa_jax.synth.speech import visemes
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig, descend, make_optimizer
from vasa_jax.train.state import TrainState

CROP_UNITS_PER_CM = 1 / 14.0  # of a usual crop
BLINK = tuple(i for i, n in enumerate(EXPRESSION_NAMES) if n.startswith("eyeBlink"))
MOUTH = tuple(i for i, n in enumerate(EXPRESSION_NAMES) if n.startswith(("mouth", "jaw")))

# Share of a movement across and up the face that the detector follows: the slope of detected on
# true displacement, less each person's median error, over 800 rendered stills of 80 people.
RESPONSE = (
    (encoder.INNER_LIPS + encoder.OUTER_LIPS + encoder.LIP_RING, 0.63, 0.92),
    (encoder.LIDS, 1.0, 1.0),
    (encoder.IRISES, 0.75, 0.6),
    (encoder.BROWS, 0.56, 0.78),
    (encoder.CHEEKS, 0.63, 0.56),
    (encoder.JAW, 0.54, 0.78),
    (encoder.NOSE, 0.67, 0.66),
)
OTHER_RESPONSE = 0.65
LID_LAG = 0.26  # share of a closing lid's way that the detector does not see, on the same stills
# Weight of the blink, lids, iris, and the middle of both lids, for both eyes. Under a closed lid
# the detector puts the iris between the lids, which must not be read as a glance down.
EYES = (
    (visemes.INDEX["eyeBlink_R"], LEFT_LIDS, tuple(range(468, 473)), 159, 145),
    (visemes.INDEX["eyeBlink_L"], RIGHT_LIDS, tuple(range(473, 478)), 386, 374),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDataConfig:
    """People, poses and the detector's errors. Lengths in cm of the head, angles in rad."""

    folder: str = ""  # of motion shards whose expressions are drawn; "$NAME" works; empty: none
    held_out: float = 0.1  # share of the shards' rows, the end, only for evaluation
    sparse: float = 0.3  # share of random sparse expressions (all of them without a folder)
    identity: float = 0.8  # sigmas
    identity_error: float = 0.5  # sigmas, of what is known of the person's depth
    rest_weight: float = 0.12  # expression weights that belong to the person
    bias_cm: float = 0.12  # smooth, the person's own: shapes that the model has not
    gain: float = 0.15  # deviation of the detector's response, smooth, the person's own
    smooth_cm: tuple[float, float] = (0.01, 0.08)
    white_cm: tuple[float, float] = (0.005, 0.04)  # of a frame; the rest face is a median
    angle: tuple[float, float, float] = (0.18, 0.12, 0.1)  # deviation of yaw, pitch, roll
    eye: tuple[float, float] = (0.2, 0.12)  # deviation of the eye in the head


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderTrainConfig:
    """Everything about a run of ``E_motion``."""

    model: MotionEncoderConfig = MotionEncoderConfig()
    data: EncoderDataConfig = EncoderDataConfig()
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    batch: int = 128
    head: str = ""  # path of the reduced head; empty: that of the bundled release
    shape: float = 2.0  # weight of the error in what the weights do to the landmarks (cm)
    gap: float = 4.0  # of the error of the lips' opening (cm)
    gaze: float = 4.0  # of the error of the eyes' direction (rad)
    seed: int = 0

    def task(self) -> EncoderTask:
        return EncoderTask(self)


class Scene(NamedTuple):
    """What examples are made from; constant over a run."""

    lm_head: Head  # reduced to its landmarks
    anchor: encoder.Anchors  # of the head's pose
    smooth: Array  # (478, R) fields over the face, unit deviation
    response: Array  # (478, 2) of the detector, see RESPONSE


def scene_of(head: Head) -> Scene:
    """Landmarks of a head with smooth fields of two widths over them, for errors."""
    lm_head = landmark_head(head)
    points = np.asarray(lm_head.base)
    square = np.square(points[:, None] - points[None]).sum(-1)
    kernel = 0.5 * np.exp(-square / 2 / 1.2**2) + 0.5 * np.exp(-square / 2 / 4.0**2)
    value, vector = np.linalg.eigh(kernel)
    smooth = vector[:, -32:] * np.sqrt(value[-32:])
    response = np.full((len(points), 2), OTHER_RESPONSE, np.float32)
    for rows, *gain in RESPONSE:
        response[list(rows)] = gain
    return Scene(
        jax.tree.map(jnp.asarray, lm_head),
        encoder.anchors(lm_head, head.landmark_trust),
        jnp.asarray(smooth, jnp.float32),
        jnp.asarray(response),
    )


class Example(NamedTuple):
    """Landmarks (478, 2) in [-1, 1] of two frames, a guess of the person, and the truth."""

    guess: Array  # (478, 3) cm, the person as far as a fit knows them
    rest: Array  # (478, 2)
    frame: Array  # (478, 2)
    expression: Array  # (45,) relative to the rest face
    eye: Array  # (2,) rad in the head


def draw(cfg: EncoderDataConfig, scene: Scene, expression_E: jax.Array, key: jax.Array) -> Example:
    """One example with the given expression; everything else is drawn from ``key``."""
    k = iter(jax.random.split(key, 24))
    normal = lambda *shape: jax.random.normal(next(k), shape)  # noqa: E731
    uniform = lambda low, high: jax.random.uniform(next(k), (), minval=low, maxval=high)  # noqa: E731
    lm = scene.lm_head
    modes, fields = lm.identity.shape[0], scene.smooth.shape[1]
    identity = cfg.identity * normal(modes)
    own, centers = heads.person(lm, identity)
    own = own + cfg.bias_cm * scene.smooth @ normal(fields, 3)
    guess, _ = heads.person(lm, identity + cfg.identity_error * normal(modes))
    resting = cfg.rest_weight * jnp.abs(normal(45)) * (normal(45) > 0.5)
    both = resting + expression_E
    for i in BLINK:  # narrow eyes stay narrow and still close fully
        both = both.at[i].set(resting[i] + (1 - resting[i]) * expression_E[i])

    response = scene.response * (1 + cfg.gain * scene.smooth @ normal(fields, 2))

    def view(expression: jax.Array, eye: jax.Array, turn: float) -> tuple[jax.Array, jax.Array]:
        angle = turn * jnp.array(cfg.angle) * normal(3)
        rot = heads.rotation(angle[0], angle[1], angle[2])
        size = CROP_UNITS_PER_CM * jnp.exp(0.15 * normal())
        at = 0.1 * normal(2)
        where = jnp.stack([at[0], at[1], size])

        def place(e: jax.Array, eye: jax.Array) -> jax.Array:
            return heads.place(heads.deform(lm, own, centers, e, eye), rot, where)[:, :2]

        still = place(resting, jnp.zeros(2))
        way = place(expression, eye) - still
        placed = still + response * way
        for i, lids, iris, upper, lower in EYES:
            closed = jnp.clip(expression[i], 0, 1) ** 2
            at_lids, at_iris = jnp.array(lids), jnp.array(iris)
            placed = placed.at[at_lids].add(-LID_LAG * closed * way[at_lids])
            between = (placed[upper] + placed[lower]) / 2 - placed[at_iris].mean(0)
            placed = placed.at[at_iris].add(closed * between)
        wave = uniform(*cfg.smooth_cm) * scene.smooth @ normal(fields, 2)
        return placed + (turn * size) * wave, size

    limit = jnp.array([heads.MAX_EYE_YAW, heads.MAX_EYE_PITCH])
    eye = jnp.clip(jnp.array(cfg.eye) * normal(2), -limit, limit)
    frame, size = view(both, eye, 1.0)
    white = jax.random.uniform(next(k), frame.shape, minval=-(3**0.5), maxval=3**0.5)
    frame = frame + size * uniform(*cfg.white_cm) * white
    # The rest face is the middle of many frames: less turned, less error, eyes nearly straight.
    rest, _ = view(resting, 0.3 * jnp.array(cfg.eye) * normal(2), 0.5)
    return Example(guess, rest, frame, expression_E, eye)


def example_features(scene: Scene, example: Example) -> jax.Array:
    """What the net sees of an example, see ``motion_encoder.observe``."""
    rest = encoder.rest_face(example.guess, example.rest, scene.anchor)
    features, _, _ = encoder.observe(rest, scene.lm_head.base, example.frame, scene.anchor)
    return features


def expression_rows(folder: str) -> np.ndarray:
    """All expressions (N, 45) of the motion shards in a folder, (0, 45) without a folder."""
    if not folder:
        return np.zeros((0, len(EXPRESSION_NAMES)), np.float32)
    path = data_folder(folder, "data.folder")
    rows = [Shard(shard).motion()[:, EXPRESSION] for shard in motion_shards(path)]
    if not rows:
        raise UserError(
            f"no motion shards in {path}; make some with python -m vasa_jax.prepare.shards"
        )
    return np.concatenate(rows)


def sparse_expressions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random expressions (N, 45): one to six movements, mostly on both sides alike."""
    names = sorted({n.removesuffix("_L").removesuffix("_R") for n in EXPRESSION_NAMES})
    sides = [[visemes.INDEX[n + s] for s in ("", "_L", "_R") if n + s in visemes.INDEX]
             for n in names]  # fmt: skip
    out = np.zeros((count, len(EXPRESSION_NAMES)), np.float32)
    for row in out:
        for j in rng.choice(len(names), rng.integers(1, 7), replace=False):
            value = rng.beta(1.0, 2.0)
            row[sides[j]] = value
            if len(sides[j]) == 2 and rng.uniform() < 0.2:
                row[sides[j]] *= rng.uniform(0, 1, 2)
        # What the jaw opens, mouthClose can at most shut.
        close, jaw = visemes.INDEX["mouthClose"], visemes.INDEX["jawOpen"]
        row[close] = min(row[close], 0.8 * row[jaw])
    return out


def mixed_expressions(
    cfg: EncoderDataConfig, rows: np.ndarray, rng: np.random.Generator, count: int
) -> np.ndarray:
    """Expressions (N, 45): mouths and upper faces of two acted moments, or sparse ones."""
    sparse = sparse_expressions(rng, count)
    if not len(rows):
        return sparse
    mouth, upper = (rows[rng.integers(len(rows), size=count)].astype(np.float32) for _ in range(2))
    acted = upper.copy()
    acted[:, MOUTH] = mouth[:, MOUTH] * rng.uniform(0.6, 1.3, (count, 1))
    chosen = rng.uniform(size=(count, 1)) < cfg.sparse
    return np.where(chosen, sparse, acted).clip(0, 1).astype(np.float32)


class EncoderTask:
    """``E_motion`` for ``train/loop.py``."""

    def __init__(self, cfg: EncoderTrainConfig):
        self.cfg = cfg
        self.scene = scene_of(heads.load_head(cfg.head) if cfg.head else example_head())
        rows = expression_rows(cfg.data.folder)
        split = len(rows) - round(cfg.data.held_out * len(rows))
        self.rows, self.held_out = rows[:split], rows[split:]
        self.tx = make_optimizer(cfg.optim)
        self.batch_size, self.constants = cfg.batch, self.scene

    def init(self, key: jax.Array) -> TrainState:
        size = jax.eval_shape(
            lambda: example_features(
                self.scene, draw(self.cfg.data, self.scene, jnp.zeros(45), jax.random.key(0))
            )
        ).shape[0]
        params = MotionEncoder(self.cfg.model).init(key, jnp.zeros((1, size)))["params"]
        return TrainState.create(params, self.tx, key)

    def batches(
        self, start_step: int, rows: slice | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        step, rows = start_step, rows or slice(None)
        while True:
            rng = np.random.default_rng([self.cfg.seed, step])
            # Cheap enough to draw whole and cut.
            expression = mixed_expressions(self.cfg.data, self.rows, rng, self.cfg.batch)
            yield {"expression": expression[rows]}
            step += 1

    def update(
        self, state: TrainState, batch: dict[str, Any], key: jax.Array, constants: Scene
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        features, truth = _examples(self.cfg.data, constants, batch["expression"], key)

        def loss(params: Any, batch: dict[str, Any]):
            return encoder_loss(self.cfg, constants, params, batch["features"], batch["truth"])

        batch = {"features": features, "truth": truth}
        return descend(self.cfg.optim, self.tx, loss, state, batch)

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Error and correlation for new people and held-out expressions."""
        rng = np.random.default_rng(2**31 - 1)
        acted = dataclasses.replace(self.cfg.data, sparse=0.0)
        expression = mixed_expressions(acted, self.held_out, rng, 1024)
        features, truth = _examples(
            self.cfg.data, self.scene, jnp.asarray(expression), jax.random.key(2**31 - 1)
        )
        made, eye = MotionEncoder(self.cfg.model).apply({"params": state.ema}, features)  # type: ignore[misc]
        return agreement(
            np.asarray(made).clip(0, 1), np.asarray(eye), expression, np.asarray(truth.eye)
        )


@functools.partial(jax.jit, static_argnums=0)
def _examples(
    cfg: EncoderDataConfig, scene: Scene, expression_BE: jax.Array, key: jax.Array
) -> tuple[jax.Array, Example]:
    """Features (B, F) and examples with the given expressions."""

    def one(expression: jax.Array, key: jax.Array) -> tuple[jax.Array, Example]:
        example = draw(cfg, scene, expression, key)
        return example_features(scene, example), example

    return jax.vmap(one)(expression_BE, jax.random.split(key, len(expression_BE)))


def encoder_loss(
    cfg: EncoderTrainConfig, scene: Scene, params: Any, features_BF: jax.Array, truth: Example
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Squared errors of weights, of what they do to the seen landmarks, of lips and of eyes."""
    expression, eye = MotionEncoder(cfg.model).apply({"params": params}, features_BF)  # type: ignore[misc]
    wrong = expression - truth.expression
    effect = scene.lm_head.expression[:, jnp.array(encoder.SEEN)]
    moved = jnp.einsum("be,elc->blc", wrong, effect)
    terms = {
        "weights": jnp.square(wrong).sum(-1).mean(),
        "shape": jnp.square(moved).sum(-1).mean(),
        "gap": jnp.square(wrong @ jnp.asarray(lips.LIP_GAP_CM)).mean(),
        "gaze": jnp.square(eye - truth.eye).sum(-1).mean(),
    }
    loss = (
        0.1 * terms["weights"]
        + 10 * cfg.shape * terms["shape"]
        + cfg.gap * terms["gap"]
        + cfg.gaze * terms["gaze"]
    )
    return loss, {**terms, "loss": loss}


def agreement(
    made_NE: np.ndarray, eye_N2: np.ndarray, true_NE: np.ndarray, true_eye_N2: np.ndarray
) -> dict[str, float]:
    """Mean absolute error and correlation of what speech and life need (weights, cm, rad)."""
    pairs = {"lip_gap_cm": (lips.lip_gap_cm(made_NE), lips.lip_gap_cm(true_NE))}
    for name in ("jawOpen", "mouthClose", "mouthPucker", "mouthSmile_L", "eyeBlink_L",
                 "browDown_L", "browInnerUp_L"):  # fmt: skip
        i = visemes.INDEX[name]
        pairs[name] = made_NE[:, i], true_NE[:, i]
    pairs["gaze_yaw"], pairs["gaze_pitch"] = zip(eye_N2.T, true_eye_N2.T, strict=True)
    out = {}
    for name, (made, true) in pairs.items():
        out[f"{name}_error"] = float(np.abs(made - true).mean())
        spread = made.std() * true.std()
        out[f"{name}_r"] = (
            float(((made - made.mean()) * (true - true.mean())).mean() / spread)
            if spread > 1e-9
            else 0.0
        )
    out["weights_error"] = float(np.abs(made_NE - true_NE).mean())
    out["weights_error_of_mean"] = float(np.abs(true_NE - true_NE.mean(0)).mean())
    return out
