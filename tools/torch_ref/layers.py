"""Convolution blocks of the face nets in PyTorch's layouts (``vasa_jax/nn``).

Pictures (B, C, Y, X) are kept in ``channels_last`` memory and volumes (B, C, Z, Y, X) in
``channels_last_3d``: what cuDNN's and oneDNN's fast convolutions want. Reorderings of channels go
through the (B, Y, X, C) view, which is free there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def channels_last(x: Tensor) -> Tensor:
    """``x`` in the memory order of its rank; no copy where it is so already."""
    return x.contiguous(memory_format=_LAST[x.ndim])


def to_front(x: Tensor) -> Tensor:
    """(B, *spatial, C) -> (B, C, *spatial), a view."""
    return x.movedim(-1, 1)


def to_back(x: Tensor) -> Tensor:
    """(B, C, *spatial) -> (B, *spatial, C), a view."""
    return x.movedim(1, -1)


def space_to_depth(x: Tensor, factor: int) -> Tensor:
    """(B, C, Y, X) -> (B, f f C, Y/f, X/f) with our order of channels (row, column, channel)."""
    b, c, y, z = x.shape
    h = to_back(x).reshape(b, y // factor, factor, z // factor, factor, c)
    h = h.permute(0, 1, 3, 2, 4, 5).reshape(b, y // factor, z // factor, factor * factor * c)
    return to_front(h)


def depth_to_space(x: Tensor, factor: int) -> Tensor:
    """The inverse of ``space_to_depth``."""
    b, c, y, z = x.shape
    out = c // (factor * factor)
    h = to_back(x).reshape(b, y, z, factor, factor, out).permute(0, 1, 3, 2, 4, 5)
    return to_front(h.reshape(b, y * factor, z * factor, out))


def upsample_nearest(x: Tensor, factors: tuple[int, ...] | None = None) -> Tensor:
    """Repeats cells by whole factors, 2 on every axis by default."""
    factors = (2,) * (x.ndim - 2) if factors is None else factors
    return F.interpolate(x, scale_factor=tuple(map(float, factors)), mode="nearest")


def mean_pool(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    """Means over blocks of cells."""
    return (F.avg_pool2d if x.ndim == 4 else F.avg_pool3d)(x, factors)


class GroupNorm(nn.Module):
    """Group norm of up to ``groups`` groups; with ``affine`` off the caller brings the gain."""

    def __init__(self, channels: int, groups: int = 8, affine: bool = True):
        super().__init__()
        groups = min(groups, channels)
        while channels % groups:
            groups -= 1
        self.groups = groups
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.weight = self.bias = None

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.weight, self.bias, 1e-5)


class AdaptiveGroupNorm(nn.Module):
    """Group norm with gain and offset from a code (B, K): the lite warp generators'."""

    def __init__(self, channels: int, code: int):
        super().__init__()
        self.normal = GroupNorm(channels, affine=False)
        self.affine = nn.Linear(code, 2 * channels)

    def forward(self, x: Tensor, code_BK: Tensor) -> Tensor:
        gain, bias = self.affine(code_BK).reshape(len(x), -1, *(1,) * (x.ndim - 2)).chunk(2, 1)
        return self.normal(x) * (1 + gain) + bias


class LowRankGroupNorm(nn.Module):
    """Group norm whose gain and offset follow a code map (B, L, D): the full warp generators'."""

    def __init__(self, channels: int, places: int, width: int):
        super().__init__()
        self.normal = GroupNorm(channels, 32, affine=False)
        self.rows = nn.Parameter(torch.zeros(width, channels))
        self.columns = nn.Parameter(torch.zeros(places, 2))
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, code_BLD: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            code = code_BLD.float().transpose(1, 2) @ self.columns  # (B, D, 2)
            change = code.transpose(1, 2) @ self.rows  # (B, 2, C)
            shape = (len(x), -1, *(1,) * (x.ndim - 2))
            gain = (self.weight + change[:, 0]).reshape(shape)
            bias = (self.bias + change[:, 1]).reshape(shape)
            return (self.normal(x.float()) * gain + bias).to(x.dtype)


def standardise(weight: Tensor) -> Tensor:
    """Each output's kernel (O, ...) to mean 0 and deviation 1."""
    axes = tuple(range(1, weight.ndim))
    centered = weight - weight.mean(axes, keepdim=True)
    deviation = (centered.square().mean(axes, keepdim=True) + 1e-12).sqrt()
    return centered / (deviation + 1e-5)


