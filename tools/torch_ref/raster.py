"""The triangle rasteriser and the analytic flow for batches of poses (``face/head/raster.py``).

A z-buffer by one scatter with maximum: ``scatter_reduce_(..., "amax")`` is the form that PyTorch
has for it. It has no counterpart of the promise that indices are in bounds, and Inductor leaves it
to ATen, so it ends a fused kernel. A custom CUDA kernel (nvdiffrast) would be faster on a GPU, and
is a dependency that neither side takes.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.torch_ref.fill import cells, coarse, push_pull, spread
from tools.torch_ref.head import (
    HeadTensors,
    Pose,
    absolute_pose,
    blink_shares,
    person,
    place_head,
)
from tools.torch_ref.layers import to_back, to_front
from tools.torch_ref.sampling import grid_of
from vasa_jax.face.head.raster import DEPTH_RANGE_CM, LARGE, NUMBER_BITS, WINDOWS
from vasa_jax.face.warp import lashes
from vasa_jax.face.warp.geometry import (
    CONTOUR_PX,
    IRIS_RAD,
    JAW_CM,
    JAW_FALLS,
    JUMP_CM,
    REACH_PX,
    RIM_PX,
    STRETCH,
    STRETCH_AT_RIM,
    Maps,
)
from vasa_jax.nn.fill import COARSE


def rasterise(placed_BV3: Tensor, triangles_F3: Tensor, *, size: int) -> tuple[Tensor, Tensor]:
    """Nearest front-facing triangle (B, size, size), -1 for none, and its depth in cm."""
    corners = placed_BV3[:, triangles_F3]  # (B, F, 3, 3)
    corner, depth = (corners[..., :2] + 1.0) * (size * 0.5), corners[..., 2]
    extent = _pixels(corner)
    extent, order = extent.sort(dim=1, descending=True)
    starts, windows = (
        list(x) for x in zip(*(w for w in WINDOWS if w[0] < extent.shape[1]), strict=True)
    )
    usual, large = (
        [max(3, math.ceil(window * grown * size / 256.0)) for window in windows]
        for grown in (1.0, LARGE)
    )
    fits = (extent[:, starts] <= extent.new_tensor(usual)).all()
    c = corner.gather(1, order[:, :, None, None].expand(-1, -1, 3, 2))
    z = depth.gather(1, order[:, :, None].expand(-1, -1, 3))
    given = (*_edges(c, z), order.int())
    # As in ours: windows of the usual size unless a triangle needs more; see inpaint.py for `cond`.
    few, many = (functools.partial(_scatter, starts, w, size) for w in (usual, large))
    if torch.compiler.is_compiling():
        key = torch.cond(fits, few, many, given)
    else:
        key = (few if bool(fits) else many)(*given)
    hit = key >= 0
    depth_BYX = ((key >> NUMBER_BITS).float() / 65535.0 - 0.5) * DEPTH_RANGE_CM
    triangle = torch.where(hit, key & ((1 << NUMBER_BITS) - 1), -1).long()
    return triangle, torch.where(hit, depth_BYX, -1e3)


def _pixels(corner: Tensor) -> Tensor:
    """Larger side (B, F) of each triangle's box in pixel centres; 0 if it cannot be seen."""
    sides = (corner.amax(2) - 0.5).floor() - (corner.amin(2) - 0.5).ceil() + 1.0
    b, c = corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0]
    seen = (b[..., 0] * c[..., 1] < c[..., 0] * b[..., 1]) & (sides.amin(-1) > 0)
    return torch.where(seen, sides.amax(-1), 0.0)


