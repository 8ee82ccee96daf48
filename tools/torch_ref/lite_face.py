"""Stage 1 of the lite release (``vasa_jax/face/warp/autoencoder.py`` and the nets it is made of).

``encode`` once per portrait, ``render`` per batch of driving motions: geometry, warp, net, picture.
Every stage is a method of its own, so that parity can be checked on the same inputs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.torch_ref import inpaint, mouth, raster
from tools.torch_ref.fill import cells, spread
from tools.torch_ref.hairline import hair
from tools.torch_ref.head import HeadTensors, Pose, absolute_pose, drive
from tools.torch_ref.layers import (
    AdaptiveGroupNorm,
    GroupNorm,
    ResBlock,
    binomial,
    channels_last,
    conv,
    depth_to_space,
    space_to_depth,
    to_back,
    to_front,
    upsample_nearest,
)
from tools.torch_ref.sampling import Form, Points, centres, grid_of, sample
from vasa_jax.face.head import head as our_head
from vasa_jax.face.warp import irises as our_irises
from vasa_jax.face.warp.autoencoder import FaceConfig
from vasa_jax.face.warp.decoder import BOX_CM
from vasa_jax.face.warp.geometry import NUM_MAPS, Maps
from vasa_jax.face.warp.mouth import Mouth
from vasa_jax.nn.fill import COARSE


class AppearanceEncoder(nn.Module):
    """Portrait and openings (B, 5, Y, X) -> posed volume (B, C, Z, Y, X) and identity code."""

    def __init__(self, cfg: FaceConfig):
        super().__init__()
        self.depth, y, _, c = cfg.volume
        width = features = cfg.encoder_width
        self.stem = conv(2, 16 * 5, width)
        side = cfg.size // 4
        res, down = {}, {}
        while side > y:
            # Named as ours by the side at that point.
            res[str(side)] = ResBlock(features, features)
            wide = min(2 * features, 16 * width)
            down[str(side)] = nn.Conv2d(4 * features, wide, 1)
            features, side = wide, side // 2
        self.res, self.down = nn.ModuleDict(res), nn.ModuleDict(down)
        self.res_last = ResBlock(features, features)
        self.down_identity = nn.Conv2d(4 * features, features, 1)
        self.res_identity = ResBlock(features, features)
        self.norm = GroupNorm(features)
        self.to_volume = nn.Conv2d(features, self.depth * c, 1)
        self.identity = nn.Linear(features, cfg.code)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.stem(space_to_depth(x, 4))
        for res, down in zip(self.res.values(), self.down.values(), strict=True):
            h = down(space_to_depth(res(h), 2))
        h = self.res_last(h)
        volume = self.to_volume(F.silu(self.norm(h)))
        b, _, y, x_ = volume.shape
        posed = volume.reshape(b, self.depth, -1, y, x_).transpose(1, 2)
        g = self.res_identity(self.down_identity(space_to_depth(h, 2)))
        return channels_last(posed), self.identity(F.silu(g).mean((2, 3)))


class DynamicsEncoder(nn.Module):
    def __init__(self, code: int):
        super().__init__()
        self.in_, self.out = nn.Linear(47, 2 * code), nn.Linear(2 * code, code)

    def forward(self, expression_BE: Tensor, gaze_B2: Tensor) -> Tensor:
        return self.out(F.silu(self.in_(torch.cat([expression_BE, gaze_B2], -1))))


class WarpGenerator(nn.Module):
    """Offsets (B, Z, Y, X, 3) from a code (B, K), made at half size."""

    def __init__(self, shape: tuple[int, int, int], width: int, code: int):
        super().__init__()
        z, y, x = (n // 2 for n in shape)
        self.shape, self.start = shape, (max(z // 4, 1), y // 4, x // 4)
        a, b, c = self.start
        self.seed = nn.Linear(code, a * b * c * width)
        self.norm = nn.ModuleList(AdaptiveGroupNorm(width, code) for _ in range(2))
        self.conv = nn.ModuleList(conv(3, width, width) for _ in range(2))
        self.out = nn.Linear(width, 3)

    def forward(self, code_BK: Tensor) -> Tensor:
        h = to_front(self.seed(code_BK).reshape(len(code_BK), *self.start, -1))
        for norm, layer in zip(self.norm, self.conv, strict=True):
            h = upsample_nearest(h)
            h = layer(F.silu(norm(h, code_BK)))
        offset = to_front(self.out(to_back(F.silu(h)))).float()
        offset = F.interpolate(offset, self.shape, mode="trilinear", align_corners=False)
        return 0.3 * torch.tanh(to_back(offset))


class VolumeNet(nn.Module):
    """``G_3D``, residual."""

    def __init__(self, blocks: int, channels: int):
        super().__init__()
        self.blocks = blocks
        for i in range(blocks):
            for half in "ab":
                self.add_module(f"norm_{i}{half}", GroupNorm(channels))
                self.add_module(f"conv_{i}{half}", conv(3, channels, channels))

    def forward(self, v: Tensor) -> Tensor:
        for i in range(self.blocks):
            h = v
            for half in "ab":
                norm, layer = (getattr(self, f"{kind}_{i}{half}") for kind in ("norm", "conv"))
                h = layer(F.silu(norm(h)))
            v = v + h
        return v


class Decoder(nn.Module):
    """``G_2D``: a U-Net at half resolution with sub-pixel output."""

    def __init__(self, widths: tuple[int, int, int], volume: int):
        super().__init__()
        w0, w1, w2 = widths
        self.stem = nn.Conv2d(4 * (6 + NUM_MAPS), w0, 1)
        self.down = nn.ModuleDict({"1": nn.Conv2d(4 * w0, w1, 1), "2": nn.Conv2d(4 * w1, w2, 1)})
        self.enc = nn.ModuleDict({"1": ResBlock(w1, w1, norm=False)})
        self.project = nn.Conv2d(volume, w2, 1)
        self.merge = nn.Conv2d(2 * w2, w2, 1)
        self.mid = ResBlock(w2, w2, norm=False)
        self.up = nn.ModuleList([conv(2, w1, 4 * w0), conv(2, w2, w1, upsample=True)])
        self.dec = nn.ModuleList([ResBlock(w0, w0, norm=False), ResBlock(w1, w1, norm=False)])
        self.out = conv(2, w0, 24)
        bias = 0.4 * torch.tensor([-1.0, -1.6, -1.6]).reshape(1, 3, 1, 1)
        self.register_buffer("skin_tone", bias, persistent=False)

    def forward(self, warped: Tensor, maps: Tensor, volume: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 6, Y, X), (B, NUM_MAPS, Y, X), (B, K, y, x) -> picture and paint."""
        x = space_to_depth(torch.cat([warped, maps], 1), 2)
        h0 = self.stem(x)
        h1 = self.enc["1"](self.down["1"](space_to_depth(h0, 2)))
        h2 = self.down["2"](space_to_depth(F.silu(h1), 2))
        v = self.project(volume)
        while v.shape[2] < h2.shape[2]:
            v = upsample_nearest(v)
        h2 = self.mid(self.merge(torch.cat([h2, v], 1)))
        h1 = h1 + self.up[1](F.silu(h2))
        h1 = F.silu(self.dec[1](h1))
        h0 = h0 + binomial(depth_to_space(self.up[0](h1), 2))
        h0 = F.silu(self.dec[0](h0))
        out = binomial(depth_to_space(self.out(h0), 2).float())
        painted = torch.tanh(out[:, :3] + self.skin_tone)
        weight = torch.softmax(3.0 * out[:, 3:] + blend_prior(maps), 1)
        share = spread(cells(_named(maps).cover)) * COARSE**-2
        first, skin_layer, paint = (share * weight).split(1, 1)
        first = first + (1.0 - share)
        return first * warped[:, :3] + skin_layer * warped[:, 3:] + paint * painted, painted


