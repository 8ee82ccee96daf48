"""A simple head of our own for tests and for machines without ``facekit.npz``.

An egg with a nose, a mouth that is cut open, two eyeballs behind lids, teeth and a neck: a thousand
vertices, the interface of ``mesh_head.MeshHead``, the same expression names. It is no likeness of
anybody; what it shows moves the right way.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.core.arkit import EXPRESSION_NAMES
from vasa_jax.synth.person.mesh_head import G, MeshHead

_ROWS, _COLUMNS = 64, 72  # rows from the neck (bottom) to the crown; columns once around
_MOUTH_Y, _EYE_Y, _EYE_X, _BROW_Y, _CHIN_Y = -3.4, 3.4, 3.1, 5.9, -7.6
_MODES = 12


def builtin_head() -> MeshHead:
    """Builds the head (about 50 ms)."""
    vertices, triangles, group, uv, mouth_rows = _skin()
    skin_count = len(vertices)
    parts_v, parts_t, parts_g = [vertices], [triangles], [group]
    ranges = {"face": (0, skin_count), "head_neck": (skin_count, skin_count)}
    count = skin_count

    def add(name: str, v: np.ndarray, t: np.ndarray) -> None:
        nonlocal count
        parts_v.append(v)
        parts_t.append(t + count)
        parts_g.append(np.full(len(t), G[name]))
        ranges[name] = (count, count + len(v))
        count += len(v)

    for name, side in (("sclera_l", 1), ("sclera_r", -1)):
        ball, faces = _ball(1.45)
        add(name, ball + np.array([side * _EYE_X, _EYE_Y, 6.75]), faces)
    socket, faces = _wall(2.9, 2.6, 5.6)
    add("mouth_socket", socket, faces)
    for upper in (1, -1):
        row, faces = _tooth_row(upper)
        if upper == 1:
            add("teeth", row, faces)
        else:
            a, _ = ranges["teeth"]
            add("teeth", row, faces)
            ranges["teeth"] = (a, count)
    ranges["gums_tongue"] = (count, count)
    v = np.concatenate(parts_v).astype(np.float32)
    t = np.concatenate(parts_t).astype(np.int32)
    g = np.concatenate(parts_g).astype(np.int32)
    expression = _expressions(v, ranges, mouth_rows, skin_count)
    uv_all = np.zeros((len(t), 3, 2), np.float32)
    uv_all[: len(triangles)] = uv
    return MeshHead(
        neutral=v,
        identity=_modes(v, skin_count),
        expression=expression,
        look=_looks(v, skin_count),
        triangles=t,
        group=g,
        uv=uv_all,
        landmarks68=_landmarks(v, skin_count, mouth_rows),
        ranges=ranges,
        lip_gap_cm=0.0,
    )


def _skin():
    """Surface of revolution with features; the row of the mouth is doubled where it opens."""
    y = np.concatenate([np.linspace(-19, -9.2, 10), np.linspace(-8.6, 14.0, _ROWS - 10)])
    y[np.argmin(np.abs(y - _MOUTH_Y))] = _MOUTH_Y
    turn = np.linspace(-np.pi, np.pi, _COLUMNS, endpoint=False)  # 0 is the front
    yy, az = np.meshgrid(y, turn, indexing="ij")
    up = np.clip((yy - 2.5) / 11.6, -1, 1)
    wide = np.where(
        yy > 2.5,
        7.6 * np.sqrt(np.clip(1 - up**2, 0.0004, 1)),
        np.interp(yy, [-19, -14, -12, -8.6, -7, -3, 2.5], [11, 9.5, 6, 5.4, 5.4, 6.7, 7.6]),
    )
    front = np.where(
        yy > 2.5,
        9.0 * np.sqrt(np.clip(1 - up**2, 0.0004, 1)),
        np.interp(yy, [-19, -14, -12, -8.9, -7.4, -5, 2.5], [5, 4.5, 4, 5.0, 8.6, 9.4, 9.0]),
    )
    back = np.where(yy > 2.5, 9.0 * np.sqrt(np.clip(1 - up**2, 0.0004, 1)),
                    np.interp(yy, [-19, -14, -8.6, 2.5], [6, 6, 5.8, 9.0]))  # fmt: skip
    x = wide * np.sin(az)
    z = np.where(np.cos(az) > 0, front, back) * np.cos(az)
    z = z + 2.4 * np.exp(-(x**2) / 1.0 - ((yy - 0.6) / 1.6) ** 2) * (z > 0)
    z = z + 0.5 * np.exp(-((x / 2.2) ** 2) - ((yy - _MOUTH_Y) / 1.1) ** 2) * (z > 0)
    for side in (1, -1):  # orbits
        z = z - 0.9 * np.exp(-(((x - side * _EYE_X) / 1.6) ** 2) - ((yy - _EYE_Y) / 1.0) ** 2) * (
            z > 0
        )
    v = np.stack([x, yy, z], -1).reshape(-1, 3)
    m = int(np.argmin(np.abs(y - _MOUTH_Y)))
    opening = np.abs(turn) < 0.36  # columns of the mouth
    copies = np.full(_COLUMNS, -1)
    inner = np.flatnonzero(opening)[1:-1]
    copies[inner] = len(v) + np.arange(len(inner))
    v = np.concatenate([v, v[m * _COLUMNS + inner]])
    triangles, group = [], []
    for r in range(_ROWS - 1):
        for c in range(_COLUMNS):
            k = (c + 1) % _COLUMNS
            a, b = r * _COLUMNS + c, r * _COLUMNS + k
            d, e = a + _COLUMNS, b + _COLUMNS
            if r == m - 1:  # the lower lip hangs on the copies
                d = copies[c] if copies[c] >= 0 else d
                e = copies[k] if copies[k] >= 0 else e
            centre = v[[a, b, d, e]].mean(0)
            eye = any(
                ((centre[0] - s * _EYE_X) / 1.15) ** 2 + ((centre[1] - _EYE_Y) / 0.62) ** 2 < 1
                for s in (1, -1)
            )
            if eye and centre[2] > 0:
                continue
            triangles += [(a, b, e), (a, e, d)]
            group += [G["face"] if centre[2] > -2 and centre[1] > -10 else G["head_neck"]] * 2
    t = np.array(triangles)
    uv = np.stack([0.5 + v[:, 0] / 26, np.clip((v[:, 1] + 14) / 30, 0.001, 0.999)], 1)[t]
    return v, t, np.array(group), uv.astype(np.float32), (m * _COLUMNS + inner, copies[inner])


def _ball(radius: float):
    n, k = 12, 20
    polar = np.linspace(0, np.pi * 0.6, n)[:, None]
    around = np.linspace(0, 2 * np.pi, k, endpoint=False)[None]
    x, y = np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around)
    v = radius * np.stack([x, y, np.cos(polar) + 0 * around], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(k), indexing="ij")
    a, b = i * k + j, i * k + (j + 1) % k
    t = np.concatenate(
        [np.stack([a, a + k, b], -1).reshape(-1, 3), np.stack([b, a + k, b + k], -1).reshape(-1, 3)]
    )
    return v, t


def _wall(half: float, high: float, z: float):
    v = np.array([[-half, -high, z], [half, -high, z], [half, high, z], [-half, high, z]])
    return v + [0, _MOUTH_Y, 0], np.array([[0, 1, 2], [0, 2, 3]])


def _tooth_row(upper: int):
    s = np.linspace(-1, 1, 13)
    x, z = 2.2 * s, 8.3 - 2.2 * s**2
    low, high = (0.0, 0.9) if upper == 1 else (-0.8, -0.05)
    v = np.concatenate([np.stack([x, np.full(13, _MOUTH_Y + h), z], 1) for h in (low, high)])
    i = np.arange(12)
    t = np.concatenate([np.stack([i, i + 1, i + 14], 1), np.stack([i, i + 14, i + 13], 1)])
    return v, t


def _expressions(v, ranges, mouth_rows, skin_count) -> np.ndarray:
    x, y, z = v.T
    front = (z > 0) & (np.arange(len(v)) < skin_count)
    low = np.zeros(len(v))
    low[:skin_count] = np.clip((_MOUTH_Y - y[:skin_count]) / 2.0, 0, 1) * np.clip(
        (y[:skin_count] + 10.5) / 3, 0, 1
    )
    near = np.exp(-((x / 2.4) ** 2) - ((y - _MOUTH_Y) / 1.6) ** 2) * front
    upper = near * (y >= _MOUTH_Y)
    lower = near * (y <= _MOUTH_Y)
    lower[mouth_rows[0]] = 0  # those belong to the upper lip, their copies to the lower one
    upper[mouth_rows[1]] = 0
    jaw = np.maximum(low, lower) * front
    jaw[mouth_rows[1]] = np.maximum(jaw[mouth_rows[1]], near[mouth_rows[1]])
    teeth = np.zeros(len(v))
    a, b = ranges["teeth"]
    teeth[(a + b) // 2 : b] = 1
    sides = {"_L": np.clip(x / 1.5 + 0.5, 0, 1), "_R": np.clip(0.5 - x / 1.5, 0, 1), "": 1.0}

    def at(cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
        return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2) * front

    out = np.zeros((len(EXPRESSION_NAMES), len(v), 3), np.float32)
    for i, name in enumerate(EXPRESSION_NAMES):
        stem, side = (name[:-2], name[-2:]) if name[-2:] in ("_L", "_R") else (name, "")
        k = {"_L": 1, "_R": -1, "": 0}[side]
        w = sides[side]
        eye_up = at(k * _EYE_X, _EYE_Y + 0.75, 1.6, 0.7)
        eye_low = at(k * _EYE_X, _EYE_Y - 0.75, 1.6, 0.6)
        corner = at(k * 2.4, _MOUTH_Y, 1.3, 1.3)
        brow = at(k * _EYE_X, _BROW_Y, 2.2, 1.0)
        d = out[i]
        if stem == "jawOpen":
            d[:, 1] = -2.6 * (jaw + teeth)
            d[:, 2] = -0.8 * (jaw + teeth)
        elif stem == "mouthClose":
            d[:, 1] = 3.0 * lower - 0.3 * upper
        elif stem == "mouthFunnel":
            d[:, 1] = 0.5 * upper - 0.6 * lower
            d[:, 0], d[:, 2] = -0.3 * x * near, 0.7 * near
        elif stem == "mouthPucker":
            d[:, 0], d[:, 2] = -0.4 * x * near, 0.8 * near
        elif stem == "mouthUpperUp":
            d[:, 1] = 0.5 * upper * w
        elif stem == "mouthLowerDown":
            d[:, 1] = -0.5 * lower * w
        elif stem == "mouthRollLower":
            d[:, 1], d[:, 2] = 0.3 * lower, -0.3 * lower
        elif stem == "mouthRollUpper":
            d[:, 1], d[:, 2] = -0.1 * upper, -0.3 * upper
        elif stem == "mouthPress":
            d[:, 1] = (-0.06 * upper + 0.06 * lower) * w
        elif stem == "mouthSmile":
            d[:, 0], d[:, 1] = 0.7 * k * corner, 0.9 * corner
        elif stem == "mouthFrown":
            d[:, 1] = -0.8 * corner
        elif stem in ("mouthStretch", "mouthDimple"):
            d[:, 0] = 0.6 * k * corner
        elif stem == "mouthShrugLower":
            d[:, 1] = 0.4 * lower
        elif stem == "mouthShrugUpper":
            d[:, 1] = 0.3 * upper
        elif stem in ("mouthLeft", "mouthRight"):
            d[:, 0] = (1 if stem == "mouthLeft" else -1) * 0.8 * near
        elif stem in ("jawLeft", "jawRight"):
            d[:, 0] = (1 if stem == "jawLeft" else -1) * 0.8 * jaw
        elif stem == "jawForward":
            d[:, 2] = 0.8 * jaw
        elif stem == "eyeBlink":
            d[:, 1] = -1.45 * eye_up + 0.3 * eye_low
            d[:, 2] = 0.9 * eye_up
        elif stem == "eyeSquint":
            d[:, 1] = 0.4 * eye_low - 0.2 * eye_up
        elif stem == "eyeWide":
            d[:, 1] = 0.4 * eye_up
        elif stem in ("browInnerUp", "browOuterUp", "browDown"):
            d[:, 1] = (-0.8 if stem == "browDown" else 0.9) * brow
        elif stem in ("cheekPuff", "cheekSquint"):
            d[:, 2] = 0.6 * at(k * 4.2, -1.0, 2.0, 2.0)
        elif stem == "noseSneer":
            d[:, 1] = 0.4 * at(k * 1.2, 0.2, 1.0, 1.2)
    return out


def _modes(v: np.ndarray, skin_count: int) -> np.ndarray:
    """A dozen smooth ways to differ, cm per sigma; the lips stay together."""
    rng = np.random.default_rng(68)
    out = np.zeros((_MODES, len(v), 3))
    for m in range(_MODES):
        wave = rng.normal(0, 0.16, (3, 3))
        phase = rng.uniform(0, 6, 3)
        for axis in range(3):
            out[m, :, axis] = 0.22 * np.sin(v @ wave[axis] + phase[axis])
        out[m, :, 0] -= 0.22 * np.sin(v * [0, 1, 1] @ wave[0] + phase[0])  # stays symmetric enough
    return out.astype(np.float16)


def _looks(v: np.ndarray, skin_count: int) -> np.ndarray:
    x, y, z = v.T
    front = (z > 0) & (np.arange(len(v)) < skin_count)
    out = np.zeros((8, len(v), 3), np.float32)
    for i, amount in ((0, 0.25), (2, -0.45)):
        for side in (0, 1):
            cx = (1 - 2 * side) * _EYE_X
            out[i + side, :, 1] = (
                amount * np.exp(-(((x - cx) / 1.6) ** 2) - ((y - _EYE_Y - 0.7) / 0.7) ** 2) * front
            )
    return out


def _landmarks(v: np.ndarray, skin_count: int, mouth_rows) -> np.ndarray:
    """Nearest vertices to 68 places of an average face, iBUG order."""
    jaw = [(-7.2 * np.cos(a), 2.5 - 10.1 * np.sin(a)) for a in np.linspace(0.05, np.pi - 0.05, 17)]
    brows = [
        (s * bx, _BROW_Y + 0.3 * np.sin(bx))
        for s, xs in ((-1, (5, 4, 3, 2, 1)), (1, (1, 2, 3, 4, 5)))
        for bx in xs
    ]
    nose = [(0, 3.2), (0, 2.3), (0, 1.4), (0, 0.6)] + [
        (nx, -0.9) for nx in (-1.2, -0.6, 0, 0.6, 1.2)
    ]
    eyes = [
        (s * _EYE_X + ex, _EYE_Y + ey)
        for s in (-1, 1)
        for ex, ey in ((-1.4, 0), (-0.6, 0.8), (0.6, 0.8), (1.4, 0), (0.6, -0.8), (-0.6, -0.8))
    ]
    outer = [
        (2.4 * np.cos(a), _MOUTH_Y + 0.9 * np.sin(a)) for a in np.pi - np.arange(12) * np.pi / 6
    ]
    inner = [(ix, _MOUTH_Y) for ix in (-2.0, -1.0, 0.0, 1.0, 2.0, 1.0, 0.0, -1.0)]
    places = np.array(jaw + brows + nose + eyes + outer + inner)
    skin = v[:skin_count]
    cost = ((skin[None, :, :2] - places[:, None]) ** 2).sum(-1) + np.where(skin[:, 2] > 0, 0, 1e3)
    found = cost.argmin(1)
    upper, lower = mouth_rows
    for k in (61, 62, 63):
        found[k] = upper[np.argmin(np.abs(v[upper, 0] - places[k, 0]))]
    for k in (65, 66, 67):
        found[k] = lower[np.argmin(np.abs(v[lower, 0] - places[k, 0]))]
    return found.astype(np.int64)
