"""Stage 1: the face autoencoder, trained on pairs of pictures of one person.

Per pair the analytic geometry is computed from both fits, the net renders the target's pose from
the source's picture, and the result is compared with the target picture: pixels (mouth and eyes
weigh more), LPIPS on the face, and the recognition net's angle (VASA-1 section 3.1 in its
self-reenactment case). The target is always compared with the *driver* picture, never the source
(a trap others fell into: paper facts 4.2).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.data.faces import FacePairs, FacePairsConfig, example_head, faces_folder
from vasa_jax.face.head import head as heads
from vasa_jax.face.head import raster
from vasa_jax.face.head.head import Head
from vasa_jax.face.model import to_uint8
from vasa_jax.face.warp import inpaint
from vasa_jax.face.warp.autoencoder import FaceAutoencoder, FaceConfig, left_to_paint
from vasa_jax.face.warp.geometry import Maps, drive_geometry
from vasa_jax.losses.recognition import identity_distance
from vasa_jax.losses.reconstruction import weighted_l1
from vasa_jax.train.initial import initial_weights
from vasa_jax.train.loop import LoopConfig
from vasa_jax.train.optim import OptimConfig, descend, make_optimizer
from vasa_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceLossConfig:
    """Weights of the terms; 0 leaves a term (and its net) out."""

    l1: float = 1.0
    perceptual: float = 0.5
    identity: float = 0.15
    mouth: float = 5.0  # extra pixel weight of mouth interior and surroundings
    eyes: float = 5.0
    hidden: float = 1.0  # extra weight where the portrait shows nothing
    perceptual_window: int = 112  # LPIPS sees the middle of the training window
    identity_share: float = 0.5  # of the batch; the recognition net costs as much as the decoder
    window: int = 160  # side of the training window, px (0: the whole picture)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceTrainConfig:
    """One complete run of stage 1."""

    seed: int = 0
    model: FaceConfig = FaceConfig()
    data: FacePairsConfig = FacePairsConfig()
    loss: FaceLossConfig = FaceLossConfig()
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    batch: int = 6
    head: str = ""  # path of the reduced head; empty: <data.folder>/head.npz
    initial: str = ""  # run folder or release whose weights start this one

    def task(self) -> FaceTask:
        return FaceTask(self)


def stage_one_batch(
    model: FaceAutoencoder, params: Any, head: Head, batch: dict[str, jax.Array], side: int = 0
):
    """Forward pass of a batch of pairs: net outputs, driver maps, warped layers and target.

    With ``side`` > 0 the decoder sees a window of that many pixels whose corner, in cells of the
    volume, is ``batch["window"]`` (2,); all returned pictures are windows then.
    """
    to_float = lambda x: x.astype(jnp.float32) / 127.5 - 1.0  # noqa: E731
    source, target = to_float(batch["source"]), to_float(batch["target"])

    def geometry(row):
        image, identity, motion, placement, shape, target_motion, target_placement = row
        own, layers = model.source_layers(head, image, identity, motion, placement, shape)
        pose = heads.absolute_pose(target_motion, target_placement)
        g = drive_geometry(head, own, pose, size=model.cfg.size)
        warped = inpaint.warp_layers(layers, g)
        return own.opening, warped, g.maps, g.throat

    rows = (
        source, batch["identity"], batch["source_motion"], batch["source_placement"],
        batch["shape"], batch["target_motion"], batch["target_placement"],
    )  # fmt: skip
    # The geometry has no parameters; without the barrier its gathers are fused into the nets.
    opening, warped, maps, throat = jax.lax.optimization_barrier(
        jax.lax.stop_gradient(jax.lax.map(geometry, rows))
    )
    window = None
    if side:
        window = batch["window"]
        cell = model.cfg.size // model.cfg.volume[1]

        def cut(x):
            at = (0, window[0] * cell, window[1] * cell, 0)[: x.ndim]
            return jax.lax.dynamic_slice(x, at, (x.shape[0], side, side, *x.shape[3:]))

        warped, maps, throat, target = jax.tree.map(cut, (warped, maps, throat, target))
    source_pose = jax.vmap(heads.absolute_pose)(batch["source_motion"], batch["source_placement"])
    target_pose = jax.vmap(heads.absolute_pose)(batch["target_motion"], batch["target_placement"])
    out: Any = model.nets.apply(
        {"params": params}, source, opening, source_pose, warped, maps, target_pose, window
    )
    # As what is shown; and there the nets have nothing to paint.
    image = out["image"] + left_to_paint(throat) * (warped[..., :3] - out["image"])
    maps = maps._replace(visible=jnp.maximum(maps.visible, throat))
    return {**out, "image": image}, maps, warped, target


def pixel_weight(cfg: FaceLossConfig, maps: Maps) -> jax.Array:
    """Weights (B, Y, X, 1), larger on mouth, eyes and what the portrait does not show."""
    spread = jax.vmap(lambda m: raster.dilate(m, 4))
    weight = (
        1.0
        + cfg.mouth * spread(maps.mouth_interior)
        + cfg.eyes * spread(maps.eyeball)
        + cfg.hidden * maps.hidden
        + 1.0 * maps.face
    )
    return weight[..., None]


class FaceTask:
    """Stage 1 for ``train.loop.run``."""

    shared = ("window",)  # one for all pairs of a batch

    def __init__(self, cfg: FaceTrainConfig):
        self.cfg = cfg
        if cfg.data.size != cfg.model.size:
            raise UserError(f"data.size {cfg.data.size} must equal model.size {cfg.model.size}")
        self.pairs = FacePairs(cfg.data)
        if cfg.data.folder == "example" and not cfg.head:
            head = example_head()
        else:
            head = heads.load_head(cfg.head or faces_folder(cfg.data) / "head.npz")
        self.model = FaceAutoencoder(cfg.model, head)
        self.tx = make_optimizer(cfg.optim)
        self.perceptual: Any = None
        self.perceptual_weights: Any = None
        if cfg.loss.perceptual > 0:
            from vasa_jax.losses.perceptual import load_lpips

            self.perceptual, self.perceptual_weights = load_lpips("alexnet")
        self.embed: Any = None
        if cfg.loss.identity > 0:
            from vasa_jax.face.find.recognition import load_mobileface

            self.embed = load_mobileface()
        self.batch_size = cfg.batch
        self.constants = (self.model.head, self.perceptual_weights)

    def __getstate__(self) -> dict[str, Any]:
        # Copied to workers (train/prefetch.py), which make batches; the nets cannot be, nor need.
        return {"cfg": self.cfg, "pairs": self.pairs}

    def init(self, key: jax.Array) -> TrainState:
        return TrainState.create(self.model.init(key), self.tx, key)

    def initial_params(self, params: Any) -> Any:
        return initial_weights(self.cfg.initial, "face", params)

    def batches(
        self, start_step: int, rows: slice | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        side, size = self.cfg.loss.window, self.cfg.model.size
        cells = self.cfg.model.volume[1]
        free = cells - side * cells // size if side else 0
        pairs = self.pairs.batches(self.cfg.seed, start_step, self.cfg.batch, rows)
        for step, batch in enumerate(pairs, start_step):
            rng = np.random.default_rng((self.cfg.seed, step, 1))
            # Mostly around the face, which is at the middle; borders and background now and then.
            center = free / 2 + rng.normal(size=2) * free * 0.25
            batch["window"] = np.clip(np.round(center), 0, free).astype(np.int32)
            yield batch

    def update(
        self, state: TrainState, batch: Any, key: jax.Array, constants: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        del key  # nothing is random here but the batch

        def loss(params: Any, batch: Any):
            return self.losses(params, batch, *constants)

        return descend(self.cfg.optim, self.tx, loss, state, batch, shared=self.shared)

    def losses(self, params: Any, batch: Any, head: Head, perceptual_weights: Any):
        """Weighted sum and its terms for one batch."""
        c = self.cfg.loss
        out, maps, warped, target = stage_one_batch(self.model, params, head, batch, c.window)
        image = out["image"]
        weight = pixel_weight(c, maps)
        terms = {"l1": weighted_l1(image, target, weight).mean()}
        # What is painted must be right by itself where it will be needed.
        mouth = maps.mouth_interior + maps.hidden
        painted = jnp.abs(out["painted"] - target) * mouth[..., None]
        terms["painted"] = painted.mean() * 3.0
        total = c.l1 * (terms["l1"] + terms["painted"])
        if self.perceptual is not None:
            a = (image.shape[1] - min(c.perceptual_window, image.shape[1])) // 2
            b = image.shape[1] - a
            inner = (slice(None), slice(a, b), slice(a, b))
            terms["lpips"] = self.perceptual(perceptual_weights, image[inner], target[inner]).mean()
            total = total + c.perceptual * terms["lpips"]
        if self.embed is not None:
            landmarks = self._landmarks(head, batch)
            n = max(1, round(c.identity_share * image.shape[0]))
            terms["identity"] = identity_distance(
                self.embed, image[:n], target[:n], landmarks[:n]
            ).mean()
            total = total + c.identity * terms["identity"]
        terms["l1_copy"] = weighted_l1(warped[..., :3], target, weight).mean()
        return total, terms

    def _landmarks(self, head: Head, batch: Any) -> jax.Array:
        def one(identity, motion, placement):
            return heads.landmarks(head, heads.place_fit(head, identity, motion, placement))[:, :2]

        found = jax.vmap(one)(batch["identity"], batch["target_motion"], batch["target_placement"])
        pixels = (found + 1.0) * (self.cfg.model.size / 2)
        if self.cfg.loss.window:  # to the window's own pixels, x before y
            cell = self.cfg.model.size // self.cfg.model.volume[1]
            pixels = pixels - (batch["window"][::-1] * cell).astype(jnp.float32)
        return pixels

    @functools.partial(jax.jit, static_argnums=0)
    def _judge(self, params: Any, batch: Any, head: Head):
        out, maps, warped, target = stage_one_batch(self.model, params, head, batch)
        spread = jax.vmap(lambda m: raster.dilate(m, 4))
        regions = {
            "all": jnp.ones_like(maps.face), "mouth": spread(maps.mouth_interior),
            "eyes": spread(maps.eyeball),
        }  # fmt: skip

        def psnr(image, region):
            square = jnp.square(image - target).mean(-1) * region
            mean = square.sum((1, 2)) / jnp.maximum(region.sum((1, 2)), 1.0)
            return 10 * jnp.log10(4.0 / jnp.maximum(mean, 1e-6))

        scores = {f"psnr_{k}": psnr(out["image"], r).mean() for k, r in regions.items()}
        scores |= {f"warp_psnr_{k}": psnr(warped[..., :3], r).mean() for k, r in regions.items()}
        return scores, to_uint8(out["image"]), to_uint8(warped[..., :3])

    @functools.cached_property
    def _held_out(self) -> list[dict[str, np.ndarray]]:
        """Batches of held-out people, made once."""
        pairs = FacePairs(dataclasses.replace(self.cfg.data, self_pairs=0.0), held_out=True)
        return list(itertools.islice(pairs.batches(1234, 0, 8), 3))

    def evaluate(self, state: TrainState) -> dict[str, Any]:
        """PSNR on held-out people beside that of the analytic warp alone."""
        scores = [self._judge(state.ema, b, self.model.head)[0] for b in self._held_out]
        return {k: np.mean([np.asarray(s[k]) for s in scores]) for k in scores[0]}

    def pictures(self, state: TrainState, step: int) -> dict[str, np.ndarray]:
        """Rows: source, analytic warp, rendered, target."""
        b = self._held_out[0]
        _, image, warped = self._judge(state.ema, b, self.model.head)
        rows = [
            np.concatenate(list(np.asarray(x)), 1)
            for x in (b["source"], warped, image, b["target"])
        ]
        return {"pairs": np.concatenate(rows, 0)}
