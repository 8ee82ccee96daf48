"""A synthetic person: shape, skin paint, hair, clothes, light and background, all from one seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from vasa_jax.synth.person.identity_paint import Complexion, paint_face
from vasa_jax.synth.person.mesh_head import (
    G,
    MeshHead,
    crop_placement,
    person_shape,
    shut_lips,
)

_HAIR_COLOURS = np.array(
    [[.035, .025, .02], [.09, .05, .03], [.20, .12, .065], [.42, .29, .15], [.55, .42, .24],
     [.30, .10, .05], [.38, .37, .36], [.62, .61, .60]]
)  # fmt: skip
_IRIS_COLOURS = np.array(
    [[.16, .08, .035], [.09, .045, .025], [.20, .32, .42], [.20, .28, .15], [.27, .18, .08],
     [.28, .33, .36]]
)  # fmt: skip
SKIN_LIGHT, SKIN_MID, SKIN_DARK = (
    np.array([0.86, 0.64, 0.53]), np.array([0.66, 0.43, 0.31]), np.array([0.27, 0.155, 0.105]),
)  # fmt: skip


def smoothstep(a: float, b: float, x: np.ndarray) -> np.ndarray:
    t = np.clip((x - a) / (b - a), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Light:
    """Directions towards the lights (camera space, unit) and linear colours."""

    key: np.ndarray
    key_rgb: np.ndarray
    fill: np.ndarray
    fill_rgb: np.ndarray
    rim: np.ndarray
    rim_rgb: np.ndarray
    ambient: np.ndarray


@dataclass
class Person:
    """Everything that does not move. Extra parts follow the head's vertices in the arrays."""

    seed: int
    identity: np.ndarray  # (I,) coefficients
    shape: np.ndarray  # (V, 3) neutral, cm
    eye_centres: np.ndarray  # (2, 3)
    placement: np.ndarray  # (3,) cx, cy, s of the picture's crop
    portrait_pose: np.ndarray  # (3,) yaw, pitch, roll of the first picture
    melanin: float
    skin: np.ndarray
    hair_rgb: np.ndarray
    hair_style: str
    hair_thickness: float
    iris_rgb: np.ndarray
    eyes: np.ndarray  # (2, 5) centre, iris and pupil radius
    teeth: np.ndarray  # (4,)
    gloss: float
    cloth: np.ndarray  # (5,)
    light: Light
    paint: np.ndarray = field(repr=False)  # (R, R, 4)
    bump: np.ndarray = field(repr=False)  # (R, R)
    occlusion: np.ndarray = field(repr=False)  # (V,)
    neck_weight: np.ndarray = field(repr=False)  # (V,) 1 turns with the head
    scalp: np.ndarray = field(repr=False)  # (V,) hair density
    loft: np.ndarray = field(repr=False)  # (V,) 0..1 share of the hair's thickness
    shell_vertices: np.ndarray = field(repr=False)  # (S,) head vertices that carry shells
    shells: int = 7
    curtain: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32), repr=False)
    torso: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32), repr=False)
    triangles: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32), repr=False)
    group: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)
    kind: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32), repr=False)
    uv: np.ndarray = field(default_factory=lambda: np.zeros((0, 3, 2), np.float32), repr=False)
    strand: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32), repr=False)
    rest: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32), repr=False)