def _named(maps: Tensor) -> Maps:
    """Each map (B, 1, Y, X), or (1, Y, X) where ``maps`` has no batch axis."""
    return Maps(*maps.split(1, -3))


def irises(image: Tensor, maps: Maps) -> Tensor:
    """1 if irises are seen in a portrait (3, Y, X), 0 if its open eyes are blank."""
    luma = image.new_tensor(our_irises.LUMA)[:, None, None]
    light = 0.5 * ((image * luma).sum(0, keepdim=True) + 1.0)
    inside = (maps.iris > 0.5).float()
    white = maps.eyeball * (maps.iris < 0.1)

    def mean(where: Tensor) -> Tensor:
        return (light * where).sum() / where.sum().clamp(min=1e-6)

    contrast = 1.0 - mean(inside) / mean(white).clamp(min=1e-2)
    low, high = our_irises.CONTRAST
    seen = ((contrast - low) / (high - low)).clamp(0.0, 1.0)
    fewest = our_irises.FEWEST_PX * (image.shape[-1] / 256) ** 2
    return torch.where(torch.minimum(inside.sum(), white.sum()) < fewest, 1.0, seen)


def blend_prior(maps: Tensor) -> Tensor:
    """Logits (B, 3, Y, X) before any learning."""
    m = _named(maps)
    painted = 4.0 * torch.maximum(m.mouth_interior, 0.4 * m.hidden) - 2.0
    stretched = ((m.stretch - 0.5) / 0.7).clamp(0.0, 1.0) * m.skin
    return torch.cat([torch.full_like(painted, 2.0), 6.0 * stretched - 2.0, painted], 1)