class StandardisedConv2d(nn.Conv2d):
    """Convolution with standardised weights; ``folded`` once its weights are those already."""

    folded = False

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.folded else standardise(self.weight)
        return self._conv_forward(x, weight, self.bias)


class StandardisedConv3d(nn.Conv3d):
    """The same for volumes."""

    folded = False

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.folded else standardise(self.weight)
        return self._conv_forward(x, weight, self.bias)


def _to_both_sides(weight: Tensor, axis: int) -> Tensor:
    """Taps, then sides of a cell, the second first; then the other axes (as ours)."""
    before, here, after = weight.unbind(axis)
    return torch.stack([torch.stack([before + here, before]), torch.stack([after, here + after])])


class UpsampledConv2d(nn.Conv2d):
    """3x3 convolution of the picture upsampled to nearest, as one of 2x2 cells and four pictures.

    ``folded`` once its weights are those of the latter.
    """

    folded = False

    def __init__(self, *arguments, standardised: bool = False, **options):
        super().__init__(*arguments, **options)
        self.standardised = standardised

    def halves(self) -> tuple[Tensor, Tensor]:
        weight = standardise(self.weight) if self.standardised else self.weight
        taps = _to_both_sides(_to_both_sides(weight, 2), 4)  # x tap, x side, y tap, y side, O, I
        weight = taps.permute(1, 3, 4, 5, 2, 0).flatten(0, 2)
        return weight, self.bias.repeat(4)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (self.weight, self.bias) if self.folded else self.halves()
        h = self._conv_forward(x, weight, bias)
        b, c, y, z = h.shape
        # Not `pixel_shuffle`: Inductor (2.13) makes two slow copies of that.
        h = h.reshape(b, 2, 2, c // 4, y, z).permute(0, 4, 2, 5, 1, 3)
        return to_front(h.reshape(b, 2 * y, 2 * z, c // 4)[:, 1:-1, 1:-1])


def fold(net: nn.Module) -> nn.Module:
    """Prepares weights once and for all, as one would for inference; returns ``net``."""
    for module in net.modules():
        if isinstance(module, UpsampledConv2d) and not module.folded:
            with torch.no_grad():
                weight, module.bias.data = module.halves()
                module.weight.data = channels_last(weight)
            module.folded = True
        if isinstance(module, StandardisedConv2d | StandardisedConv3d) and not module.folded:
            module.weight.data = standardise(module.weight.data)
            module.folded = True
    return net


def conv(
    dims: int, channels: int, features: int, size: int = 3, *, standardised=False, upsample=False,
    **options,
):  # fmt: skip
    """A convolution of ``dims`` dimensions that keeps the size, or that of it upsampled (2D)."""
    if upsample:
        return UpsampledConv2d(channels, features, 3, padding=1, standardised=standardised)
    plain, standard = {
        2: (nn.Conv2d, StandardisedConv2d), 3: (nn.Conv3d, StandardisedConv3d),
    }[dims]  # fmt: skip
    kind = standard if standardised else plain
    return kind(channels, features, size, padding=size // 2, **options)


class ResBlock(nn.Module):
    """The lite block: (norm, SiLU, 3x3) twice, 1x1 shortcut where widths differ."""

    def __init__(self, channels: int, features: int, norm: bool = True):
        super().__init__()
        kinds = [GroupNorm(n) if norm else nn.Identity() for n in (channels, features)]
        self.norm = nn.ModuleList(kinds)
        self.conv = nn.ModuleList([conv(2, channels, features), conv(2, features, features)])
        if channels != features:
            self.shortcut = nn.Conv2d(channels, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for norm, layer in zip(self.norm, self.conv, strict=True):
            h = layer(F.silu(norm(h)))
        return (self.shortcut(x) if hasattr(self, "shortcut") else x) + h


def binomial(image: Tensor) -> Tensor:
    """3x3 binomial low-pass, borders repeated."""
    # Edges by concatenation: Inductor (2.13) does not get a replicating pad after a pixel shuffle.
    x = torch.cat([image[:, :, :1], image, image[:, :, -1:]], 2)
    x = 0.25 * (x[:, :, :-2] + 2.0 * x[:, :, 1:-1] + x[:, :, 2:])
    x = torch.cat([x[..., :1], x, x[..., -1:]], 3)
    return 0.25 * (x[..., :-2] + 2.0 * x[..., 1:-1] + x[..., 2:])