def make_person(
    seed: int,
    head: MeshHead,
    *,
    texture: int = 768,
    identity: np.ndarray | None = None,
    identity_scale: float = 0.85,
) -> Person:
    """Draws a person.

    Args:
      seed: everything about them.
      head: from ``load_head.load_mesh_head``.
      texture: side of the skin texture; 768 serves 256 px pictures, 1280 those of 512.
      identity: (I,) coefficients to use instead of drawn ones.
      identity_scale: spread of drawn coefficients; 1 is the model's own.
    """
    rng = np.random.default_rng([seed, 0xFACE])
    n_modes = len(head.identity)
    drawn = rng.normal(size=n_modes) * identity_scale
    coefficients = shut_lips(head, drawn if identity is None else np.asarray(identity, float))
    shape, centres = person_shape(head, coefficients)

    melanin = float(rng.uniform() ** 1.15)
    a = min(2 * melanin, 1.0)
    b = max(2 * melanin - 1, 0.0)
    skin = SKIN_LIGHT * (1 - a) + SKIN_MID * (a - b) + SKIN_DARK * b
    skin = skin * np.exp(rng.normal(0, 0.05)) * np.exp(rng.normal(0, (0.015, 0.03, 0.045)))
    dark_hair = melanin > 0.5
    odds = np.array([0.28, 0.2, 0.15, 0.11, 0.06, 0.06, 0.08, 0.06])
    hair_rgb = _HAIR_COLOURS[0 if dark_hair and rng.uniform() < 0.85 else rng.choice(8, p=odds)]
    hair_rgb = hair_rgb * np.exp(rng.normal(0, 0.15))
    iris = _IRIS_COLOURS[rng.choice(6) if melanin < 0.45 else rng.choice([0, 1, 1, 4])]
    style = str(
        rng.choice(["short", "crop", "long", "bob", "bald"], p=[0.33, 0.16, 0.26, 0.17, 0.08])
    )
    woman = style in ("long", "bob") or rng.uniform() < 0.15
    thickness = {"short": rng.uniform(0.6, 2.0), "crop": rng.uniform(0.15, 0.45), "bald": 0.0,
                 "long": rng.uniform(0.5, 1.2), "bob": rng.uniform(0.6, 1.5)}[style]  # fmt: skip
    radius, pupil = rng.uniform(0.43, 0.48), rng.uniform(0.13, 0.24)
    eyes = np.concatenate([centres, np.full((2, 1), radius), np.full((2, 1), pupil)], 1)
    white = rng.uniform(0.84, 0.95)
    teeth = np.array([white, white * rng.uniform(.95, .985), white * rng.uniform(.82, .94),
                      rng.uniform(0.25, 0.55)])  # fmt: skip
    dye = np.exp(rng.uniform(np.log(0.03), np.log(0.8))) * rng.dirichlet([4, 4, 4]) * 2.2
    cloth = np.r_[dye,
                  rng.uniform(0.05, 0.4), rng.choice([0, 0, 0, 1, 2])]  # fmt: skip
    placement = crop_placement(
        head, shape, float(np.exp(rng.normal(-0.02, 0.07))), *rng.normal(0, (0.03, 0.025))
    )
    person = Person(
        seed=seed,
        identity=coefficients.astype(np.float32),
        shape=shape,
        eye_centres=centres,
        placement=placement,
        portrait_pose=rng.normal(0, (0.09, 0.045, 0.035)),
        melanin=melanin,
        skin=skin.astype(np.float32),
        hair_rgb=hair_rgb.astype(np.float32),
        hair_style=style,
        hair_thickness=float(thickness),
        iris_rgb=iris.astype(np.float32),
        eyes=eyes.astype(np.float32),
        teeth=teeth.astype(np.float32),
        gloss=float(rng.uniform(0.4, 1.5)),
        cloth=cloth.astype(np.float32),
        light=random_light(rng),
        paint=np.zeros(0),
        bump=np.zeros(0),
        occlusion=np.ones(head.vertex_count, np.float32),
        neck_weight=smoothstep(-15.5, -8.5, shape[:, 1]).astype(np.float32),
        scalp=np.zeros(head.vertex_count, np.float32),
        loft=np.zeros(head.vertex_count, np.float32),
        shell_vertices=np.zeros(0, np.int64),
    )
    complexion = Complexion(seed, person.skin, melanin, person.hair_rgb, bool(woman))
    person.paint, person.bump = paint_face(head, complexion, texture)
    _grow_hair(head, person, rng)
    _dress(head, person, rng)
    _assemble(head, person)
    person.occlusion = _bake_occlusion(head, shape)
    return person