def _of_volumes(pose: Pose) -> tuple[Tensor, Tensor]:
    """Rotation (B, 3, 3, 1, 1, 1) and placement (B, 3, 1, 1, 1)."""
    return pose.rotation[..., None, None, None], pose.placement[..., None, None, None]


def to_view(points: Points, pose: Pose) -> Points:
    """Canonical points x, y and z in B views, each (B, Z, Y, X)."""
    (x, y, z), (r, placement) = points, _of_volumes(pose)
    cx, cy, s = placement.unbind(1)
    right, up, near = (r[:, k, 0] * x - r[:, k, 1] * y + r[:, k, 2] * z for k in range(3))
    return cx + s * BOX_CM * right, cy - s * BOX_CM * up, near


def from_view(points: Points, pose: Pose) -> Points:
    """Inverse of ``to_view``."""
    (x, y, z), (r, placement) = points, _of_volumes(pose)
    cx, cy, s = placement.unbind(1)
    right, up = (x - cx) / (s * BOX_CM), (cy - y) / (s * BOX_CM)
    x, y, z = (r[:, 0, k] * right + r[:, 1, k] * up + r[:, 2, k] * z for k in range(3))
    return x, -y, z


class Appearance(NamedTuple):
    """Everything kept of a portrait; without batch axis but for the pictures."""

    layers: Tensor  # (1, 6, Y, X) portrait and its skin layer
    geometry: raster.SourceGeometry
    volume: Tensor  # (1, C, Z, Y, X) canonical, after G_3D
    z_id: Tensor  # (1, code)
    irises: Tensor  # () 0 if the portrait's open eyes are blank, else 1
    mouth: Mouth


