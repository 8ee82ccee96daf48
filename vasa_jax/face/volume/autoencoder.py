"""The full stage-1 model (VASA-1 section 3.1 on MegaPortraits' graph): portraits as 3D volumes.

::

    source ─► VolumeEncoder ─► posed volume ─► rigid ─► non-rigid ─► G_3D ─► canonical volume ┐
        └───► IdentityEncoder ─► identity map ───► warp_source ──┘                            │
                                      └─────────────────┐                                     │
    driver ─► aligned face ─► ExpressionEncoder ─► z_dyn ─► warp_driver ─┐                     │
        └───► landmarks ─► fit ─► z_pose ────────────────────┐           │                     │
                                  picture ◄─ G_2D ◄─ rigid ◄─┴── non-rigid ◄──────────────────┘

Canonical volume and identity map are the *appearance*, kept of a portrait.

Everything here is batched and absolute, as training needs it: ``[z_pose, z_dyn]`` of 7 + 128
numbers, ``X`` of VASA-1 section 3.2, and pictures on a foreground. ``face.py`` makes of it a face
that a motion drives relative to a portrait, before its background (``face/model.py``).

Where the sources disagree (paper facts 2.3), besides what ``decoder.py`` says:

- ``z_dyn`` has 128 numbers and dropout 0.2 (EMOPortraits' ablation: 512 leak identity);
- grids are cell centres and border values repeat (``nn/warp.py``): the identity grid then
  reproduces a volume exactly, and no black rim enters a turned head;
- at 256 px the volume stays 64 x 64 and one pooling is dropped;
- convolutions in shortcuts are 3x3 (figure) in encoder and warp generators and 1x1 (code) in the
  nets that dominate the cost: ``G_3D`` of a training step (0.99 instead of 1.23 TMAC per portrait)
  and ``G_2D`` of a frame (0.25 instead of 0.30 TMAC at 512 px);
- spectral norm on the generator (appendix B.1) is left out: the standardised convolutions and the
  norms after them fix the scale that it would bound.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vasa_jax.core.precision import Precision
from vasa_jax.core.types import Array
from vasa_jax.face.head.pose import (
    POSE_DIM,
    canonical_from_view,
    face_crop_points,
    view_from_canonical,
)
from vasa_jax.face.volume.decoder import (
    PictureDecoder,
    VolumeUNet,
    WarpGenerator,
    from_canonical,
    to_canonical,
)
from vasa_jax.face.volume.encoders import MAP, ExpressionEncoder, IdentityEncoder, VolumeEncoder
from vasa_jax.nn.recompute import recomputed_block
from vasa_jax.nn.residual import NormBlock
from vasa_jax.nn.warp import sample_image

REMATERIALISED = ("encoder", "warp", "volume", "decoder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VolumetricConfig:
    """Sizes of the full model; the defaults are the published 512 px one."""

    size: int = 512  # side of the square crop, px
    volume: tuple[int, int, int, int] = (16, 64, 64, 96)  # Z Y X C
    dynamics: int = 128  # numbers of z_dyn
    dropout: float = 0.2  # on the way to z_dyn
    encoder_widths: tuple[int, ...] = (64, 128, 256, 512)
    encoder_blocks: int = 6  # of the posed volume
    identity_code: int = 512  # channels of the 4 x 4 identity map
    identity_size: int = 256
    identity_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    dynamics_size: int = 128
    dynamics_blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    trunk_width: int = 64  # of both ResNets
    warp_widths: tuple[int, ...] = (256, 128, 64, 32)
    volume_widths: tuple[int, int, int] = (192, 384, 512)
    decoder_width: int = 512
    decoder_blocks: int = 8
    decoder_up_widths: tuple[int, ...] = (256, 128, 64)
    shortcut: int = 3  # side of the kernels in shortcuts, of encoder and warp generators
    volume_shortcut: int = 1
    decoder_shortcut: int = 1
    remat: tuple[str, ...] = ()  # nets whose blocks are recomputed in the backward pass
    precision: Precision = Precision()
    matte: bool = False  # the decoder draws, as a fourth channel, where it is no background

    def __post_init__(self) -> None:
        z, y, x, _ = self.volume
        if y != x or y != MAP * 2 ** len(self.warp_widths) or z < MAP or y % (2 * z):
            raise ValueError(
                f"model.volume {self.volume}: height and width must be {MAP} * 2**(number of "
                f"warp_widths), depth at least {MAP}, and height a multiple of twice the depth"
            )
        for name in ("identity_size", "dynamics_size"):
            if getattr(self, name) % (32 * MAP):
                raise ValueError(f"model.{name} must be a multiple of {32 * MAP}")
        if self.size % self.identity_size:
            raise ValueError("model.size must be a multiple of model.identity_size")
        ups = self.size // y
        for name in ("encoder_widths", "decoder_up_widths"):
            steps = len(getattr(self, name)) - (name == "encoder_widths")
            if ups & (ups - 1) or self.size % y or 2**steps < ups:
                raise ValueError(
                    f"model.size {self.size} must be a power of two times the volume's {y}, with "
                    f"at least that many doublings in {name}"
                )
        unknown = set(self.remat) - set(REMATERIALISED)
        if unknown:
            raise ValueError(f"model.remat knows {', '.join(REMATERIALISED)}, not {unknown}")


class VolumetricAppearance(NamedTuple):
    """What is kept of a portrait; a pytree without batch axis."""

    volume: Array  # (Z, Y, X, C) canonical, after G_3D
    z_id: Array  # (4, 4, D) identity map


class VolumetricNets(nn.Module):
    """All generator nets, batched; in the precision of the config."""

    cfg: VolumetricConfig

    def setup(self):
        c = self.cfg

        def block(net: str, shortcut: int):
            kind = recomputed_block(NormBlock) if net in c.remat else NormBlock
            return functools.partial(kind, shortcut=shortcut)

        self.encoder = VolumeEncoder(
            c.volume, c.encoder_widths, c.encoder_blocks, block("encoder", c.shortcut)
        )
        self.identity = IdentityEncoder(
            c.identity_code, c.identity_size, c.identity_blocks, c.trunk_width
        )
        self.dynamics = ExpressionEncoder(c.dynamics, c.dynamics_blocks, c.trunk_width, c.dropout)
        warp = block("warp", c.shortcut)
        self.warp_source = WarpGenerator(c.volume[:3], c.warp_widths, warp)
        self.warp_driver = WarpGenerator(c.volume[:3], c.warp_widths, warp)
        self.volume = VolumeUNet(c.volume_widths, block("volume", c.volume_shortcut))
        self.decoder = PictureDecoder(
            c.size, c.decoder_width, c.decoder_blocks, c.decoder_up_widths,
            block("decoder", c.decoder_shortcut), c.matte,
        )  # fmt: skip

    def encode_dynamics(self, face_BYXC: jax.Array, *, train: bool = False) -> jax.Array:
        """Aligned faces (B, n, n, 3) -> ``z_dyn`` (B, K) float32."""
        return self.dynamics(face_BYXC.astype(self.cfg.precision.compute_dtype), train=train)

    def encode(
        self, image_BYXC: jax.Array, mask_BYX1: jax.Array, pose_B7: jax.Array, z_dyn_BK: jax.Array
    ) -> VolumetricAppearance:
        """Pictures with their foreground masks, poses and dynamics -> batched appearance."""
        dtype = self.cfg.precision.compute_dtype
        # Neither may know the background: what is compared is the foreground alone.
        seen = (image_BYXC * mask_BYX1).astype(dtype)
        z_id = self.identity(seen)
        posed = self.encoder(seen)
        offset = self.warp_source(z_dyn_BK, z_id)
        canonical = to_canonical(posed, jax.vmap(view_from_canonical)(pose_B7), offset)
        return VolumetricAppearance(self.volume(canonical), z_id)

    def decode(
        self, appearance: VolumetricAppearance, pose_B7: jax.Array, z_dyn_BK: jax.Array
    ) -> jax.Array:
        """Batched appearance in given poses and dynamics -> pictures (B, Y, X, 3) in [-1, 1].

        With ``cfg.matte`` a fourth channel in [0, 1].
        """
        offset = self.warp_driver(z_dyn_BK, appearance.z_id)
        view = from_canonical(appearance.volume, jax.vmap(canonical_from_view)(pose_B7), offset)
        return self.decoder(view)

    def __call__(self, image_BYXC, mask_BYX1, pose_B7, face_BYXC):
        z_dyn = self.encode_dynamics(face_BYXC)
        return self.decode(self.encode(image_BYXC, mask_BYX1, pose_B7, z_dyn), pose_B7, z_dyn)


def quick_key(key: jax.Array) -> jax.Array:
    """The same seed for the generator whose program compiles in half the time ("rbg")."""
    data = jax.random.key_data(key).reshape(-1)
    return jax.random.wrap_key_data(jnp.concatenate([data[:2], data[:2]]), impl="rbg")


class VolumetricAutoencoder:
    """Pure functions of ``(params, inputs)`` around one config."""

    def __init__(self, cfg: VolumetricConfig):
        self.cfg = cfg
        self.nets = VolumetricNets(cfg)

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters; traceable, so ``jax.eval_shape`` counts the largest model for free."""
        n, k = self.cfg.size, self.cfg.dynamics_size

        def fresh(key):
            variables: Any = self.nets.init(
                key, jnp.zeros((1, n, n, 3)), jnp.zeros((1, n, n, 1)), jnp.zeros((1, POSE_DIM)),
                jnp.zeros((1, k, k, 3)),
            )  # fmt: skip
            return self.cfg.precision.to_params(variables["params"])

        return jax.jit(fresh)(quick_key(key))

    def aligned_faces(self, image_BYXC: jax.Array, pose_B7: jax.Array) -> jax.Array:
        """What ``E_dyn`` sees: faces upright and twice as large, (B, n, n, 3)."""
        n = self.cfg.dynamics_size
        # The gather reads single pixels: without the mean a larger picture would alias.
        k = max(1, self.cfg.size // (2 * n))
        b, y, x, c = image_BYXC.shape
        small = image_BYXC.reshape(b, y // k, k, x // k, k, c).mean((2, 4))
        return jax.vmap(lambda i, p: sample_image(i, face_crop_points(p, n)))(small, pose_B7)

    def dynamics(
        self, params: Any, face_BYXC: jax.Array, *, dropout: jax.Array | None = None
    ) -> jax.Array:
        """``z_dyn`` (B, K) of aligned faces; ``dropout`` is the key of a training pass."""
        rngs = None if dropout is None else {"dropout": dropout}
        out: Any = self.nets.apply(
            {"params": params}, face_BYXC, train=dropout is not None, rngs=rngs,
            method="encode_dynamics",
        )  # fmt: skip
        return out

    def encode(self, params: Any, image_BYXC, mask_BYX1, pose_B7, z_dyn_BK) -> VolumetricAppearance:
        """Batched appearance of pictures whose pose and dynamics are known."""
        out: Any = self.nets.apply(
            {"params": params}, image_BYXC, mask_BYX1, pose_B7, z_dyn_BK, method="encode"
        )
        return out

    def decode(self, params: Any, appearance: VolumetricAppearance, pose_B7, z_dyn_BK) -> jax.Array:
        """Batched appearance, each in its own pose and dynamics -> (B, Y, X, 3) in [-1, 1].

        With ``cfg.matte`` a fourth channel in [0, 1]: where the head is.
        """
        out: Any = self.nets.apply(
            {"params": params}, appearance, pose_B7, z_dyn_BK, method="decode"
        )
        return out