def random_light(rng: np.random.Generator) -> Light:
    """Studio, window, lamp, outdoors: a key light from above-ish, fill, sometimes a rim."""

    def unit(v) -> np.ndarray:
        v = np.asarray(v, np.float64)
        return (v / np.linalg.norm(v)).astype(np.float32)

    warmth = rng.normal(0, 0.10)
    key_rgb = np.array([1 + warmth, 1.0, 1 - 1.2 * warmth]) * rng.uniform(1.0, 2.1)
    cool = rng.normal(-0.03, 0.08)
    fill_rgb = np.array([1 + cool, 1.0, 1 - cool]) * rng.uniform(0.15, 0.7)
    ambient = np.array([1 + rng.normal(0, 0.05), 1.0, 1 + rng.normal(0, 0.06)]) * rng.uniform(
        0.3, 0.75
    )
    rim = rng.uniform(0, 1.2) if rng.uniform() < 0.35 else 0.0
    side = rng.choice([-1, 1])
    return Light(
        key=unit([rng.normal(0, 0.55), rng.uniform(-0.05, 0.8), 0.85]),
        key_rgb=key_rgb.astype(np.float32),
        fill=unit([-side * rng.uniform(0.2, 0.9), rng.uniform(-0.2, 0.3), 0.65]),
        fill_rgb=fill_rgb.astype(np.float32),
        rim=unit([side * 0.9, 0.3, -0.45]),
        rim_rgb=np.array(
            [rim, rim * (1 + rng.normal(0, 0.1)), rim * (1 + rng.normal(0, 0.15))], np.float32
        ),
        ambient=ambient.astype(np.float32),
    )  # fmt: skip


