"""Skin paint in the face's texture square, placed by landmarks: albedo, gloss, bumps."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from vasa_jax.synth.person.mesh_head import G, MeshHead


class Complexion(NamedTuple):
    """What of a person the paint depends on."""

    seed: int
    skin: np.ndarray  # (3,) linear
    melanin: float  # 0 to 1
    hair_rgb: np.ndarray  # (3,)
    woman: bool


def paint_face(head: MeshHead, person: Complexion, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Paints one face.

    Returns:
      (R, R, 4) albedo (linear, 0..1) and gloss factor, and (R, R) bump heights; rows run down.
    """
    import cv2

    rng = np.random.default_rng([person.seed, 0x541])
    r = size
    scale = size / 1024
    is_face = head.group == G["face"]
    vertex_uv = np.zeros((head.vertex_count, 2), np.float32)
    vertex_uv[head.triangles[is_face].ravel()] = head.uv[is_face].reshape(-1, 2)

    def at(vertices) -> np.ndarray:
        return np.stack([vertex_uv[vertices, 0] * r, (1 - vertex_uv[vertices, 1]) * r], 1)

    def field(cells: int) -> np.ndarray:
        small = rng.normal(size=(cells, cells)).astype(np.float32)
        return cv2.resize(small, (r, r), interpolation=cv2.INTER_CUBIC)

    def blur(x: np.ndarray, sigma: float) -> np.ndarray:
        return cv2.GaussianBlur(x, (0, 0), sigma * scale)

    def mix(rgb: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
        return rgb * (1 - share[..., None]) + colour.astype(np.float32) * share[..., None]

    yy, xx = np.mgrid[0:r, 0:r].astype(np.float32)

    def blob(centre, sx: float, sy: float) -> np.ndarray:
        return np.exp(
            -(((xx - centre[0]) / (sx * scale)) ** 2 + ((yy - centre[1]) / (sy * scale)) ** 2)
        )

    points = at(head.landmarks68)
    fine = rng.normal(size=(r, r)).astype(np.float32)
    fine = blur(fine, 1.0 / max(scale, 0.5))
    fine /= fine.std()
    blotch = rng.uniform(0.01, 0.04)
    rgb = np.ones((r, r, 3), np.float32) * person.skin
    rgb *= (1 + 0.02 * field(256) + 0.03 * field(20) + 0.013 * fine)[..., None]
    rgb *= 1 + (blotch * field(56))[..., None] * np.array([0.2, 1.0, 0.9], np.float32)

    pale = 1 - 0.6 * person.melanin
    flush = rng.uniform(0.4, 1.6) * pale
    cheeks = (
        (points[2] + points[31]) / 2 + [0, -20 * scale],
        (points[14] + points[35]) / 2 + [0, -20 * scale],
    )
    for c, k, sx, sy in (
        (points[30], 0.13, 50, 40),
        (cheeks[0], 0.12, 90, 70),
        (cheeks[1], 0.12, 90, 70),
        (points[8], 0.05, 80, 40),
    ):
        rgb *= 1 - (blob(c, sx, sy) * k * flush)[..., None] * np.array([0.0, 1, 0.9], np.float32)
    tired = rng.uniform(0.04, 0.22)
    for eye in (points[36:42], points[42:48]):
        under = blob(eye.mean(0) + [0, 16 * scale], 75, 30)
        rgb *= 1 - (under * tired)[..., None] * np.array([0.7, 1.0, 0.9], np.float32)
    spots = int(rng.integers(2, 30)) if rng.uniform() < 0.75 else int(rng.integers(60, 320))
    for _ in range(spots):
        c = rng.uniform([0.2 * r, 0.25 * r], [0.8 * r, 0.8 * r])
        s = float(np.exp(rng.normal(0.35, 0.35)))
        w = int(6 * s * scale) + 3
        x0, y0 = int(c[0]) - w, int(c[1]) - w
        sub = np.s_[max(y0, 0) : y0 + 2 * w, max(x0, 0) : x0 + 2 * w]
        d = ((xx[sub] - c[0]) ** 2 + (yy[sub] - c[1]) ** 2) / (s * scale) ** 2
        rgb[sub] *= 1 - (np.exp(-d) * rng.uniform(0.08, 0.35))[..., None] * np.array([0.6, 0.9, 1])
    gloss = np.ones((r, r), np.float32) * (1 + 0.15 * field(40))
    gloss *= 1 + 0.7 * blob(points[30], 70, 60) + 0.5 * blob(points[27] - [0, 120 * scale], 150, 80)
    bump = 0.022 * fine * rng.uniform(0.5, 1.5)

    # age: forehead lines, crow's feet, folds beside the mouth
    age = float(rng.uniform() ** 1.6)
    lines = np.zeros((r, r), np.float32)
    if age > 0.25:
        brow_y = points[17:27, 1].min()
        for k in range(3):
            y = brow_y - (45 + 38 * k) * scale
            xs = np.linspace(points[18, 0], points[25, 0], 24)
            ys = y + 6 * scale * np.sin(np.linspace(0, 5, 24) + k) + rng.normal(0, 1, 24) * scale
            cv2.polylines(
                lines, [np.stack([xs, ys], 1).astype(np.int32)], False, 0.7, 1, cv2.LINE_AA
            )
        for corner, out in ((points[36], -1), (points[45], 1)):
            for angle in (-25, 0, 25):
                d = np.array([out * math.cos(math.radians(angle)), math.sin(math.radians(angle))])
                a, b = corner + d * 14 * scale, corner + d * 48 * scale
                cv2.line(lines, tuple(a.astype(int)), tuple(b.astype(int)), 0.6, 1, cv2.LINE_AA)
    for wing, corner in ((points[31], points[48]), (points[35], points[54])):
        out = np.sign(corner[0] - points[33, 0])
        bow = np.array(
            [
                wing + [out * 14 * scale, -4 * scale],
                (wing + corner) / 2 + [out * 34 * scale, 0],
                corner + [out * 26 * scale, 6 * scale],
            ]
        )
        cv2.polylines(lines, [bow.astype(np.int32)], False, 0.8, 2, cv2.LINE_AA)
    lines = blur(lines, 2.2)
    rgb *= 1 - (lines * (0.10 + 0.5 * age))[..., None] * np.array([0.6, 1, 1], np.float32)
    bump -= 0.25 * age * lines

    # lips
    lip = np.zeros((r, r), np.float32)
    cv2.fillPoly(lip, [points[48:60].astype(np.int32)], 1.0)
    lip = blur(lip, 4.5)
    colour = person.skin * (
        np.array([0.93, 0.60, 0.62]) if person.melanin < 0.6 else np.array([1.0, 0.72, 0.72])
    )
    colour = colour * np.exp(rng.normal(0, 0.06, 3))
    gloss *= 1 + lip * rng.uniform(0.5, 2.0)
    if person.woman and rng.uniform() < 0.6:  # lipstick
        stick = np.array(
            [[0.55, 0.06, 0.08], [0.62, 0.22, 0.22], [0.45, 0.10, 0.18], [0.68, 0.35, 0.30]]
        )[rng.integers(4)]
        colour = colour * 0.35 + stick * 0.65
        gloss *= 1 + lip * rng.uniform(0, 1.2)
    streaks = blur(rng.normal(size=(r, r)).astype(np.float32), 2.0)
    streaks = 1 + 0.05 * streaks / streaks.std()
    rgb = mix(rgb, colour * 1.0, lip) * (1 + lip * (streaks - 1))[..., None]

    # brows, stroke by stroke
    brow = np.zeros((r, r), np.float32)
    thick = rng.uniform(6, 11) if person.woman else rng.uniform(9, 17)
    dense = int(rng.uniform(2, 4.9))
    arch = rng.normal(0, 5)
    for part in (slice(17, 22), slice(22, 27)):
        p = points[part][np.argsort(points[part][:, 0])]
        inner = 1 if p[:, 0].mean() < r / 2 else -1
        tt = np.linspace(0, 1, 220)
        px, py = (
            np.interp(tt, np.linspace(0, 1, 5), p[:, 0]),
            np.interp(tt, np.linspace(0, 1, 5), p[:, 1]),
        )
        for t, x, y in zip(tt, px, py, strict=True):
            u = t if inner < 0 else 1 - t  # 0 at the nose
            half = thick * (1 - 0.75 * u**1.5)
            for _ in range(dense):
                a = np.array([x, y + (rng.uniform(-1, 1) * half - arch * math.sin(3 * u)) * scale])
                turn = math.radians(rng.normal(-65 + 50 * u, 10))
                length = rng.uniform(9, 18) * scale
                b = a + np.array([math.cos(turn) * -inner, 0.6 * math.sin(turn)]) * length
                cv2.line(brow, tuple(a.astype(int)), tuple(b.astype(int)), 1.0, 1, cv2.LINE_AA)
    brow = np.clip(blur(brow, 2.4) * rng.uniform(0.75, 1.25), 0, 0.95)
    rgb = mix(rgb, person.hair_rgb * 0.75, brow)
    gloss *= 1 - 0.8 * brow

    # beard: stubble to full, along jaw and upper lip
    if not person.woman and rng.uniform() < 0.45:
        strength = rng.uniform(0.12, 0.85)
        jaw = np.zeros((r, r), np.float32)
        low = points[3:14]
        outline = np.concatenate(
            [
                low,
                [
                    points[14],
                    points[54] + [30 * scale, -8 * scale],
                    points[35],
                    points[33],
                    points[31],
                    points[48] + [-30 * scale, -8 * scale],
                    points[2],
                ],
            ]
        )
        cv2.fillPoly(jaw, [outline.astype(np.int32)], 1.0)
        if rng.uniform() < 0.35:  # chin and moustache only
            jaw *= blob((points[57] + points[8]) / 2, 105, 150)
        beard = blur(jaw, 22) * (1 - np.clip(blur(lip, 3) * 1.6, 0, 1))
        beard *= np.clip(1 - 1.2 * blob(points[30], 60, 50), 0, 1)
        hairs = np.clip((0.6 + 0.3 * strength) + 0.5 * fine, 0, 1)
        share = np.clip(beard * hairs * strength * 1.15, 0, 0.95)
        rgb = mix(rgb, person.hair_rgb * 0.7, share)
        gloss *= 1 - 0.7 * share

    # lash line along the rim of the eye's opening, eyeshadow
    _paint_lids(head, at, rgb, rng, person.woman, scale)
    rgba = np.concatenate([np.clip(rgb, 0, 1), gloss[..., None]], 2).astype(np.float32)
    return np.ascontiguousarray(rgba), np.ascontiguousarray(bump.astype(np.float32))


def _paint_lids(head: MeshHead, at, rgb: np.ndarray, rng, woman: bool, scale: float) -> None:
    """Darkens the margin of the lids, the upper one more; changes ``rgb``."""
    import cv2

    r = rgb.shape[0]
    face = np.unique(head.triangles[head.group == G["face"]])
    dark = np.zeros((r, r), np.float32)
    shadow = np.zeros((r, r), np.float32)
    strength = rng.uniform(0.75, 0.95) if woman else rng.uniform(0.4, 0.75)
    for socket, corners in (("eye_socket_l", slice(42, 48)), ("eye_socket_r", slice(36, 42))):
        rim = np.intersect1d(face, np.unique(head.triangles[head.group == G[socket]]))
        if len(rim) < 6:
            continue
        p = at(rim)
        lm = at(head.landmarks68[corners])
        axis_y = np.interp(p[:, 0], *_by_x(lm[[0, 3]]))
        upper = p[p[:, 1] <= axis_y + 1]
        lower = p[p[:, 1] > axis_y + 1]
        for pts, value, width in ((upper, 1.0, 5), (lower, 0.35, 3)):
            pts = pts[np.argsort(pts[:, 0])]
            if len(pts) > 1:
                cv2.polylines(dark, [pts.astype(np.int32)], False, value * strength,
                              max(int(width * scale), 1), cv2.LINE_AA)  # fmt: skip
        if woman and len(upper) > 1:
            pts = upper[np.argsort(upper[:, 0])] - [0, 14 * scale]
            cv2.polylines(shadow, [pts.astype(np.int32)], False, 1.0, int(30 * scale), cv2.LINE_AA)
    line = cv2.GaussianBlur(dark, (0, 0), max(1.3 * scale, 0.6))
    powder = cv2.GaussianBlur(shadow, (0, 0), 10 * scale) * rng.uniform(0, 0.5)
    tint = np.array([0.5, 0.9, 0.8], np.float32) * np.exp(rng.normal(0, 0.2, 3)).astype(np.float32)
    rgb *= 1 - np.clip(powder[..., None] * tint, 0, 0.9)
    rgb *= 1 - np.clip(line[..., None] * np.array([0.88, 0.95, 0.97], np.float32), 0, 0.97)


def _by_x(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = points[np.argsort(points[:, 0])]
    return p[:, 0], p[:, 1]