def _edges(corner: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """First pixel centres (B, 2, F) of the windows and their affine maps (B, 3, 3, F), as ours."""
    x, y = corner[..., 0], corner[..., 1]
    first = (corner.amin(2) - 0.5).ceil() + 0.5
    qx, qy = first[..., 0] - x[..., 0], first[..., 1] - y[..., 0]
    ux, uy = x[..., 1] - x[..., 0], y[..., 1] - y[..., 0]
    vx, vy = x[..., 2] - x[..., 0], y[..., 2] - y[..., 0]
    area = ux * vy - vx * uy
    front = area < -1e-9
    inverse = torch.where(front, 1.0 / area.clamp(max=-1e-9), 0.0)

    def along(tx: Tensor, ty: Tensor) -> list[Tensor]:
        return [(qx * ty - qy * tx) * inverse, ty * inverse, -tx * inverse]

    second, third = along(vx, vy), along(-ux, -uy)
    scale = 65535.0 / DEPTH_RANGE_CM
    dz = (z[..., 1] - z[..., 0], z[..., 2] - z[..., 0])
    level = [scale * (dz[0] * a + dz[1] * b) for a, b in zip(second, third, strict=True)]
    level[0] = level[0] + (scale * z[..., 0] + 0.5 * 65535.0)
    second[0] = torch.where(front, second[0], -1e9)
    maps = torch.stack([torch.stack(m, 1) for m in (second, third, level)], 1)
    return first.transpose(1, 2), maps


def _scatter(
    starts: list[int], windows: list[int], size: int,
    first: Tensor, maps: Tensor, order: Tensor,
) -> Tensor:  # fmt: skip
    """The z-buffer's packed numbers (B, Y, X), -1 where nothing is."""
    b, device = len(order), order.device
    cells = size * size
    picture = torch.full((b * cells + 1,), -1, dtype=torch.int32, device=device)
    offset = (torch.arange(b, device=device) * cells).reshape(b, 1, 1, 1)
    for begin, end, k in zip(starts, [*starts[1:], order.shape[1]], windows, strict=True):
        right = torch.arange(k, dtype=torch.float32, device=device)[None, None, :, None]
        down = torch.arange(k, dtype=torch.float32, device=device)[None, :, None, None]
        part, m = first[:, :, None, None, begin:end], maps[:, :, :, None, None, begin:end]
        px, py = part[:, 0] + right, part[:, 1] + down
        second, third, level = (
            m[:, i, 0] + right * m[:, i, 1] + down * m[:, i, 2] for i in range(3)
        )
        inside = (second >= 0) & (third >= 0) & (second + third <= 1)
        inside &= (px < size) & (py < size) & (px > 0) & (py > 0)
        key = (level.clamp(0, 65535).int() << NUMBER_BITS) + order[:, None, None, begin:end]
        pixel = torch.where(inside, py.long() * size + px.long() + offset, b * cells)
        picture.scatter_reduce_(0, pixel.reshape(-1), key.reshape(-1), "amax")
    return picture[:-1].reshape(b, size, size).clone()  # `cond` wants no part of a larger array


class SourceGeometry(NamedTuple):
    """The portrait's own head, placed once; without batch axis."""

    identity: Tensor
    motion: Tensor  # (54,)
    placement: Tensor  # (3,)
    neutral: Tensor  # (V, 3)
    eye_centers: Tensor  # (2, 3)
    placed: Tensor  # (V, 3)
    group: Tensor  # (Y, X) of the triangle seen
    near: Tensor  # (Y, X) cm: the farthest depth of four neighbours
    opening: Tensor  # (Y, X, 2)
    rim: Tensor  # (Y, X), the largest of the four


def _is_interior(group: Tensor) -> Tensor:
    return (group == 2) | (group == 4) | (group == 5) | (group == 6)


def place_source(
    head: HeadTensors, identity: Tensor, motion: Tensor, placement: Tensor,
    shape: Tensor | None = None, *, size: int,
) -> SourceGeometry:  # fmt: skip
    """Places the fitted head of a portrait and draws its depth."""
    neutral, centers = person(head, identity)
    if shape is not None:
        neutral = neutral + shape
    # As in ours: the fit's placement already holds translation and scale.
    pose = absolute_pose(motion[None], placement[None])._replace(placement=placement[None])
    placed = place_head(head, neutral, centers, pose)
    triangle, depth = rasterise(placed, head.triangles, size=size)
    group = torch.where(triangle >= 0, head.group[triangle.clamp(min=0)], -1.0)[0]
    opening = torch.stack([_is_interior(group), group >= 7], -1).float()
    near, rim = -_most_of_four(-depth[0]), _most_of_four(_rim(depth[0], group, opening.amax(-1)))
    return SourceGeometry(
        identity, motion, placement, neutral, centers, placed[0], group, near, opening, rim
    )


def _most_of_four(flat: Tensor) -> Tensor:
    """Of each pixel of (Y, X) and those to its right and below."""
    return F.max_pool2d(F.pad(flat[None], (0, 1, 0, 1), mode="replicate"), 2, stride=1)[0]


def grown(mask: Tensor, pixels: int) -> Tensor:
    """A map (..., Y, X) whose every pixel is the largest within ``pixels``."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:])
    return F.max_pool2d(flat, 2 * pixels + 1, stride=1, padding=pixels).reshape(mask.shape)


def _rim(depth: Tensor, group: Tensor, opening: Tensor) -> Tensor:
    """Weight of being just inside of an outline of the head."""
    hit = group >= 0
    depth = torch.where(opening > 0, 1e3, torch.where(hit, depth, -1e3))
    farthest = -grown(-depth, 1)
    edge = (hit & (opening == 0) & (depth - farthest > JUMP_CM)).float()
    unit = max(len(depth) // 256, 1)
    return hit * sum(grown(edge, k * unit) for k in RIM_PX) / len(RIM_PX)


class DriverGeometry(NamedTuple):
    """What B driven heads say about every pixel."""

    flow: Tensor  # (B, Y, X, 2)
    maps: Tensor  # (B, NUM_MAPS, Y, X), in the order of our ``Maps``
    known: Tensor  # (B, 1, Y, X)
    unknown: Tensor  # (B, 1, Y, X)
    throat: Tensor  # (B, 1, Y, X)
    lashes: Tensor  # (B, 1, Y, X)


def drive_geometry(
    head: HeadTensors, source: SourceGeometry, pose: Pose, *, size: int
) -> DriverGeometry:
    """Puts the portrait's head into B poses and rasterises flow and maps."""
    moved = place_head(head, source.neutral, source.eye_centers, pose)
    rigid = head.rigid
    placed = torch.cat(
        [rigid * moved[..., :2] + (1 - rigid) * source.placed[:, :2], moved[..., 2:]], -1
    )
    triangle, _ = rasterise(placed, head.triangles, size=size)
    row = _triangle_table(head, source, placed, pose)
    hit = triangle >= 0
    b = len(placed)
    number = triangle.clamp(min=0).reshape(b, -1, 1).expand(-1, -1, row.shape[-1])
    r = row.gather(1, number).reshape(b, size, size, -1)
    grid = grid_of(size, size, device=placed.device)
    value = r[..., 0:4] + r[..., 4:8] * grid[..., :1] + r[..., 8:12] * grid[..., 1:]
    group = torch.where(hit, r[..., 16], -1.0)
    flow = value[..., :2]

    p = ((flow + 1.0) * (size * 0.5) - 0.5).clamp(0, size - 1)
    x0, y0 = p[..., 0].long(), p[..., 1].long()
    near, rim = source.near[y0, x0], source.rim[y0, x0]
    inside = (flow.abs() < 1.0).all(-1)
    visible = hit & inside & (r[..., 15] > 0.5) & (value[..., 2] > near - 0.25)
    eyeball = (group >= 7).float()
    iris = eyeball * ((IRIS_RAD - value[..., 3]) / 0.06 + 0.5).clamp(0.0, 1.0)
    face, shown = group == 0, hit.float()
    low, high = (a + rim * (b - a) for a, b in zip(STRETCH, STRETCH_AT_RIM, strict=True))
    known = (face & visible) * ((high - r[..., 14]) / (high - low)).clamp(0.0, 1.0)
    below_jaw = r[..., 17] > 0.5
    unknown = (face & ~below_jaw) * (1.0 - known)
    throat = (hit & below_jaw & ~visible).float()
    maps = Maps(
        _is_interior(group), group == 5, group == 6, group == 4, eyeball, iris, face,
        torch.where(hit, r[..., 12], 0.0), torch.where(hit, r[..., 13], 0.0), shown, visible,
        torch.where(hit, r[..., 14], 0.0), face | (group == 1),
    )  # fmt: skip
    maps = Maps(*(m.float() for m in maps))
    around = _background(head, source, placed, grid, pose)
    own_flow = visible | (face & ~below_jaw) | (maps.mouth_interior + maps.eyeball > 0)
    flow = grid + _border(grid, 0.10) * (flow - grid)
    flow = _carry_on(flow, around, maps, own_flow, grid, pose.placement)
    line = lash_line(head, placed, blink_shares(pose), pose.placement[:, 2], grid)
    flat = (m[:, None] for m in (known, unknown, throat, line * shown))
    return DriverGeometry(flow, torch.stack(tuple(maps), 1), *flat)


def lash_line(
    head: HeadTensors, placed: Tensor, blinks_B2: Tensor, scale_B: Tensor, grid: Tensor
) -> Tensor:
    """Share of light (B, Y, X) that the lashes of shut or closing eyes swallow."""
    b = len(placed)
    total = torch.zeros((b, *grid.shape[:2]), device=placed.device)
    # Filled on the device, as everything that a CUDA graph may hold.
    taper = torch.stack([torch.full((), float(t), device=placed.device) for t in lashes.TAPER])
    points = (placed[:, head.margins, :2] * head.margin_weights[..., None]).sum(-2)
    spread = (2.0 * (lashes.WIDTH_CM * scale_B) ** 2)[:, None, None, None]
    for side in (0, 1):
        blink = blinks_B2[:, side]
        upper, lower = points[:, side].unbind(1)  # (B, 9, 2)
        line = upper + 0.5 * blink[:, None, None] * (lower - upper)
        a, along = line[:, :-1], line[:, 1:] - line[:, :-1]
        length = along.square().sum(-1).clamp(min=1e-9)[:, None, None]
        away = grid[None, :, :, None] - a[:, None, None]  # (B, Y, X, 8, 2)
        along = along[:, None, None]
        t = ((away * along).sum(-1) / length).clamp(0.0, 1.0)
        square = (away - t[..., None] * along).square().sum(-1)
        weight = taper[:-1] + t * (taper[1:] - taper[:-1])
        square, first = square.min(-1, keepdim=True)
        nearest = (weight.gather(-1, first) * (-square / spread).exp())[..., 0]
        share = ((blink - lashes.BEGINS) / (lashes.CERTAIN - lashes.BEGINS)).clamp(0.0, 1.0)
        total = torch.maximum(total, share.square()[:, None, None] * nearest)
    return lashes.DARKNESS * total


def _triangle_table(
    head: HeadTensors, source: SourceGeometry, placed: Tensor, pose: Pose
) -> Tensor:
    """(B, F, 18) a triangle: affine maps to the portrait, normal, stretch, facing, group, neck."""
    d, s = placed[:, head.triangles], source.placed[head.triangles]
    b = len(d)
    origin, u, v = d[:, :, 0, :2], d[:, :, 1, :2] - d[:, :, 0, :2], d[:, :, 2, :2] - d[:, :, 0, :2]
    area = u[..., 0] * v[..., 1] - v[..., 0] * u[..., 1]
    usable = area.abs() > 1e-9
    inverse = torch.where(usable, 1.0 / torch.where(usable, area, 1.0), 0.0)[..., None]
    corner = torch.cat([s, head.iris_angle[head.triangles][..., None]], -1)  # (F, 3, 4)
    du, dv = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    gx = (du * v[..., 1:] - dv * u[..., 1:]) * inverse
    gy = (dv * u[..., :1] - du * v[..., :1]) * inverse
    constant = corner[:, 0] - gx * origin[..., :1] - gy * origin[..., 1:]
    e1, e2 = d[:, :, 1] - d[:, :, 0], d[:, :, 2] - d[:, :, 0]
    unit = pose.placement[:, 2, None]

    def spatial(e: Tensor) -> Tensor:
        return torch.stack([e[..., 0], -e[..., 1], e[..., 2] * unit], -1)

    normal = torch.linalg.cross(spatial(e1), spatial(e2))
    length = torch.linalg.vector_norm(normal, dim=-1, keepdim=True)
    normal = normal / length.clamp(min=1e-9)
    a, c = s[:, 1] - s[:, 0], s[:, 2] - s[:, 0]
    s_area = a[:, 0] * c[:, 1] - c[:, 0] * a[:, 1]
    stretch = torch.log2(area.abs().clamp(min=1e-7) / s_area.abs().clamp(min=1e-7))
    middle = head.base[head.triangles].mean(1)
    below_jaw = (middle[:, 1] < JAW_CM - JAW_FALLS * middle[:, 2]).float()
    constants = torch.stack([(s_area < 0).float(), head.group, below_jaw], -1)
    return torch.cat(
        [
            constant, gx, gy, normal[..., :2], stretch.clamp(-3.0, 3.0)[..., None],
            constants.expand(b, -1, -1),
        ],
        -1,
    )  # fmt: skip


def _border(grid: Tensor, width: float) -> Tensor:
    """Weight (Y, X, 1) that rises from 0 at the border of the crop."""
    return _smooth((1.0 - grid.abs().amax(-1) - 0.02) / width)[..., None]


def _smooth(t: Tensor) -> Tensor:
    t = t.clamp(0.0, 1.0)
    return t * t * (3 - 2 * t)


def _carry_on(
    flow: Tensor, around: Tensor, maps: Maps, head: Tensor, grid: Tensor, placement: Tensor
) -> Tensor:
    """Flow that runs on smoothly from what is seen of the head into its surroundings."""
    size = len(grid)
    off, hole = coarse(to_front(flow - around), maps.visible[:, None])
    near = (cells(maps.cover[:, None]) > 0).float()
    near = grown(near, REACH_PX * size // 256 // COARSE)
    off = to_back(push_pull(off, near * hole))
    way = grid_of(*near.shape[2:], device=grid.device) - placement[:, None, None, :2]
    way = way / (way.square().sum(-1, keepdim=True) + 1e-4).sqrt()
    off = off - (off * way).sum(-1, keepdim=True).clamp(max=0.0) * way
    carried = around + _border(grid, 0.10) * to_back(spread(to_front(off)))
    return torch.where(head[..., None], flow, carried)


def head_plane(pose: Pose, size: int) -> tuple[Tensor, Tensor]:
    """Where each pixel would be on a flat head, cm to the right and up, (B, Y, X) each."""
    grid = grid_of(size, size, device=pose.placement.device)

    def dot(q: Tensor, axis: Tensor) -> Tensor:
        length = axis.square().sum(-1).clamp(min=0.3)[:, None, None]
        return (q * axis[:, None, None]).sum(-1) / length

    q = (grid - pose.placement[:, None, None, :2]) / pose.placement[:, None, None, 2:]
    q = torch.stack([q[..., 0], -q[..., 1]], -1)
    return dot(q, pose.rotation[:, :2, 0]), dot(q, pose.rotation[:, :2, 1])


def _background(
    head: HeadTensors, source: SourceGeometry, placed: Tensor, grid: Tensor, pose: Pose
) -> Tensor:
    """Hair follows the skull, the rest of the picture stays; in between, blend."""
    base = head.base
    w = ((base[:, 2] > -4.0) & (base[:, 2] < 5.0) & (base[:, 1] > -4.0)).float()[:, None]
    a = F.pad(placed[..., :2], (0, 1), value=1.0)
    weighted = (a * w).mT
    tiny = 1e-4 * torch.eye(3, device=a.device)
    affine = _solve3(weighted @ a + tiny, weighted @ source.placed[:, :2])
    skull = (F.pad(grid, (0, 1), value=1.0).reshape(-1, 3) @ affine).reshape(-1, *grid.shape)

    x, y = head_plane(pose, len(grid))
    rho = ((x / 10.5).square() + ((y - 2.5) / 13.0).square()).sqrt()

    weight = (1.0 - _smooth((rho - 1.0) / 0.75)) * _smooth((y + 16.0) / 7.5)
    return grid + weight[..., None] * _border(grid, 0.14) * (skull - grid)


def _solve3(a: Tensor, b: Tensor) -> Tensor:
    """Cramer's rule for batches of 3 x 3: no solver call, which a CUDA graph would not take."""
    rows = a.unbind(1)
    columns = [torch.linalg.cross(rows[i - 2], rows[i - 1]) for i in range(3)]
    adjugate = torch.stack(columns, -1)
    determinant = (rows[0] * columns[0]).sum(-1)
    return adjugate @ b / determinant[:, None, None]


def contour(flow_BYX2: Tensor) -> Tensor:
    """Weight 0..1 of being beside a jump of the flow (B, 1, Y, X)."""
    size = flow_BYX2.shape[1]
    shift = (flow_BYX2 - grid_of(size, size, device=flow_BYX2.device)) * (size * 0.5)
    low, high = CONTOUR_PX

    def weight(jump: Tensor) -> Tensor:
        return ((jump.abs().amax(-1) - low) / (high - low)).clamp(0.0, 1.0)

    down = weight(shift[:, 1:] - shift[:, :-1])
    right = weight(shift[:, :, 1:] - shift[:, :, :-1])
    beside = torch.maximum(F.pad(down, (0, 0, 0, 1)), F.pad(down, (0, 0, 1, 0)))
    beside = torch.maximum(beside, F.pad(right, (0, 1)))
    return torch.maximum(beside, F.pad(right, (1, 0)))[:, None]