def background(seed: int, size: int) -> np.ndarray:
    """A soft, out-of-focus backdrop (size, size, 3), linear light."""
    import cv2

    rng = np.random.default_rng([seed, 0xBAC])
    n = 128
    yy, xx = np.mgrid[0:n, 0:n].astype(np.float32) / n
    what = rng.uniform()
    grey = np.exp(rng.uniform(np.log(0.03), np.log(0.9)))
    tint = np.exp(rng.normal(0, 0.14, 3))
    colour = np.clip(grey * tint, 0.01, 1.0)
    other = np.clip(colour * np.exp(rng.normal(0, 0.5) + rng.normal(0, 0.12, 3)), 0.01, 1.0)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = smoothstep(-0.6, 0.6, (xx - 0.5) * math.cos(angle) + (yy - 0.5) * math.sin(angle))
    img = (colour * (1 - ramp[..., None]) + other * ramp[..., None]).astype(np.float32)
    if what < 0.35:  # spot on a wall
        c = rng.uniform(0.2, 0.8, 2)
        img *= (0.5 + 0.9 * np.exp(-((xx - c[0]) ** 2 + (yy - c[1]) ** 2) * 3))[..., None]
    elif what < 0.8:  # a room or a street, far out of focus
        for _ in range(int(rng.integers(6, 26))):
            x, y, w, h = (
                rng.uniform(-10, n),
                rng.uniform(-10, n),
                rng.uniform(5, 60),
                rng.uniform(5, 70),
            )
            c = np.clip(
                colour * np.exp(rng.normal(0, 0.7)) * np.exp(rng.normal(0, 0.2, 3)), 0.01, 1.2
            )
            p = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.int32)
            cv2.fillConvexPoly(img, p, c.tolist())
        img = cv2.GaussianBlur(img, (0, 0), rng.uniform(2.0, 7))
        if rng.uniform() < 0.35:
            for _ in range(int(rng.integers(3, 14))):
                disc = np.zeros((n, n), np.float32)
                cv2.circle(
                    disc,
                    tuple(int(v) for v in rng.integers(0, n, 2)),
                    int(rng.integers(2, 8)),
                    1.0,
                    -1,
                    cv2.LINE_AA,
                )
                soft = cv2.GaussianBlur(disc, (0, 0), 1.5)
                img += (
                    soft[..., None]
                    * rng.uniform(0.05, 0.5)
                    * np.array([1, 0.85, 0.6])
                    * np.exp(rng.normal(0, 0.2, 3))
                )
    img = cv2.resize(img.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(np.clip(img, 0, 1.5).astype(np.float32))


# -------------------------------------------------------------------------------------- hair


def _grow_hair(head: MeshHead, person: Person, rng: np.random.Generator) -> None:
    """Hair density on the scalp from a drawn hairline, and which vertices carry shells."""
    b = person.shape
    az = np.degrees(np.arctan2(b[:, 0], b[:, 2] - 1.5))
    front = rng.uniform(9.4, 11.0)
    side = rng.uniform(0, 3.0)
    peak = rng.uniform(-0.6, 0.5)  # widow's peak or receding temples
    part = rng.uniform(-25, 25)
    recede = max(rng.normal(0, 0.8), 0) if person.hair_style in ("short", "crop") else 0.0
    low = {"short": rng.uniform(-4.5, 0), "crop": rng.uniform(-5, -2)}.get(person.hair_style, -6.5)
    line = np.interp(
        np.abs(az - part * np.exp(-((az / 40) ** 2)) * 0.3),
        [0, 20, 38, 52, 62, 72, 84, 95, 110, 140, 180],
        [front + peak, front + 0.1 + recede, front - 0.3 + 1.4 * recede, front - 1.6 + recede,
         front - 3.6, 5.4 - side * 0.3, 4.4 - side * 0.5, 4.6, 0.0 + 0.4 * low, low, low - 0.6],
    )  # fmt: skip
    wobble = 0.3 * np.sin(az * 0.11 + person.seed) + 0.15 * np.sin(az * 0.23 + 2 * person.seed)
    on_head = np.zeros(len(b), bool)
    on_head[: head.ranges["head_neck"][1]] = True
    m = smoothstep(-0.5, 1.1, b[:, 1] - line - wobble) * on_head
    ear = (np.abs(az) > 70) & (np.abs(az) < 115) & (np.abs(b[:, 0]) > 7.6) & (b[:, 1] < 5.5)
    m[ear] = 0
    if person.hair_style == "bald":
        m *= 0.0 if rng.uniform() < 0.5 else 0.25
    person.scalp = m.astype(np.float32)
    # thickness grows gradually from the hairline, or the hair would end in a ledge
    person.loft = (smoothstep(-0.4, 3.2, b[:, 1] - line - wobble) * on_head * (m > 0)).astype(
        np.float32
    )
    person.strand = np.stack([np.radians(az), b[:, 1], m], 1).astype(np.float32)
    a, e = head.ranges.get("eyelash_l", (0, 0))[0], head.ranges.get("eyelash_r", (0, 0))[1]
    if e > a:  # lashes: across, distance from the lid 0..1
        from scipy.spatial import cKDTree

        far = cKDTree(b[: head.ranges["face"][1]]).query(b[a:e])[0]
        person.strand[a:e] = np.stack([b[a:e, 0], np.clip(far / 0.45, 0, 1), np.ones(e - a)], 1)
    if person.hair_thickness > 0:
        used = (m[head.triangles] > 0.02).all(1) & (head.group < 2)
        person.shell_vertices = np.unique(head.triangles[used])
    if person.hair_style in ("long", "bob"):
        person.curtain = _curtain(person, rng)


_CURTAIN_ROWS, _CURTAIN_COLUMNS = 26, 72


def _curtain(person: Person, rng: np.random.Generator) -> np.ndarray:
    """Hair that hangs: a sheet around sides and back, (rows * columns, 3), in the head's frame."""
    b = person.shape
    top, back = b[:, 1].max(), b[:, 2].min()
    wide = np.abs(b[np.abs(b[:, 1] - 8.5) < 1.2, 0]).max()
    puff = rng.uniform(0.7, 1.6)
    centre = np.array([0, top - 9.6, (back + 9.0) / 2 - 0.4])
    radii = np.array([wide + puff + 0.5, 9.6 + puff * 0.8, (9.0 - back) / 2 + puff])
    length = rng.uniform(-14, -8) if person.hair_style == "bob" else rng.uniform(-26, -15)
    front = np.radians(rng.uniform(56, 74))
    t = np.linspace(0, 1, _CURTAIN_ROWS)[:, None]
    s = np.linspace(-1, 1, _CURTAIN_COLUMNS)[None]
    elevation = np.clip(1 - t / 0.45, 0, 1) * np.radians(66)  # upper part follows the skull
    fall = np.clip((t - 0.45) / 0.55, 0, 1)
    open_at = front * (0.35 + 0.65 * smoothstep(0, 0.4, t))
    az = np.sign(s) * (open_at + (np.pi - open_at) * (1 - np.abs(s)))
    wave = 0.25 * np.sin(az * rng.uniform(6, 14) + t * rng.uniform(2, 9)) * fall
    flare = 1 + fall * rng.uniform(-0.12, 0.18) + 0.03 * wave
    x = centre[0] + radii[0] * np.cos(elevation) * np.sin(az) * flare
    z = centre[2] + radii[2] * np.cos(elevation) * np.cos(az) * (flare - 0.1 * fall)
    y = centre[1] + radii[1] * np.sin(elevation) + fall * (length - centre[1]) + 0 * az
    y = y + 0.8 * np.abs(s) * fall * rng.uniform(-1, 1)
    return np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)


