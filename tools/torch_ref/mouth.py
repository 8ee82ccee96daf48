"""Inside of the mouth (``vasa_jax/face/warp/mouth.py``, ``teeth.py``, ``tone.py``) for B poses."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tools.torch_ref.head import HeadTensors, Pose
from tools.torch_ref.layers import binomial
from vasa_jax.face.head import head as our_head
from vasa_jax.face.warp import mouth as ours
from vasa_jax.face.warp import teeth as our_teeth
from vasa_jax.face.warp import tone as our_tone
from vasa_jax.face.warp.geometry import Maps
from vasa_jax.face.warp.irises import LUMA
from vasa_jax.face.warp.mouth import Mouth
from vasa_jax.face.warp.teeth import Hit
from vasa_jax.face.warp.tone import Tone


def tone_of(image: Tensor, where: Tensor) -> Tone:
    """Of a portrait (3, Y, X), where (Y, X) it shows a face."""
    light = torch.einsum("cyx,c->yx", image, image.new_tensor(LUMA))
    weight = where / where.sum().clamp(min=1.0)
    powers = torch.stack([torch.ones_like(light), light, light * light])
    hue = image - light
    a = torch.einsum("yx,pyx,qyx->pq", weight, powers, powers)
    b = torch.einsum("yx,pyx,cyx->pc", weight, powers, hue)
    curve = torch.linalg.solve(a + our_tone.RIDGE * torch.eye(3, device=image.device), b)
    left = hue - torch.einsum("pyx,pc->cyx", powers, curve)
    spread = ((weight * left.square()).sum() / 3.0).sqrt()
    low, high = our_tone.HUES
    return Tone(curve, ((spread - low) / (high - low)).clamp(0.0, 1.0))


def toned(colour: Tensor, tone: Tone) -> Tensor:
    light = colour @ colour.new_tensor(LUMA)
    own = light + tone.curve[0] + light * (tone.curve[1] + light * tone.curve[2])
    return own + tone.free * (colour - own)


def teeth_of(head: HeadTensors, neutral: Tensor) -> our_teeth.Teeth:
    """The rows of a person with that neutral shape (V, 3)."""
    rows = []
    for name in ("teeth_upper", "teeth_lower"):
        mine = head.group == our_head.GROUPS.index(name)
        row = torch.zeros(len(neutral), dtype=torch.bool, device=neutral.device)
        row[head.triangles[mine].flatten()] = True
        rows.append(row)
    upper, lower = rows
    by = head.shapes[:45].reshape(45, -1, 3)
    front, rear = _ends(head.base, lower)
    jaw = our_teeth.Jaw(
        neutral[front].mean(0), neutral[rear].mean(0), by[:, front].mean(1), by[:, rear].mean(1)
    )
    return our_teeth.Teeth(_row(neutral, upper, -1.0), _row(neutral, lower, 1.0), jaw)


def _ends(shape: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    z = shape[:, 2]
    low, high = z[row].min(), z[row].max()
    front = row & (z > low + our_teeth.FRONT * (high - low))
    return front, row & (z < low + our_teeth.REAR * (high - low))


def _row(shape: Tensor, row: Tensor, towards: float) -> our_teeth.Row:
    x, _, z = shape[row].unbind(1)
    tip, tip_rear = (towards * (towards * shape[end, 1]).max() for end in _ends(shape, row))
    left, right, rear, front = x.min(), x.max(), z.min(), z.max()
    return our_teeth.Row(
        0.5 * (left + right), 0.5 * (right - left), rear, front - rear, tip, tip_rear - tip
    )


def mouth_of(image: Tensor, maps: Maps, teeth: our_teeth.Teeth, tone: Tone) -> Mouth:
    """What a portrait (3, Y, X) says; ``maps`` (1, Y, X) are those of its own pose."""
    light, luma = 0.5 * (image + 1.0), image.new_tensor(LUMA)
    fewest = ours.FEWEST_PX * (image.shape[-1] / 256) ** 2

    def brighter(where: Tensor) -> tuple[Tensor, Tensor]:
        of = torch.einsum("cyx,c->yx", light, luma)
        mean = (of * where).sum() / where.sum().clamp(min=1e-6)
        bright = where * (of >= mean - 1e-4)
        return (light * bright).sum((1, 2)) / bright.sum().clamp(min=1e-6), where.sum() >= fewest

    skin, _ = brighter((maps.face * maps.visible)[0])
    white, seen = brighter((maps.eyeball * (maps.iris < 0.1))[0])
    white = torch.where(seen, white, skin)
    white = white + ours.PALER * (white @ luma - white)
    white = white * white.new_tensor(ours.TEETH_AS_WHITES)
    least = ours.TEETH_AS_SKIN * (skin @ luma)
    white = white * (least / (white @ luma).clamp(min=1e-2)).clamp(1.0, 2.0)
    white = white * (ours.WHITEST / white.max().clamp(min=1e-2)).clamp(max=1.0)
    flesh = skin + ours.PALER * (skin @ luma - skin)
    flesh = flesh * flesh.new_tensor(ours.FLESH_AS_SKIN)
    return Mouth(teeth, toned(2.0 * white - 1.0, tone), toned(2.0 * flesh - 1.0, tone))


def paint(image: Tensor, mouth: Mouth, interior: Tensor, pose: Pose) -> Tensor:
    """Pictures (B, 3, Y, X) with the inside of their mouths painted; ``interior`` (B, 1, Y, X)."""
    size = image.shape[-1]
    y, x = _window(pose, size)
    picture = torch.arange(len(image), device=image.device)[:, None, None]
    share = binomial(interior[picture, 0, y[:, :, None], x[:, None]][:, None])
    near = binomial(binomial(share))
    above = F.pad(near, (0, 0, 2, 0))[:, :, :-2]
    light = 1.0 - ours.SHADOW * (1.0 - _ramp(torch.minimum(near, above), 0.15, 0.85))
    light = light * (1.0 - ours.SLIT * (1.0 - _ramp(near, 0.05, 0.40)))
    upper, lower = _see(mouth.teeth, pose, y, x, size)
    tongue = (lower.high.clamp(max=0.0) / ours.TONGUE_CM - (lower.behind / ours.FADE_CM) ** 2).exp()
    white, flesh = torch.zeros_like(light), ours.THROAT + (ours.TONGUE - ours.THROAT) * tongue
    flesh = light * flesh
    for hit, crown, height in (
        (lower, ours.CROWN_CM[1], ours.BEHIND_LIP), (upper, ours.CROWN_CM[0], 1.0),
    ):  # fmt: skip
        gum = _ramp(hit.high - crown * (1.0 - 0.2 * hit.across**2), -0.05, 0.05)
        lit = (-((hit.behind / ours.FADE_CM) ** 2)).exp() * height
        lit = light * lit * (0.7 + 0.3 * hit.facing.clamp(min=0.0))
        between = 1.0 - ours.BETWEEN * _ramp(hit.across.abs(), ours.BETWEEN_FROM, 1.0)
        tooth, bounced = (1.0 - gum) * between, ours.BOUNCED * light * (1.0 - lit)
        white = white + hit.share * (tooth * lit - white)
        flesh = flesh + hit.share * (gum * lit + tooth * bounced - flesh)
    inside = white * (mouth.white[:, None, None] + 1.0) + flesh * (mouth.flesh[:, None, None] + 1.0)
    at = (picture[..., None], torch.arange(3, device=image.device)[:, None, None],
          y[:, None, :, None], x[:, None, None])  # fmt: skip
    before = image[at]
    return image.index_put(at, before + share * (inside - 1.0 - before))


def _window(pose: Pose, size: int) -> tuple[Tensor, Tensor]:
    """Rows (B, V) and columns (B, U) around the mouths."""
    px, py, pz = our_head.PIVOT_CM
    x, y, z = (m - p for m, p in zip(ours.MOUTH_CM, (px, py, pz), strict=True))
    r, (cx, cy, s) = pose.rotation, pose.placement.unbind(1)
    right, up, near = (r[:, k, 0] * x + r[:, k, 1] * y + r[:, k, 2] * z for k in range(3))
    nearer = 1.0 / (1.0 - (near + pz) / our_head.CAMERA_CM)
    places = cy - s * (up + py) * nearer, cx + s * (right + px) * nearer
    lines = []
    for place, sixteenths in zip(places, ours.WINDOW, strict=True):
        n = sixteenths * size // 16
        first = ((place + 1.0) * (size * 0.5) - 0.5 * n).to(torch.int32).clamp(0, size - n)
        lines.append(first[:, None] + torch.arange(n, device=first.device))
    return lines[0], lines[1]


def _see(teeth: our_teeth.Teeth, pose: Pose, y: Tensor, x: Tensor, size: int) -> tuple[Hit, Hit]:
    r, (cx, cy, s) = pose.rotation, (v[:, None, None, None] for v in pose.placement.unbind(1))
    at_x, at_y = ((p + 0.5) * (2.0 / size) - 1.0 for p in (x[:, None, None], y[:, None, :, None]))
    right, up = torch.broadcast_tensors((at_x - cx) / s, (cy - at_y) / s)
    px, py, pz = our_head.PIVOT_CM

    def into_head(*v: Tensor) -> list[Tensor]:
        return [
            sum(r[:, j, k, None, None, None] * v[j] for j in range(3))  # type: ignore[misc]
            for k in range(3)
        ]

    start = into_head(right - px, up - py, torch.full_like(right, -pz))
    start = [a + b for a, b in zip(start, (px, py, pz), strict=True)]
    far = our_head.CAMERA_CM
    way = into_head(-right / far, -up / far, torch.ones_like(right))
    pixel = 2.0 / (size * s)
    level = torch.zeros_like(s)
    upper = _meet(teeth.upper, our_teeth.UPPER_DEG, start, way, r, pixel, -1.0, level)
    jaw = teeth.jaw
    front_by, rear_by = pose.expression @ jaw.front_by, pose.expression @ jaw.rear_by
    before = jaw.front - jaw.rear
    after = before + front_by - rear_by
    angle = torch.atan2(before[1], before[2]) - torch.atan2(after[:, 1], after[:, 2])
    angle = angle[:, None, None, None]
    moved = [m[:, None, None, None] for m in rear_by.unbind(1)]
    start = _back(start, jaw.rear, angle, moved)
    way = _back(way, torch.zeros_like(jaw.rear), angle, [level] * 3)
    lower = _meet(teeth.lower, our_teeth.LOWER_DEG, start, way, r, pixel, 1.0, angle)
    return upper, lower


def _back(point: list[Tensor], center: Tensor, angle: Tensor, moved: list[Tensor]) -> list[Tensor]:
    x, y, z = (p - c - m for p, c, m in zip(point, center, moved, strict=True))
    c, n = angle.cos(), angle.sin()
    return [x + center[0], c * y + n * z + center[1], c * z - n * y + center[2]]


def _meet(
    row: our_teeth.Row, edges_deg: tuple[float, ...], start: list[Tensor], way: list[Tensor],
    rotation: Tensor, pixel: Tensor, towards: float, angle: Tensor,
) -> Hit:  # fmt: skip
    ox, oz = (start[0] - row.middle_x) / row.half_width, (start[2] - row.rear_z) / row.depth
    dx, dz = way[0] / row.half_width, way[2] / row.depth
    a = (dx * dx + dz * dz).clamp(min=1e-6)
    b, c = ox * dx + oz * dz, ox * ox + oz * oz - 1.0
    under = b * b - a * c
    depth = (under.clamp(min=0.0).sqrt() - b) / a
    x, z, y = ox + depth * dx, oz + depth * dz, start[1] + depth * way[1]
    sines = [math.sin(math.radians(edge)) for edge in edges_deg]
    done = sum(
        ((x.abs() - low) / (high - low)).clamp(0.0, 1.0)
        for low, high in zip(sines[:-1], sines[1:], strict=True)
    )
    across = 2.0 * (done - done.clamp(max=len(sines) - 1.001).floor()) - 1.0
    tip = row.tip_y + row.rise * (1.0 - z)
    high = towards * (tip - y) - our_teeth.ROUNDED_CM * across**4
    share = ((under > 0) & (z > 0)) * (high / pixel + 0.5).clamp(0.0, 1.0)
    nx, nz = x / row.half_width, z / row.depth
    length = (nx * nx + nz * nz).sqrt() + 1e-9
    r = rotation[:, 2, :, None, None, None]
    forward = r[:, 2] * angle.cos() - r[:, 1] * angle.sin()
    return Hit(share, high, across, row.depth * (1.0 - z), (r[:, 0] * nx + forward * nz) / length)


def _ramp(value: Tensor, low: float, high: float) -> Tensor:
    t = ((value - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
