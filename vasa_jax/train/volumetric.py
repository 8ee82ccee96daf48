"""Stage 1, full size: generator and discriminator steps of the volumetric face model.

Terms (weights in ``VolumetricLossConfig``; sources in paper facts 2.4 and 1.2). Encoders see
portraits on their foreground, and perceptual, l1, transfer and adversarial terms compare pictures
on it. Where only the face is looked at (recognition features, eyes, ``E_dyn``), the picture is cut
to it instead, with what background there is at the corners of the cut::

    driven against the driver:   perceptual, l1, face (recognition features), eyes,
                                 adversarial, feature matching
    codes:                       contrastive over three passes, mismatch
    volumes:                     canonical
    driven's matte, if it has one, against the driver's foreground: matte
    posed against acted:         transfer_perceptual, transfer_l1 (VASA-1 pairwise consistency)
    crossed against the source:  cross_identity  (VASA-1)

``passes.py`` says which pictures these are. ``E_pose`` is the head fit, frozen. Terms that need a
picture that is already face-like begin after a share of the run (``mixing_start``,
``transfer_start``).

The step is a pure function of (state, batch, key); the discriminator and its optimiser live in
``state.extra``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vasa_jax.core.arkit import EXPRESSION
from vasa_jax.core.errors import UserError
from vasa_jax.data.faces import FacePairs, FacePairsConfig, example_head, faces_folder
from vasa_jax.face.head import head as heads
from vasa_jax.face.head import raster
from vasa_jax.face.head.fit import LIDS, OUTER_LIPS
from vasa_jax.face.head.head import Head
from vasa_jax.face.head.pose import pose_vector
from vasa_jax.face.model import to_uint8
from vasa_jax.face.volume.autoencoder import VolumetricAutoencoder, VolumetricConfig, quick_key
from vasa_jax.face.volume.discriminator import Discriminator, DiscriminatorConfig
from vasa_jax.losses import adversarial, disentangle
from vasa_jax.losses.eyes import eye_distance
from vasa_jax.losses.perceptual import feature_distance
from vasa_jax.losses.recognition import identity_distance
from vasa_jax.losses.reconstruction import on_foreground, weighted_l1
from vasa_jax.train.disguise import DisguiseConfig, disguise
from vasa_jax.train.initial import initial_weights
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import (
    OptimConfig,
    apply_gradients,
    gradients,
    learning_rate,
    make_optimizer,
)
from vasa_jax.train.passes import Frames, Passes, other, render_driven, render_passes
from vasa_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class VolumetricLossConfig:
    """Weights of the terms; 0 leaves a term (and its net) out."""

    perceptual: float = 20.0
    l1: float = 1.0  # not published; settles colours long before the features do
    face: float = 4.0
    eyes: float = 5.0
    adversarial: float = 1.0
    feature_matching: float = 40.0
    contrastive: float = 2.0
    mismatch: float = 1.0
    canonical: float = 0.5
    transfer: float = 0.25  # of perceptual and l1 each, between the posed and the acted picture
    cross_identity: float = 10.0
    matte: float = 1.0  # of a model that draws one (model.matte)
    contrastive_scale: float = 5.0
    contrastive_margin: float = 0.2
    mismatch_margin: float = 0.5
    expression_change: float = 0.15  # of some weight, from which on two expressions differ
    scales: int = 4  # of the perceptual distance
    finest_scale: int = 0  # of them; 1: from half the size on, a quarter of the cost
    remat: bool = True  # its features, again in the backward pass
    foreground_margin: float = 0.18  # around the head model, in half sides of the crop
    mixing_start: float = 0.02  # share of the run: contrastive and cross identity
    transfer_start: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.transfer <= 1:
            raise ValueError("loss: transfer is a share (0 to 1) of perceptual and l1, as in 0.25")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VolumetricTrainConfig:
    """One complete run of the full stage 1."""

    seed: int = 0
    model: VolumetricConfig = VolumetricConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    data: FacePairsConfig = FacePairsConfig(size=512)
    disguise: DisguiseConfig = DisguiseConfig()
    loss: VolumetricLossConfig = VolumetricLossConfig()
    optim: OptimConfig = OptimConfig()
    discriminator_optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    batch: int = 16
    one_by_one: bool = False  # the pictures of an example in a loop: less memory, a fifth more work
    head: str = ""  # path of the reduced head; empty: <data.folder>/head.npz
    initial: str = ""  # run folder whose weights start this one

    def task(self) -> VolumetricTask:
        return VolumetricTask(self)


# Boxes around these landmarks are judged by themselves.
REGIONS = {"mouth": (OUTER_LIPS,), "eyes": (LIDS[:16], LIDS[16:])}
FITS = ("identity", "target_motion", "target_placement")  # of a batch, to place its drivers
BOX_MARGIN = 0.2  # of a box, in its own width, on every side


def box_around(points_BP2: jax.Array, size: int) -> jax.Array:
    """Masks (B, size, size, 1) of the boxes around points in px, a margin included."""
    low, high = points_BP2.min(1), points_BP2.max(1)
    margin = (high - low)[:, :1] * BOX_MARGIN
    at = jnp.arange(size) + 0.5
    x, y = (
        (at >= (low - margin)[:, k, None]) & (at <= (high + margin)[:, k, None]) for k in (0, 1)
    )
    return (y[:, :, None] & x[:, None, :]).astype(jnp.float32)[..., None]


class Constants(NamedTuple):
    """Arrays that a step reads but does not train; arguments, so that they are not baked in."""

    head: Head
    vgg: Any


class Scene(NamedTuple):
    """A batch on the device: both frames of each pair, and what the head model knows of them."""

    source: Frames
    driver: Frames
    driver_landmarks: jax.Array  # (B, 478, 2) px
    source_landmarks: jax.Array
    crossed_landmarks: jax.Array  # of the source's person as the other pair's driver
    expressions_differ: jax.Array  # (B,) 0 or 1


class FeatureNets(NamedTuple):
    """Frozen nets of the losses; None where a term is left out."""

    vgg: Any  # features(weights, images), see losses/perceptual.py
    embed: Any  # embed(crops), see face/find/recognition.py


def generator_terms(
    cfg: VolumetricLossConfig, nets: FeatureNets, vgg_weights: Any, scene: Scene, passes: Passes
) -> dict[str, jax.Array]:
    """Unweighted terms, (), all but the adversarial ones; only those with a weight."""
    source, driver = scene.source, scene.driver
    target = on_foreground(driver.image, driver.mask)
    driven = on_foreground(passes.driven, driver.mask)
    # Both show the source's pose; the source's mask is theirs, too.
    posed = on_foreground(passes.posed, source.mask)
    acted = on_foreground(passes.acted, source.mask)
    distance = functools.partial(
        feature_distance, nets.vgg, vgg_weights,
        scales=cfg.scales, finest=cfg.finest_scale, remat=cfg.remat,
    )  # fmt: skip
    terms: dict[str, jax.Array] = {}
    if cfg.l1:
        terms["l1"] = weighted_l1(passes.driven, driver.image, driver.mask).mean()
    if cfg.perceptual:
        terms["perceptual"] = distance(driven, target).mean()
    if cfg.face:
        terms["face"] = identity_distance(
            nets.embed, passes.driven, driver.image, scene.driver_landmarks
        ).mean()
    if cfg.eyes:
        terms["eyes"] = eye_distance(
            passes.driven, driver.image, scene.driver_landmarks, nets.vgg, vgg_weights
        ).mean()
    if cfg.transfer:
        if cfg.l1:
            terms["transfer_l1"] = weighted_l1(passes.posed, passes.acted, source.mask).mean()
        if cfg.perceptual:
            terms["transfer_perceptual"] = distance(posed, acted).mean()
    if cfg.cross_identity:
        terms["cross_identity"] = identity_distance(
            nets.embed, passes.crossed, source.image, scene.crossed_landmarks,
            scene.source_landmarks,
        ).mean()  # fmt: skip
    if cfg.contrastive:
        z_d, z_o = passes.z_driver, other(passes.z_driver)
        triples = ((passes.z_driven, z_d, z_o), (passes.z_crossed, z_o, z_d),
                   (passes.z_turned, z_o, z_d))  # fmt: skip
        each = [
            disentangle.contrastive(
                *triple, scale=cfg.contrastive_scale, margin=cfg.contrastive_margin
            ).mean()
            for triple in triples
        ]
        terms["contrastive"] = jnp.stack(each).mean()
    if cfg.mismatch:
        terms["mismatch"] = disentangle.mismatch(
            passes.z_source, passes.z_driver, scene.expressions_differ, margin=cfg.mismatch_margin
        ).mean()
    if cfg.canonical:
        terms["canonical"] = disentangle.canonical_distance(
            passes.canonical_source, passes.canonical_driver
        ).mean()
    if cfg.matte and passes.matte is not None:
        terms["matte"] = jnp.abs(passes.matte - driver.mask).mean()
    return terms


class VolumetricTask:
    """The full stage 1 for ``train.loop.run``."""

    def __init__(self, cfg: VolumetricTrainConfig):
        self.cfg = cfg
        if cfg.data.size != cfg.model.size:
            raise UserError(f"data.size {cfg.data.size} must equal model.size {cfg.model.size}")
        parts = cfg.optim.accumulate
        if cfg.batch < 2 * parts:
            micro = f" for {parts} microbatches (optim.accumulate)" if parts > 1 else ""
            raise UserError(
                f"batch must be at least {2 * parts}{micro}: every pair needs another person's pair"
            )
        if cfg.discriminator_optim.accumulate not in (1, parts):
            raise UserError("optim.accumulate is for both nets; leave the discriminator's out")
        if cfg.model.matte and not cfg.loss.matte:
            raise UserError("model.matte wants loss.matte above 0: nothing else would train it")
        self.pairs = FacePairs(cfg.data)
        if cfg.data.folder == "example" and not cfg.head:
            head = example_head()
        else:
            head = heads.load_head(cfg.head or faces_folder(cfg.data) / "head.npz")
        self.model = VolumetricAutoencoder(cfg.model)
        self.discriminator = Discriminator(cfg.discriminator)
        self.tx = make_optimizer(cfg.optim)
        self.discriminator_tx = make_optimizer(cfg.discriminator_optim)
        vgg, vgg_weights, embed = None, None, None
        if cfg.loss.perceptual:
            from vasa_jax.losses.perceptual import load_vgg16

            vgg, vgg_weights = load_vgg16()
        if cfg.loss.face or cfg.loss.cross_identity:
            from vasa_jax.face.find.recognition import load_mobileface

            embed = load_mobileface()
        self.nets = FeatureNets(vgg, embed)
        self.batch_size = cfg.batch
        self.constants = Constants(jax.tree.map(jnp.asarray, head), vgg_weights)

    def __getstate__(self) -> dict[str, Any]:
        # Copied to workers (train/prefetch.py), which make batches; the nets cannot be, nor need.
        return {"cfg": self.cfg, "pairs": self.pairs}

    def init(self, key: jax.Array) -> TrainState:
        judge = jax.random.fold_in(key, 1)
        n = self.cfg.model.size
        variables: Any = jax.jit(self.discriminator.init)(quick_key(judge), jnp.zeros((1, n, n, 3)))
        judging = {
            "params": variables["params"],
            "opt_state": self.discriminator_tx.init(variables["params"]),
        }
        return TrainState.create(
            self.model.init(key), self.tx, key, extra={"discriminator": judging}
        )

    def initial_params(self, params: Any) -> Any:
        return initial_weights(self.cfg.initial, "face", params)

    def batches(
        self, start_step: int, rows: slice | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        c = self.cfg
        return self.pairs.batches(c.seed, start_step, c.batch, rows, parts=c.optim.accumulate)

    def scene(self, head: Head, batch: Any) -> Scene:
        """Everything of a batch (uint8 pictures, fits) that has no parameters."""
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return jax.lax.stop_gradient(self._scene(head, batch))

    def _scene(self, head: Head, batch: Any) -> Scene:
        c, n = self.cfg.loss, self.cfg.model.size
        identity = batch["identity"]

        def frame(row):
            placed = heads.place_fit(head, *row)
            mask = raster.silhouette(head, placed, size=n, margin=c.foreground_margin)
            return mask[..., None], pose_vector(row[1], row[2]), self._points(head, placed)

        def side(name: str) -> tuple[Frames, jax.Array]:
            image = batch[name].astype(jnp.float32) / 127.5 - 1.0
            motion, placement = batch[f"{name}_motion"], batch[f"{name}_placement"]
            mask, pose, landmarks = jax.lax.map(frame, (identity, motion, placement))
            face = self.model.aligned_faces(image, pose)
            return Frames(image, mask, pose, face), landmarks

        source, source_landmarks = side("source")
        driver, driver_landmarks = side("target")
        crossed = self.crossed_landmarks(head, batch)
        change = jnp.abs(batch["source_motion"] - batch["target_motion"])[:, EXPRESSION].max(-1)
        differ = (change > c.expression_change).astype(jnp.float32)
        return Scene(source, driver, driver_landmarks, source_landmarks, crossed, differ)

    def _points(self, head: Head, placed: jax.Array) -> jax.Array:
        """Landmarks (478, 2) of a placed head in px."""
        return (heads.landmarks(head, placed)[:, :2] + 1.0) * (self.cfg.model.size / 2)

    def crossed_landmarks(self, head: Head, fits: Any) -> jax.Array:
        """Landmarks (B, 478, 2) px of each source's person as the driver of the next pair.

        ``fits`` is a batch, or of its entries ``FITS`` those of a microbatch, whose neighbours are
        others than in the batch.
        """
        motion, placement = other((fits["target_motion"], fits["target_placement"]))
        return jax.lax.map(
            lambda row: self._points(head, heads.place_fit(head, *row)),
            (fits["identity"], motion, placement),
        )

    def weights(self, step: jax.Array) -> dict[str, jax.Array]:
        """Weight of each term at an update; 0 before the term begins."""
        c, steps = self.cfg.loss, self.cfg.optim.steps
        start = {
            "contrastive": c.mixing_start, "cross_identity": c.mixing_start,
            "transfer_l1": c.transfer_start, "transfer_perceptual": c.transfer_start,
        }  # fmt: skip
        names = (
            "perceptual", "l1", "face", "eyes", "adversarial", "feature_matching", "contrastive",
            "mismatch", "canonical", "cross_identity", "matte",
        )  # fmt: skip
        full = {name: getattr(c, name) for name in names}
        # What two pictures of one moment differ by counts as a driven picture's distance does.
        full |= {f"transfer_{name}": c.transfer * full[name] for name in ("l1", "perceptual")}
        return {
            name: jnp.where(step >= start.get(name, 0.0) * steps, weight, 0.0)
            for name, weight in full.items()
        }

    def generator_loss(
        self, params: Any, judge: Any, scene: Scene, step: jax.Array, key: jax.Array, vgg: Any
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
        """Weighted sum, its terms, and the driven pictures on their foreground."""
        passes = render_passes(
            self.model, params, scene.source, scene.driver, key, one_by_one=self.cfg.one_by_one
        )
        terms = generator_terms(self.cfg.loss, self.nets, vgg, scene, passes)
        fake = on_foreground(passes.driven, scene.driver.mask)
        if self.cfg.loss.adversarial or self.cfg.loss.feature_matching:
            real = on_foreground(scene.driver.image, scene.driver.mask)
            seen: Any = self.discriminator.apply({"params": judge}, fake)
            true: Any = self.discriminator.apply({"params": judge}, real)
            terms["adversarial"] = adversarial.generator_hinge(seen.scores)
            terms["feature_matching"] = adversarial.feature_matching(seen.features, true.features)
        weight = self.weights(step)
        total = jnp.stack([weight[name] * value for name, value in terms.items()]).sum()
        return total, (terms, fake)

    def discriminator_loss(self, judge: Any, fake: jax.Array, scene: Scene) -> jax.Array:
        """Hinge between the drivers and constants that the generator made."""
        real = on_foreground(scene.driver.image, scene.driver.mask)
        of_real: Any = self.discriminator.apply({"params": judge}, real)
        of_fake: Any = self.discriminator.apply({"params": judge}, jax.lax.stop_gradient(fake))
        return adversarial.discriminator_hinge(of_real.scores, of_fake.scores)

    def update(self, state: TrainState, batch: Any, key: jax.Array, constants: Constants):
        """One step of the generator, then one of the discriminator on the same pictures.

        Both gradients are summed over the same microbatches, ``optim.accumulate`` of them; the
        pair beside an example is then the next one in its microbatch.
        """
        key_look, key_nets = jax.random.split(key)
        scene = self.scene(constants.head, batch)
        hidden = disguise(self.cfg.disguise, scene.driver.face, key_look)
        scene = scene._replace(driver=scene.driver._replace(face=hidden))
        judge, step, parts = state.extra["discriminator"], state.step, self.cfg.optim.accumulate
        judging = bool(self.cfg.loss.adversarial or self.cfg.loss.feature_matching)

        def loss(nets: tuple[Any, Any], rows: dict[str, Any]):
            params, judge_params = nets
            scene, key = rows["scene"], key_nets
            if parts > 1:
                scene = scene._replace(
                    crossed_landmarks=self.crossed_landmarks(constants.head, rows)
                )
                key = jax.random.fold_in(key, rows["number"][0])  # else all drop the same
            total, (terms, fake) = self.generator_loss(
                params, jax.lax.stop_gradient(judge_params), scene, step, key, constants.vgg
            )
            terms = {**terms, "generator": total}
            if judging:
                # Neither term moves the other's net: this sum has the gradients of both.
                terms["discriminator"] = self.discriminator_loss(judge_params, fake, scene)
                total = total + terms["discriminator"]
            return total, terms

        fits = {name: batch[name] for name in FITS}
        rows = {"scene": scene, "number": jnp.arange(len(batch["identity"])), **fits}
        (grads, judge_grads), terms = gradients(
            loss, (state.params, judge["params"]), rows, parts=parts
        )
        terms["loss"] = terms.pop("generator")
        state, metrics = apply_gradients(self.cfg.optim, self.tx, state, grads)
        if judging:
            with jax.numpy_dtype_promotion("standard"):  # optax mixes int32 counts with float32
                updates, opt_state = self.discriminator_tx.update(
                    judge_grads, judge["opt_state"], judge["params"]
                )
            judge = {
                "params": optax.apply_updates(judge["params"], updates), "opt_state": opt_state,
            }  # fmt: skip
            state = dataclasses.replace(state, extra={**state.extra, "discriminator": judge})
            metrics["discriminator_lr"] = learning_rate(self.cfg.discriminator_optim, step)
        return state, {**terms, **metrics}

    @functools.partial(jax.jit, static_argnums=0)
    def _judge(self, params: Any, batch: Any, head: Head):
        scene = self.scene(head, batch)
        driven, _ = render_driven(self.model, params, scene.source, scene.driver)
        mask = scene.driver.mask
        regions = {"": mask}
        for name, points in REGIONS.items():
            regions[f"_{name}"] = sum(
                box_around(scene.driver_landmarks[:, jnp.array(part)], self.cfg.model.size)
                for part in points
            )

        def psnr(image: jax.Array, region: jax.Array) -> jax.Array:
            square = (jnp.square(image - scene.driver.image) * region).sum((1, 2, 3))
            mean = square / jnp.maximum(3.0 * region.sum((1, 2, 3)), 1.0)
            return 10.0 * jnp.log10(4.0 / jnp.maximum(mean, 1e-6)).mean()

        # The source beside it: what copying the portrait would score.
        shown = {"psnr": driven, "source_psnr": scene.source.image}
        scores = {f"{k}{r}": psnr(v, m) for k, v in shown.items() for r, m in regions.items()}
        return scores, to_uint8(on_foreground(driven, mask))

    @functools.cached_property
    def _held_out(self) -> list[dict[str, np.ndarray]]:
        """Batches of held-out people, made once."""
        pairs = FacePairs(dataclasses.replace(self.cfg.data, self_pairs=0.0), held_out=True)
        return list(itertools.islice(pairs.batches(1234, 0, min(self.cfg.batch, 4)), 3))

    def evaluate(self, state: TrainState) -> dict[str, Any]:
        """PSNR on held-out people (foreground, mouth, eyes) beside that of the unmoved portrait."""
        scores = [self._judge(state.ema, b, self.constants.head)[0] for b in self._held_out]
        return {k: np.mean([np.asarray(s[k]) for s in scores]) for k in scores[0]}

    def pictures(self, state: TrainState, step: int) -> dict[str, np.ndarray]:
        """Rows: source, rendered, driver."""
        b = self._held_out[0]
        _, image = self._judge(state.ema, b, self.constants.head)
        rows = [np.concatenate(list(np.asarray(x)), 1) for x in (b["source"], image, b["target"])]
        return {"pairs": np.concatenate(rows, 0)}