# ------------------------------------------------------------------------------------- torso

_TORSO_ROWS, _TORSO_COLUMNS = 30, 72


def _dress(head: MeshHead, person: Person, rng: np.random.Generator) -> None:
    """A garment: rings from the neckline down over the shoulders, (rows * columns, 3) cm."""
    b = person.shape
    near = np.abs(b[:, 1] + 11) < 0.8
    scale = np.clip(np.abs(b[near, 0]).max() / 7.6, 0.85, 1.25) if near.any() else 1.0
    z_mid = float((b[near, 2].max() + b[near, 2].min()) / 2) if near.any() else -1.0
    phi = np.linspace(0, 2 * np.pi, _TORSO_COLUMNS, endpoint=False)[None]  # 0: right, pi/2: front
    depth = rng.uniform(-12.9, -11.6)
    kind = rng.choice(["crew", "v", "high"], p=[0.55, 0.25, 0.2])
    frontness = np.clip(np.sin(phi), 0, 1)
    # sides stay high, or the collar would hang off the shoulders
    neckline = depth + 1.9 * (1 - frontness**3) - (0.6 * frontness**3 if kind == "crew" else 0.0)
    if kind == "v":
        neckline = neckline - rng.uniform(1.5, 3.5) * np.clip(
            1 - np.abs(np.cos(phi)) * 2.0, 0, 1
        ) * (np.sin(phi) > 0)
    if kind == "high":
        neckline = neckline + 1.7
    t = np.linspace(0, 1, _TORSO_ROWS)[:, None] ** 1.6
    y = neckline + t * (-46 - neckline)
    broad = rng.uniform(0.92, 1.12)
    wide = scale * np.interp(
        -y,
        [9, 10.3, 11.5, 13, 14.5, 17, 20, 26, 46],
        [6.4, 7.2, 9.6, 13.0, 15.6, 18.6 * broad, 20.2 * broad, 21 * broad, 22 * broad],
    )
    deep = scale * np.interp(-y, [9, 10.3, 11.5, 13, 14.5, 17, 20, 26, 46],
                             [6.2, 6.7, 7.0, 7.4, 7.9, 8.8, 9.8, 11, 12])  # fmt: skip
    middle = np.interp(
        -y, [9, 11, 13, 15, 20, 46], [z_mid, z_mid, z_mid, z_mid, z_mid + 0.4, z_mid + 1]
    )
    x = wide * np.sign(np.cos(phi)) * np.abs(np.cos(phi)) ** 0.85
    z = middle + deep * np.sign(np.sin(phi)) * np.abs(np.sin(phi)) ** 0.85
    person.torso = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)