class LiteFace(nn.Module):
    """The nets of the lite release and the way from motions to pictures."""

    def __init__(self, cfg: FaceConfig, form: Form = "grid"):
        super().__init__()
        self.cfg, self.form = cfg, form
        z, _, _, channels = cfg.volume
        self.appearance = AppearanceEncoder(cfg)
        self.dynamics = DynamicsEncoder(cfg.code)
        self.warp_source = WarpGenerator(cfg.volume[:3], cfg.warp_width, cfg.code)
        self.warp_driver = WarpGenerator(cfg.volume[:3], cfg.warp_width, cfg.code)
        self.volume = VolumeNet(cfg.volume_blocks, channels)
        self.decoder = Decoder(cfg.decoder_widths, z * channels)
        share = torch.from_numpy(our_head.resting_share())
        self.register_buffer("share", share, persistent=False)

    def offset(self, generator: WarpGenerator, z_id: Tensor, pose: Pose) -> Tensor:
        return generator(self.dynamics(pose.expression, pose.gaze) + z_id)

    def resample(self, volume: Tensor, pose: Pose, offset: Tensor, inwards: bool) -> Tensor:
        """Rigid then non-rigid sampling inwards (to canonical), the reverse outwards."""
        with torch.autocast(volume.device.type, enabled=False):
            at = centres(*volume.shape[2:], device=volume.device)
            free = tuple(a + moved for a, moved in zip(at, offset.unbind(-1), strict=True))
            rigid = (to_view if inwards else from_view)(at, pose)
            for points in (rigid, free) if inwards else (free, rigid):
                volume = sample(volume, points, self.form)
            return volume

    def encode_nets(self, image: Tensor, opening: Tensor, pose: Pose) -> tuple[Tensor, Tensor]:
        """(B, 3, Y, X), (B, 2, Y, X) -> canonical volume and identity code."""
        posed, z_id = self.appearance(torch.cat([image, opening], 1))
        offset = self.offset(self.warp_source, z_id, pose)
        return self.volume(self.resample(posed, pose, offset, inwards=True)), z_id

    def decode(
        self, warped: Tensor, maps: Tensor, volume: Tensor, z_id: Tensor, pose: Pose,
        corner: int | Tensor = 0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Picture and paint; ``corner`` is where a window of the picture begins, in cells."""
        offset = self.offset(self.warp_driver, z_id, pose)
        driven = self.resample(volume, pose, offset, inwards=False)
        b, c, z, y, x = driven.shape
        # (B, C, Z, Y, X) -> (B, Z C, Y, X), depth before channel as in ours.
        flat = driven.permute(0, 3, 4, 2, 1).reshape(b, y, x, z * c)
        cells = warped.shape[2] * y // self.cfg.size
        flat = flat[:, corner : corner + cells, corner : corner + cells]
        return self.decoder(warped, maps, to_front(flat))

    def encode(
        self, head: HeadTensors, image: Tensor, identity: Tensor,
        motion: Tensor, placement: Tensor, shape: Tensor | None = None,
    ) -> Appearance:  # fmt: skip
        """Everything computed once per portrait (1, 3, Y, X) in [-1, 1] with its fit."""
        geometry = raster.place_source(head, identity, motion, placement, shape, size=self.cfg.size)
        geometry = geometry._replace(rim=geometry.rim * (1.0 - hair(image[0], geometry)))
        skin = inpaint.skin_layer(image, geometry.opening)
        layers = torch.cat([image, skin], 1)
        pose = absolute_pose(motion[None], placement[None])
        opening = to_front(geometry.opening[None])
        volume, z_id = self.encode_nets(image, opening, pose)
        own = raster.drive_geometry(head, geometry, pose, size=self.cfg.size)
        maps = _named(own.maps[0])
        tone = mouth.tone_of(image[0], maps.face[0])
        teeth = mouth.teeth_of(head, geometry.neutral)
        return Appearance(
            channels_last(layers), geometry, volume, z_id, irises(image[0], maps),
            mouth.mouth_of(image[0], maps, teeth, tone),
        )  # fmt: skip

    def warp(self, head: HeadTensors, appearance: Appearance, pose: Pose):
        """Warped layers (B, 6, Y, X), maps, contours, lashes and throat, no net at all."""
        g = raster.drive_geometry(head, appearance.geometry, pose, size=self.cfg.size)
        layers = appearance.layers.expand(len(g.flow), -1, -1, -1)
        moved = inpaint.warp_layers(layers, g, self.form)
        return moved, g.maps, raster.contour(g.flow), g.lashes, g.throat

    def finish(
        self, warped: Tensor, maps: Tensor, edge_weight: Tensor, line: Tensor, throat: Tensor,
        appearance: Appearance, pose: Pose,
    ) -> Tensor:  # fmt: skip
        """Pictures (B, 3, Y, X) in [-1, 1] from the warped layers: net, ramp, contours, lashes."""
        b, m, n = len(warped), self.cfg.margin, self.cfg.size

        def inner(x: Tensor) -> Tensor:
            return channels_last(x[:, :, m : n - m, m : n - m])

        volume = appearance.volume.expand(b, -1, -1, -1, -1)
        z_id = appearance.z_id.expand(b, -1)
        cell = m * self.cfg.volume[1] // n
        image, _ = self.decode(inner(warped), inner(maps), volume, z_id, pose, cell)
        moved = warped[:, :3]
        blank = (1.0 - appearance.irises) * inner(_named(maps).eyeball)
        under = inner(throat)
        left = torch.maximum(blank, torch.maximum(under, binomial(under)))
        image = image + left * (inner(moved) - image)
        if m:
            edge = 1.0 - grid_of(n - 2 * m, n - 2 * m, device=moved.device).abs().amax(-1)
            ramp = (edge * (n - 2 * m) / 2 / 10.0).clamp(0.0, 1.0)
            middle = inner(moved)
            moved = moved.clone()
            moved[:, :, m : n - m, m : n - m] = middle + ramp * (image - middle)
            image = moved
        image = image + edge_weight * (binomial(image) - image)
        image = mouth.paint(image, appearance.mouth, _named(maps).mouth_interior, pose)
        return (image + 1.0) * (1.0 - line) - 1.0

    def render(self, head: HeadTensors, appearance: Appearance, motion_BM: Tensor) -> Tensor:
        """Pictures (B, 3, Y, X) in [-1, 1] for driving motions (B, 54)."""
        g = appearance.geometry
        with torch.autocast(motion_BM.device.type, enabled=False):
            pose = drive(g.motion, g.placement, motion_BM, self.share)
            warped = self.warp(head, appearance, pose)
        return self.finish(*warped, appearance, pose)


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] (B, 3, Y, X) -> uint8 (B, Y, X, 3) on the device."""
    return to_back(((image + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)).contiguous()
