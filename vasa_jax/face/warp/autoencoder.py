"""The lite face: ``encode_appearance`` once, ``render`` per frame (``face/model.py``)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.core.space import ARKIT, MotionSpace
from vasa_jax.core.types import Array
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.face.head.head import Head, Pose
from vasa_jax.face.model import Rendered, to_uint8
from vasa_jax.face.warp import inpaint, lashes
from vasa_jax.face.warp.decoder import (
    Decoder,
    VolumeNet,
    WarpGenerator,
    flatten_depth,
    from_canonical,
    to_canonical,
)
from vasa_jax.face.warp.detail import Origin
from vasa_jax.face.warp.encoders import AppearanceEncoder, DynamicsEncoder
from vasa_jax.face.warp.geometry import (
    NUM_MAPS,
    Maps,
    SourceGeometry,
    contour,
    drive_geometry,
    place_source,
)
from vasa_jax.face.warp.hairline import hair
from vasa_jax.face.warp.irises import irises
from vasa_jax.face.warp.mouth import Mouth, Opening, mouth_of, opening_of, paint
from vasa_jax.face.warp.teeth import teeth_of
from vasa_jax.face.warp.tone import tone_of
from vasa_jax.nn.resample import binomial
from vasa_jax.nn.stored import from_memory
from vasa_jax.nn.warp import image_grid
from vasa_jax.runtime.programs import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceConfig:
    """Sizes of the stage-1 nets; the defaults are the lite model."""

    size: int = 256  # side of the square crop, px
    volume: tuple[int, int, int, int] = (8, 32, 32, 8)  # Z Y X C
    encoder_width: int = 20
    code: int = 64  # z_id and z_dyn
    warp_width: int = 16
    volume_blocks: int = 1
    decoder_widths: tuple[int, int, int] = (20, 44, 72)
    margin: int = 32  # px at each side that the decoder leaves to the analytic flow


class Appearance(NamedTuple):
    """Everything kept of a portrait; a pytree without batch axis."""

    layers: Array  # (Y, X, 6) as ``inpaint.portrait_layers`` makes them
    geometry: SourceGeometry
    volume: Array  # (Z, Y, X, C) canonical, after G_3D
    z_id: Array  # (code,)
    irises: Array  # () 0 if the portrait's open eyes are blank, else 1
    mouth: Mouth


class _Nets(nn.Module):
    cfg: FaceConfig

    def setup(self):
        c = self.cfg
        self.appearance = AppearanceEncoder(c.volume, c.encoder_width, c.code)
        self.dynamics = DynamicsEncoder(c.code)
        self.warp_source = WarpGenerator(c.volume[:3], c.warp_width)
        self.warp_driver = WarpGenerator(c.volume[:3], c.warp_width)
        self.volume = VolumeNet(c.volume_blocks)
        self.decoder = Decoder(c.decoder_widths)

    def encode(self, image_BYXC, opening_BYX2, pose: Pose):
        posed, z_id = self.appearance(image_BYXC, opening_BYX2)
        z_dyn = self.dynamics(pose.expression, pose.gaze)
        offset = self.warp_source(z_dyn + z_id)
        canonical = to_canonical(posed, pose, offset)
        return self.volume(canonical), z_id

    def decode(self, warped, maps: Maps, volume_BZYXC, z_id, pose: Pose, window=None):
        z_dyn = self.dynamics(pose.expression, pose.gaze)
        offset = self.warp_driver(z_dyn + z_id)
        driven = from_canonical(volume_BZYXC, pose, offset)
        driven = flatten_depth(driven)
        driven = jax.lax.optimization_barrier(driven)  # else XLA:CPU redoes the gathers per layer
        if window is not None:  # (y, x) of the window in decoder cells; its size is warped's
            cells = warped.shape[1] * driven.shape[1] // self.cfg.size
            corner = (0, window[0], window[1], 0)
            driven = jax.lax.dynamic_slice(
                driven, corner, (driven.shape[0], cells, cells, driven.shape[3])
            )
        return self.decoder(warped, maps, driven)

    def __call__(self, image, opening, source_pose, warped, maps, driver_pose, window=None):
        volume, z_id = self.encode(image, opening, source_pose)
        return self.decode(warped, maps, volume, z_id, driver_pose, window)


class FaceAutoencoder:
    """A ``FaceModel`` of named weights; pure functions around one config and one reduced head."""

    kind = "warp"

    def __init__(self, cfg: FaceConfig, head: Head):
        self.cfg = cfg
        self.head: Head = jax.device_put(head)
        self.nets = _Nets(cfg)
        # Compiled once per model, not once per portrait.
        self._encode = Program(self.encode, closed_over=(cfg,))
        self._render = jax.jit(
            lambda params, head, appearance, motion_BM: (
                self.render(params, head, appearance, motion_BM).image
            )
        )

    @property
    def size(self) -> int:
        return self.cfg.size

    @property
    def space(self) -> MotionSpace:
        return ARKIT

    @property
    def fixed(self) -> FaceConfig:
        return self.cfg

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        n = self.cfg.size
        pose = Pose(
            jnp.eye(3)[None], jnp.array([[0.0, 0.0, 0.07]]), jnp.zeros((1, 45)), jnp.zeros((1, 2))
        )  # fmt: skip

        def fresh(key):
            variables: Any = self.nets.init(
                key, jnp.zeros((1, n, n, 3)), jnp.zeros((1, n, n, 2)), pose,
                jnp.zeros((1, n, n, 6)), Maps(*[jnp.zeros((1, n, n))] * NUM_MAPS), pose,
            )  # fmt: skip
            return variables["params"]

        return jax.jit(fresh)(key)

    def source_layers(self, head: Head, image_YXC: Array, identity, motion, placement, shape=None):
        """Geometry of the portrait and its layers (Y, X, 6)."""
        geometry = place_source(head, identity, motion, placement, shape, size=self.cfg.size)
        rim = geometry.rim * (1.0 - hair(image_YXC, geometry))
        geometry = geometry._replace(rim=rim)
        return geometry, inpaint.portrait_layers(image_YXC, geometry.opening)

    def encode(
        self, params, head: Head, image_YXC, identity, motion, placement, shape=None
    ) -> Appearance:
        """Pure form of ``encode_appearance``: image (Y, X, 3) in [-1, 1] and its fit."""
        geometry, layers = self.source_layers(head, image_YXC, identity, motion, placement, shape)
        pose = jax.tree.map(lambda a: a[None], heads.absolute_pose(motion, placement))
        encoded: Any = self.nets.apply(
            {"params": params}, image_YXC[None], geometry.opening[None], pose, method="encode"
        )
        volume, z_id = encoded
        own = drive_geometry(
            head, geometry, heads.absolute_pose(motion, placement), size=self.cfg.size
        )
        tone = tone_of(image_YXC, own.maps.face)
        return Appearance(
            layers, geometry, volume[0], z_id[0], irises(image_YXC, own.maps),
            mouth_of(image_YXC, own.maps, teeth_of(head, geometry.neutral), tone),
        )  # fmt: skip

    def encode_appearance(
        self, params: Any, head: Head, image_YXC: Array, fit: FaceFit
    ) -> Appearance:
        """Everything that is computed once per portrait (Y, X, 3) in [-1, 1]."""
        shape = np.zeros(head.base.shape, np.float32) if fit.shape is None else fit.shape
        return self._encode(params, head, image_YXC, fit.identity, fit.motion, fit.placement, shape)

    def rest(self, appearance: Appearance) -> np.ndarray:
        """Nothing is asked for, (54,): the portrait's pose, eyes towards the viewer."""
        return np.zeros(self.space.dim, np.float32)

    def encode_motion(
        self, params: Any, head: Head, image_BYXC: Array, fit_B: FaceFit, anchor: FaceFit
    ) -> Array:
        """Driving motions (B, 54) of fitted pictures, from the fits alone: undoes ``drive``."""
        return jax.vmap(
            lambda motion, placement: heads.driving(
                anchor.motion, anchor.placement, motion, placement
            )
        )(fit_B.motion, fit_B.placement)

    def warp_pose(self, head: Head, appearance: Appearance, pose: Pose):
        """The portrait moved by geometry alone to absolute poses (leading axis B), no net at all.

        Returns warped layers (B, Y, X, 6), whose first three are the picture in [-1, 1], the
        driver's maps, the weight of contours, the share of light that lashes swallow, and where the
        neck or the jaw's underside is painted (``geometry.throat``), each (B, Y, X).
        """

        return self._moved(head, appearance, pose, traced=False)

    def _moved(self, head: Head, appearance: Appearance, pose: Pose, *, traced: bool):
        """``warp_pose``; traced, also the flow (B, Y, X, 2) and what of it the portrait shows."""

        def geometry(one: Pose):
            g = drive_geometry(head, appearance.geometry, one, size=self.cfg.size)
            layers = inpaint.warp_layers(appearance.layers, g)
            out = layers, g.maps, from_memory(contour, g.flow), g.lashes, g.throat
            if not traced:
                return out
            shown = 1.0 - jnp.maximum(g.unknown, g.maps.hidden)
            return *out, jnp.stack(g.flow, -1), shown

        return jax.lax.map(geometry, pose)

    def render_pose(self, params, head: Head, appearance: Appearance, pose: Pose) -> Array:
        """Renders absolute poses (leading axis B) of one portrait."""
        return self._render_pose(params, head, appearance, pose, traced=False)[0]

    def _render_pose(
        self, params, head: Head, appearance: Appearance, pose: Pose, *, traced: bool
    ) -> tuple[Array, Origin | None]:
        # The barrier keeps XLA:CPU from fusing the gathers into the first layers and redoing them.
        warped, maps, contour, line, throat, *way = jax.lax.optimization_barrier(
            self._moved(head, appearance, pose, traced=traced)
        )
        b = warped.shape[0]
        volume = jnp.broadcast_to(appearance.volume, (b, *appearance.volume.shape))
        z_id = jnp.broadcast_to(appearance.z_id, (b, *appearance.z_id.shape))
        m, n = self.cfg.margin, self.cfg.size
        inner = (slice(None), slice(m, n - m), slice(m, n - m))
        cell = m * self.cfg.volume[1] // n
        out: Any = self.nets.apply(
            {"params": params}, warped[inner], jax.tree.map(lambda m: m[inner], maps), volume, z_id,
            pose, (cell, cell), method="decode",
        )  # fmt: skip
        # The nets have only seen eyes with irises: of blank ones they would make some.
        moved = warped[..., :3]
        blank = (1.0 - appearance.irises) * maps.eyeball[inner][..., None]
        left = jnp.maximum(blank, left_to_paint(throat[inner]))
        image = out["image"] + left * (moved[inner] - out["image"])
        kept = out["weight"][..., 0]
        kept = kept + left[..., 0] * (1.0 - kept)
        if m > 0:
            # Only flow happens near the border of the crop; a short ramp hides where nets begin.
            edge = 1.0 - jnp.abs(image_grid(n - 2 * m, n - 2 * m)).max(-1)
            ramp = jnp.clip(edge * (n - 2 * m) / 2 / 10.0, 0.0, 1.0)[None, :, :, None]
            center = moved[inner] + ramp * (image - moved[inner])
            image = jax.lax.dynamic_update_slice(moved, center, (0, m, m, 0))
            kept = 1.0 + ramp[..., 0] * (kept - 1.0)
            kept = jax.lax.dynamic_update_slice(jnp.ones_like(line), kept, (0, m, m))
        image = soften(image, contour)
        between = opening_of(maps, pose)
        image = jax.lax.map(
            lambda given: paint(given[0], appearance.mouth, *given[1:]), (image, between, pose)
        )
        return lashes.draw(image, line), _origin(way, kept, contour, line, between, pose)

    def render_uint8(self, params: Any, appearance: Appearance, motion_BM: Array) -> np.ndarray:
        """Compiled ``render`` as uint8 numpy frames, for callers without a step of their own."""
        image = self._render(params, self.head, appearance, jnp.asarray(motion_BM))
        return np.asarray(to_uint8(image))

    def render(
        self, params: Any, head: Head, appearance: Appearance, motion_BM: Array, *,
        traced: bool = False,
    ) -> Rendered:  # fmt: skip
        """Pictures for driving motions (B, 54); the flow moves the background, so no matte."""
        g = appearance.geometry
        pose = jax.vmap(lambda m: heads.drive(g.motion, g.placement, m))(motion_BM)
        image, origin = self._render_pose(params, head, appearance, pose, traced=traced)
        return Rendered(image, None, origin)


def _origin(
    way: list[Array], kept: Array, contour: Array, line: Array, between: Opening, pose: Pose
) -> Origin | None:
    """Flow and share (B, Y, X); None without a ``way``, the flow and what the portrait shows."""
    if not way:
        return None
    flow, shown = way
    return Origin(flow, kept * shown * (1.0 - contour) * (1.0 - line), between, pose)


def left_to_paint(throat_BYX: Array) -> Array:
    """Share (B, Y, X, 1) of the picture that nets leave to the paint there, which they darken."""
    throat = throat_BYX[..., None]
    return jnp.maximum(throat, binomial(throat))


def soften(image_BYXC: Array, contour_BYX: Array) -> Array:
    """Low-passes the picture where two surfaces meet: their edge has no subpixels."""
    return image_BYXC + contour_BYX[..., None] * (binomial(image_BYXC) - image_BYXC)