def _grid_triangles(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Triangles (F, 3) of a grid stored row by row."""
    i = np.arange(rows - 1)[:, None] * columns
    j = np.arange(columns if closed else columns - 1)[None]
    k = (j + 1) % columns
    a, b, c, d = i + j, i + k, i + columns + j, i + columns + k
    return np.concatenate(
        [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    )


def _assemble(head: MeshHead, person: Person) -> None:
    """One list of triangles: head, hair shells, hanging hair, garment."""
    from vasa_jax.synth.person.shading import CLOTH, CURTAIN_HAIR, HAIR

    lash = head.group >= G["eyelash_l"]
    count = head.vertex_count
    used = person.shell_vertices
    where = np.full(count, -1)
    where[used] = np.arange(len(used))
    triangles = [head.triangles]
    group = [head.group]
    kind = [np.where(lash, 2.0, -1.0)]
    rest = [person.shape]
    strand = [person.strand]
    if len(used):
        cap = head.triangles[(where[head.triangles] >= 0).all(1) & (head.group < 2)]
        # outer shells first: what they cover is rejected early
        for layer in range(person.shells - 1, -1, -1):
            triangles.append(where[cap] + count + layer * len(used))
            group.append(np.full(len(cap), HAIR))
            kind.append(np.full(len(cap), layer / max(person.shells - 1, 1)))
        rest += [person.shape[used]] * person.shells
        strand += [person.strand[used]] * person.shells
    count = sum(len(r) for r in rest)
    if len(person.curtain):
        sheet = _grid_triangles(_CURTAIN_ROWS, _CURTAIN_COLUMNS, closed=False)
        triangles.append(sheet + count)
        group.append(np.full(len(sheet), CURTAIN_HAIR))
        kind.append(np.full(len(sheet), 3.0))
        rest.append(person.curtain)
        t = np.linspace(0, 1, _CURTAIN_ROWS)[:, None]
        s = np.linspace(-1, 1, _CURTAIN_COLUMNS)[None]
        full = (
            1.05
            - 0.6 * smoothstep(0.9, 1.0, t)
            - 0.6 * smoothstep(0.93, 1.0, np.abs(s)) * (t > 0.2)
        )
        across = np.sign(s) * np.pi * (1 - np.abs(s)) + 0 * t
        strand.append(
            np.stack([across, t * 12 + 0 * s, full + 0 * s], -1).reshape(-1, 3).astype(np.float32)
        )
        count += len(person.curtain)
    garment = _grid_triangles(_TORSO_ROWS, _TORSO_COLUMNS, closed=True)
    triangles.append(garment + count)
    group.append(np.full(len(garment), CLOTH))
    kind.append(np.full(len(garment), 4.0))
    rest.append(person.torso)
    strand.append(np.zeros((len(person.torso), 3), np.float32))
    person.triangles = np.ascontiguousarray(np.concatenate(triangles).astype(np.int32))
    person.group = np.concatenate(group).astype(np.int32)
    person.kind = np.concatenate(kind).astype(np.float32)
    extra = len(person.triangles) - len(head.triangles)
    person.uv = np.concatenate([head.uv, np.zeros((extra, 3, 2), np.float32)])
    person.rest = np.concatenate(rest).astype(np.float32)
    person.strand = np.concatenate(strand).astype(np.float32)


def _bake_occlusion(
    head: MeshHead, shape: np.ndarray, views: int = 48, size: int = 256
) -> np.ndarray:
    """Share (V,) of the sky that a vertex sees, cosine-weighted, from depth maps of many views."""
    from vasa_jax.synth.person.rasteriser import rasterise_depth, vertex_normals

    normal = vertex_normals(shape, head.triangles)
    seen = np.zeros(len(shape))
    total = np.zeros(len(shape))
    i = np.arange(views) + 0.5
    polar, turn = np.arccos(1 - 2 * i / views), np.pi * (1 + 5**0.5) * i
    for p, t in zip(polar, turn, strict=True):
        d = np.array([math.cos(t) * math.sin(p), math.cos(p), math.sin(t) * math.sin(p)])
        u = np.cross(d, [0.1, 0.9, 0.3])
        u /= np.linalg.norm(u)
        q = shape @ np.stack([u, np.cross(d, u), d], 1)
        points = np.empty_like(shape)
        points[:, :2] = (q[:, :2] / 44 + 0.5) * size
        points[:, 2] = q[:, 2] + 60
        depth = np.zeros((size, size), np.float32)
        rasterise_depth(points, head.triangles, depth)
        ix, iy = np.clip(points[:, :2].astype(np.int64), 0, size - 1).T
        facing = np.maximum(normal @ d, 0)
        seen += (depth[iy, ix] <= points[:, 2] + 0.32) * facing
        total += facing
    return (seen / np.maximum(total, 1e-6)).astype(np.float32)
