"""The full stage 1 (``face/volume/autoencoder.py``): volumes, warps, ``G_3D`` and ``G_2D``."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.torch_ref.head import rotation
from tools.torch_ref.layers import (
    GroupNorm,
    LowRankGroupNorm,
    StandardisedConv2d,
    channels_last,
    conv,
    mean_pool,
    to_front,
    upsample_nearest,
)
from tools.torch_ref.sampling import Form, Points, centres, sample
from vasa_jax.core.types import HEAD_WIDTH_CM
from vasa_jax.face.head.head import PIVOT_CM
from vasa_jax.face.head.pose import BOX_CM, POSE_DIM, REFERENCE_SCALE
from vasa_jax.face.volume.autoencoder import VolumetricConfig
from vasa_jax.face.volume.encoders import MAP
from vasa_jax.nn.residual import GROUPS


class Pointwise(nn.Module):
    """1x1 (x1) convolution under the name that ours has."""

    def __init__(self, dims: int, channels: int, features: int):
        super().__init__()
        self.dense = conv(dims, channels, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class NormBlock(nn.Module):
    """Pre-activation residual block; with a code (B, L, D) its norms are adaptive."""

    def __init__(
        self, dims: int, channels: int, features: int, shortcut: int, code: int | None = None,
        upsample: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.upsample = upsample

        def norm(width: int) -> nn.Module:
            if code is None:
                return GroupNorm(width, GROUPS)
            return LowRankGroupNorm(width, MAP * MAP, code)

        self.norm = nn.ModuleList([norm(channels), norm(features)])
        self.conv = nn.ModuleList(
            [
                conv(dims, channels, features, standardised=True, upsample=upsample),
                conv(dims, features, features),
            ]
        )
        self.wide = channels != features and shortcut == 3  # joined by a 3x3 convolution
        if self.wide:
            self.shortcut = conv(dims, channels, features, upsample=upsample)
        elif channels != features:
            self.shortcut = Pointwise(dims, channels, features)

    def forward(self, x: Tensor, code_BLD: Tensor | None = None) -> Tensor:
        h = x
        for norm, layer in zip(self.norm, self.conv, strict=True):
            h = layer(F.relu(norm(h) if code_BLD is None else norm(h, code_BLD)))
        x = self.shortcut(x) if hasattr(self, "shortcut") else x
        return (upsample_nearest(x) if self.upsample and not self.wide else x) + h


class NormConv(StandardisedConv2d):
    """Convolution with standardised weights and stride, no bias, then group norm."""

    def __init__(self, channels: int, features: int, size=3, stride=1, standardised=True):
        super().__init__(channels, features, size, stride, size // 2, bias=False)
        self.folded = not standardised
        self.norm = GroupNorm(features, GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18)."""

    growth = 1

    def __init__(self, channels: int, features: int, stride: int):
        super().__init__()
        self.conv = nn.ModuleList(
            [NormConv(channels, features, 3, stride), NormConv(features, features)]
        )
        if channels != features or stride != 1:
            self.shortcut = NormConv(channels, features, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv[1](F.relu(self.conv[0](x)))
        return F.relu((self.shortcut(x) if hasattr(self, "shortcut") else x) + h)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width (ResNet-50)."""

    growth = 4

    def __init__(self, channels: int, features: int, stride: int):
        super().__init__()
        wide = 4 * features
        self.conv = nn.ModuleList(
            [
                NormConv(channels, features, 1), NormConv(features, features, 3, stride),
                NormConv(features, wide, 1),
            ]
        )  # fmt: skip
        if channels != wide or stride != 1:
            self.shortcut = NormConv(channels, wide, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv[0](x))
        h = self.conv[2](F.relu(self.conv[1](h)))
        return F.relu((self.shortcut(x) if hasattr(self, "shortcut") else x) + h)


class ResNet(nn.Module):
    """ResNet trunk with group norm: (B, 3, Y, X) -> (B, channels, Y/32, X/32)."""

    def __init__(self, blocks: tuple[int, int, int, int], width: int, kind: type):
        super().__init__()
        self.stem = NormConv(3, width, 7, 2, standardised=False)
        channels = width
        for stage, count in enumerate(blocks):
            features, layers = width * 2**stage, []
            for i in range(count):
                layers.append(kind(channels, features, 2 if stage and i == 0 else 1))
                channels = kind.growth * features
            self.add_module(f"stage_{stage}", nn.Sequential(*layers))
        self.stages, self.channels = len(blocks), channels

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        for stage in range(self.stages):
            h = getattr(self, f"stage_{stage}")(h)
        return h


class VolumeEncoder(nn.Module):
    """Picture (B, 3, Y, X) -> posed volume (B, C, Z, y, x)."""

    def __init__(self, cfg: VolumetricConfig):
        super().__init__()
        self.depth, self.side, _, c = cfg.volume
        widths = cfg.encoder_widths
        self.stem = conv(2, 3, widths[0], 7)
        self.block = nn.ModuleList(
            NormBlock(2, a, b, cfg.shortcut) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norm = GroupNorm(widths[-1], GROUPS)
        self.to_volume = Pointwise(2, widths[-1], self.depth * c)
        self.volume = nn.ModuleList(
            NormBlock(3, c, c, cfg.shortcut) for _ in range(cfg.encoder_blocks)
        )

    def forward(self, image: Tensor) -> Tensor:
        h = self.stem(image)
        for block in self.block:
            h = block(h)
            if h.shape[2] > self.side:
                h = mean_pool(h, (2, 2))
        h = self.to_volume(F.relu(self.norm(h)))
        b, _, y, x = h.shape
        v = channels_last(h.reshape(b, self.depth, -1, y, x).transpose(1, 2))
        for block in self.volume:
            v = block(v)
        return v


class IdentityEncoder(nn.Module):
    """Picture, background removed -> identity map (B, D, 4, 4)."""

    def __init__(self, cfg: VolumetricConfig):
        super().__init__()
        self.size = cfg.identity_size
        self.trunk = ResNet(cfg.identity_blocks, cfg.trunk_width, Bottleneck)
        self.out = Pointwise(2, self.trunk.channels, cfg.identity_code)

    def forward(self, image: Tensor) -> Tensor:
        k = image.shape[2] // self.size
        h = mean_pool(image, (k, k)) if k > 1 else image
        h = self.out(self.trunk(h))
        k = h.shape[2] // MAP
        return mean_pool(h, (k, k)) if k > 1 else h


class ExpressionEncoder(nn.Module):
    """Aligned face (B, 3, n, n) -> ``z_dyn`` (B, K), float32."""

    def __init__(self, cfg: VolumetricConfig):
        super().__init__()
        self.trunk = ResNet(cfg.dynamics_blocks, cfg.trunk_width, BasicBlock)
        self.reduce = Pointwise(2, self.trunk.channels, cfg.dynamics)
        self.dropout = nn.Dropout(cfg.dropout)
        self.out = nn.Linear(MAP * MAP * cfg.dynamics, cfg.dynamics, bias=False)
        self.out.keep_float32 = True  # as ours: the code is what the motion model sees

    def forward(self, face: Tensor) -> Tensor:
        h = self.dropout(self.reduce(self.trunk(face)))
        k = h.shape[2] // MAP
        h = mean_pool(h, (k, k)) if k > 1 else h
        with torch.autocast(h.device.type, enabled=False):
            return self.out(h.float().movedim(1, -1).flatten(1))


class WarpGenerator(nn.Module):
    """Offsets (B, Z, Y, X, 3) from dynamics code (B, K) and identity map (B, D, 4, 4)."""

    def __init__(self, cfg: VolumetricConfig):
        super().__init__()
        self.depth, width = cfg.volume[0], cfg.identity_code
        self.spread = nn.Linear(cfg.dynamics, MAP * MAP * width)
        self.spread.keep_float32 = True
        self.mix = Pointwise(2, width, width)
        self.seed = Pointwise(2, width, MAP * width)
        channels = (width, *cfg.warp_widths)
        self.block = nn.ModuleList(
            NormBlock(3, a, b, cfg.shortcut, width)
            for a, b in zip(channels, cfg.warp_widths, strict=False)
        )
        self.norm = GroupNorm(channels[-1], GROUPS)
        self.out = conv(3, channels[-1], 3)

    def forward(self, code_BK: Tensor, identity: Tensor) -> Tensor:
        b, width = identity.shape[:2]
        with torch.autocast(code_BK.device.type, enabled=False):
            code = to_front(self.spread(code_BK.float()).reshape(b, MAP, MAP, width))
        h = self.mix(0.5 * (identity + code.to(identity.dtype)))
        code_BLD = h.flatten(2).transpose(1, 2)
        h = self.seed(h).reshape(b, MAP, width, MAP, MAP).transpose(1, 2)
        h = channels_last(h)
        for block in self.block:
            h = block(h, code_BLD)
            h = upsample_nearest(h, (2 if h.shape[2] < self.depth else 1, 2, 2))
        offset = self.out(F.relu(self.norm(h)))
        return torch.tanh(offset.float()).movedim(1, -1)


class VolumeUNet(nn.Module):
    """``G_3D`` on the canonical volume."""

    def __init__(self, cfg: VolumetricConfig):
        super().__init__()
        (outer, inner, core), c = cfg.volume_widths, cfg.volume[3]

        def block(channels: int, features: int) -> NormBlock:
            return NormBlock(3, channels, features, cfg.volume_shortcut)

        self.down = nn.ModuleList([block(c, outer), block(outer, inner)])
        self.core = nn.ModuleList([block(inner, core), block(core, core)])
        self.up = nn.ModuleList([block(inner, outer), block(core, inner)])
        self.skip = nn.ModuleList([block(outer, outer), block(inner, inner)])
        self.out_block = block(outer, c)
        self.norm, self.out = GroupNorm(c, GROUPS), conv(3, c, c)

    def forward(self, v: Tensor) -> Tensor:
        flat = self.down[0](v)
        cube = self.down[1](upsample_nearest(mean_pool(flat, (1, 2, 2)), (2, 1, 1)))
        h = self.core[1](self.core[0](mean_pool(cube, (2, 2, 2))))
        h = upsample_nearest(self.up[1](h)) + self.skip[1](cube)
        h = upsample_nearest(mean_pool(self.up[0](h), (2, 1, 1)), (1, 2, 2))
        h = self.out_block(h + self.skip[0](flat))
        return self.out(F.relu(self.norm(h)))


class PictureDecoder(nn.Module):
    """Projection and ``G_2D``: view volume (B, C, Z, Y, X) -> picture (B, 3, size, size)."""

    def __init__(self, cfg: VolumetricConfig):
        super().__init__()
        z, _, _, c = cfg.volume
        self.size, width = cfg.size, cfg.decoder_width
        self.project = Pointwise(2, z * c, width)
        self.block = nn.ModuleList(
            NormBlock(2, width, width, cfg.decoder_shortcut) for _ in range(cfg.decoder_blocks)
        )
        channels, side = (width, *cfg.decoder_up_widths), cfg.volume[1]
        self.up = nn.ModuleList(
            NormBlock(2, a, b, cfg.decoder_shortcut, upsample=side * 2**i < self.size)
            for i, (a, b) in enumerate(zip(channels, channels[1:], strict=False))
        )
        self.norm, self.out = GroupNorm(channels[-1], GROUPS), conv(2, channels[-1], 3)

    def forward(self, view: Tensor) -> Tensor:
        b, c, z, y, x = view.shape
        flat = view.permute(0, 3, 4, 2, 1).reshape(b, y, x, z * c)
        h = self.project(to_front(flat))
        for block in self.block:
            h = block(h)
        for block in self.up:
            h = block(h)
        h = self.out(F.relu(self.norm(h)))
        return 2.0 * torch.sigmoid(h.float()) - 1.0


def _filled(values: tuple[float, ...], device: torch.device) -> Tensor:
    # Filled on the device: a copy from the host has no place in a CUDA graph.
    return torch.stack([torch.full((), float(v), device=device) for v in values])


def _parts(pose_B7: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rotation (B, 3, 3), zoom (B, 1), shift (B, 3) and pivot (3,) in the axes of the cubes."""
    flip = _filled((1.0, -1.0, 1.0), pose_B7.device)
    turn = rotation(*pose_B7[:, :3].unbind(1)) * flip[:, None] * flip[None, :]
    zoom = pose_B7[:, 6:].exp() * (REFERENCE_SCALE * BOX_CM)
    shift = pose_B7[:, 3:6] * flip * (HEAD_WIDTH_CM * REFERENCE_SCALE)
    return turn, zoom, shift, _filled(PIVOT_CM, pose_B7.device) * flip / BOX_CM


def view_from_canonical(pose_B7: Tensor) -> Tensor:
    """Affine matrices (B, 3, 4) that take canonical points to the view."""
    turn, zoom, shift, pivot = _parts(pose_B7)
    moved = zoom * (pivot - turn @ pivot) + shift
    return torch.cat([zoom[:, :, None] * turn, moved[:, :, None]], 2)


def canonical_from_view(pose_B7: Tensor) -> Tensor:
    """The inverse, in closed form."""
    turn, zoom, shift, pivot = _parts(pose_B7)
    back = turn.mT
    moved = pivot - (back @ (shift / zoom + pivot)[:, :, None])[..., 0]
    return torch.cat([back / zoom[:, :, None], moved[:, :, None]], 2)


def rigid_grid(matrix_B34: Tensor, shape: tuple[int, ...]) -> Points:
    """Where each cell of a volume looks: x, y and z, each (B, Z, Y, X)."""
    x, y, z = centres(*shape, device=matrix_B34.device)
    m = matrix_B34[..., None, None, None]
    return tuple(m[:, k, 0] * x + m[:, k, 1] * y + m[:, k, 2] * z + m[:, k, 3] for k in range(3))


class VolumetricAppearance(NamedTuple):
    """What is kept of portraits; with a batch axis."""

    volume: Tensor  # (B, C, Z, Y, X) canonical, after G_3D
    z_id: Tensor  # (B, D, 4, 4)


class VolumetricFace(nn.Module):
    """All generator nets of the full model; wrap calls in ``torch.autocast`` for bfloat16."""

    def __init__(self, cfg: VolumetricConfig, form: Form = "grid"):
        super().__init__()
        self.cfg, self.form = cfg, form
        self.encoder, self.identity = VolumeEncoder(cfg), IdentityEncoder(cfg)
        self.dynamics = ExpressionEncoder(cfg)
        self.warp_source, self.warp_driver = WarpGenerator(cfg), WarpGenerator(cfg)
        self.volume, self.decoder = VolumeUNet(cfg), PictureDecoder(cfg)

    def resample(self, volume: Tensor, pose_B7: Tensor, offset: Tensor, inwards: bool) -> Tensor:
        """Rigid then non-rigid sampling inwards (to canonical), the reverse outwards."""
        with torch.autocast(volume.device.type, enabled=False):
            shape = volume.shape[2:]
            matrix = (view_from_canonical if inwards else canonical_from_view)(pose_B7)
            rigid = rigid_grid(matrix, shape)
            at = centres(*shape, device=volume.device)
            free = tuple(a + moved for a, moved in zip(at, offset.unbind(-1), strict=True))
            for points in (rigid, free) if inwards else (free, rigid):
                volume = sample(volume, points, self.form)
            return volume

    def encode(
        self, image: Tensor, mask: Tensor, pose_B7: Tensor, z_dyn_BK: Tensor
    ) -> VolumetricAppearance:
        """Pictures (B, 3, Y, X) with masks (B, 1, Y, X), poses and dynamics -> appearance."""
        seen = image * mask
        z_id, posed = self.identity(seen), self.encoder(seen)
        offset = self.warp_source(z_dyn_BK, z_id)
        canonical = self.resample(posed, pose_B7, offset, inwards=True)
        return VolumetricAppearance(self.volume(canonical), z_id)

    def decode(self, appearance: VolumetricAppearance, pose_B7: Tensor, z_dyn_BK: Tensor) -> Tensor:
        """Appearance in given poses and dynamics -> pictures (B, 3, Y, X) in [-1, 1]."""
        offset = self.warp_driver(z_dyn_BK, appearance.z_id)
        return self.decoder(self.resample(appearance.volume, pose_B7, offset, inwards=False))

    def render(self, appearance: VolumetricAppearance, motion_BM: Tensor) -> Tensor:
        """Pictures of one portrait (appearance of batch 1) for motions (B, 7 + K)."""
        many = VolumetricAppearance(*(x.expand(len(motion_BM), *x.shape[1:]) for x in appearance))
        return self.decode(many, motion_BM[:, :POSE_DIM], motion_BM[:, POSE_DIM:])
