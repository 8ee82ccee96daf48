"""Deferred shading in numba: what every pixel's triangle looks like under the light.

Import this module lazily: it needs numba. Skin: wrapped diffuse, redder in the shadow's edge (a
cheap subsurface look), two highlights, Fresnel; hair: strand noise and a highlight along the
strands; eyes: iris painted by angle from the eye's axis; mouth: darker with depth behind the lips,
less so the wider it opens.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from vasa_jax.synth.person.rasteriser import noise

# Groups beyond the head model's own (mesh_head.GROUPS has 0..12).
HAIR, CURTAIN_HAIR, CLOTH, FRAME = 20, 21, 22, 23


@njit(fastmath=True, cache=True)
def _clamp(x, low, high):
    return min(max(x, low), high)


@njit(fastmath=True, cache=True, nogil=True)
def shade(
    ids, b1, b2, triangles, group, kind, uv, position, normal, rest, occlusion, strand,
    paint, bump, skin, hair, iris, cloth, teeth, eyes, lips, key, key_rgb, fill, fill_rgb, rim,
    rim_rgb, ambient, shadow, shadow_offset, shadow_map, background, out,
):  # fmt: skip
    """Linear-light colours of all pixels into ``out`` (H, W, 3).

    Args:
      ids, b1, b2: from ``rasteriser.rasterise``; ids -1 is background.
      position, normal: (N, 3) in camera space; rest: (N, 3) undeformed; occlusion: (N,) 0..1.
      strand: (N, 3) hair coordinates; third is hair density on the scalp.
      paint: (R, R, 4) albedo and gloss of the face tile; bump: (R, R) heights.
      skin, hair, iris, cloth: (3,) albedo; cloth has five numbers: colour, weave, stripes.
      teeth: (4,) albedo and darkness of depth.
      eyes: (2, 5) rest centre, iris radius and pupil radius in rad.
      lips: (3,) rest z of the lips, opening in cm, gloss of skin.
      key, fill, rim: (3,) unit directions to the lights; *_rgb their colours.
      shadow: (4, 3) rows: axes of the light's view, then its scale; shadow_offset: (2,).
      shadow_map: (S, S); background: (H, W, 3).
    """
    height, width = ids.shape
    size = paint.shape[0]
    shadow_size = shadow_map.shape[0]
    for y in range(height):
        for x in range(width):
            k = ids[y, x]
            if k < 0:
                out[y, x, 0] = background[y, x, 0]
                out[y, x, 1] = background[y, x, 1]
                out[y, x, 2] = background[y, x, 2]
                continue
            c1 = b1[y, x]
            c2 = b2[y, x]
            c0 = 1 - c1 - c2
            i0 = triangles[k, 0]
            i1 = triangles[k, 1]
            i2 = triangles[k, 2]
            p0 = c0 * position[i0, 0] + c1 * position[i1, 0] + c2 * position[i2, 0]
            p1 = c0 * position[i0, 1] + c1 * position[i1, 1] + c2 * position[i2, 1]
            p2 = c0 * position[i0, 2] + c1 * position[i1, 2] + c2 * position[i2, 2]
            n0 = c0 * normal[i0, 0] + c1 * normal[i1, 0] + c2 * normal[i2, 0]
            n1 = c0 * normal[i0, 1] + c1 * normal[i1, 1] + c2 * normal[i2, 1]
            n2 = c0 * normal[i0, 2] + c1 * normal[i1, 2] + c2 * normal[i2, 2]
            r0 = c0 * rest[i0, 0] + c1 * rest[i1, 0] + c2 * rest[i2, 0]
            r1 = c0 * rest[i0, 1] + c1 * rest[i1, 1] + c2 * rest[i2, 1]
            r2 = c0 * rest[i0, 2] + c1 * rest[i1, 2] + c2 * rest[i2, 2]
            ao = c0 * occlusion[i0] + c1 * occlusion[i1] + c2 * occlusion[i2]
            g = group[k]
            v0 = -p0
            v1 = -p1
            v2 = 70.0 - p2
            s = 1 / math.sqrt(v0 * v0 + v1 * v1 + v2 * v2)
            v0 *= s
            v1 *= s
            v2 *= s
            ar = skin[0]
            ag = skin[1]
            ab = skin[2]
            gloss = 0.20 * lips[2]
            shine = 16.0
            wrap = 0.25
            soft = 1.0  # subsurface
            shadow_share = 1.0
            dim = 1.0
            if g <= 1:
                if g == 0:
                    u = c0 * uv[k, 0, 0] + c1 * uv[k, 1, 0] + c2 * uv[k, 2, 0]
                    v = 1 - (c0 * uv[k, 0, 1] + c1 * uv[k, 1, 1] + c2 * uv[k, 2, 1])
                    tx = _clamp(u * size - 0.5, 0.0, size - 1.001)
                    ty = _clamp(v * size - 0.5, 0.0, size - 1.001)
                    ix = int(tx)
                    iy = int(ty)
                    fx = tx - ix
                    fy = ty - iy
                    w00 = (1 - fx) * (1 - fy)
                    w01 = fx * (1 - fy)
                    w10 = (1 - fx) * fy
                    w11 = fx * fy
                    ar = (
                        paint[iy, ix, 0] * w00
                        + paint[iy, ix + 1, 0] * w01
                        + paint[iy + 1, ix, 0] * w10
                        + paint[iy + 1, ix + 1, 0] * w11
                    )  # noqa: E501
                    ag = (
                        paint[iy, ix, 1] * w00
                        + paint[iy, ix + 1, 1] * w01
                        + paint[iy + 1, ix, 1] * w10
                        + paint[iy + 1, ix + 1, 1] * w11
                    )  # noqa: E501
                    ab = (
                        paint[iy, ix, 2] * w00
                        + paint[iy, ix + 1, 2] * w01
                        + paint[iy + 1, ix, 2] * w10
                        + paint[iy + 1, ix + 1, 2] * w11
                    )  # noqa: E501
                    gloss *= paint[iy, ix, 3]
                    if paint[iy, ix, 3] > 1.6:
                        shine = 40.0
                    n0 -= bump[iy, ix + 1] - bump[iy, ix]
                    n1 += bump[iy + 1, ix] - bump[iy, ix]
                hm = c0 * strand[i0, 2] + c1 * strand[i1, 2] + c2 * strand[i2, 2]
                if hm > 0.02:
                    across = c0 * strand[i0, 0] + c1 * strand[i1, 0] + c2 * strand[i2, 0]
                    q = min(1.0, hm * 1.7 * (0.55 + 0.6 * noise(across * 70.0, r1 * 1.1, 7)))
                    ar = ar * (1 - q) + hair[0] * q * 0.7
                    ag = ag * (1 - q) + hair[1] * q * 0.7
                    ab = ab * (1 - q) + hair[2] * q * 0.7
                    gloss *= 1 - q
            elif g == HAIR or g == CURTAIN_HAIR:
                across = c0 * strand[i0, 0] + c1 * strand[i1, 0] + c2 * strand[i2, 0]
                along = c0 * strand[i0, 1] + c1 * strand[i1, 1] + c2 * strand[i2, 1]
                tone = (
                    0.45
                    + 0.75 * noise(across * 110, along * 1.3, 9)
                    + 0.35 * noise(across * 31, along * 0.5, 10)
                )  # noqa: E501
                layer = 0.5 + 0.5 * kind[k] if g == HAIR else 0.95
                ar = hair[0] * tone * layer
                ag = hair[1] * tone * layer
                ab = hair[2] * tone * layer
                gloss = 0.0
                soft = 0.0
                wrap = 0.35
                ao = 0.4 + 0.6 * ao
            elif g == CLOTH:
                ar = cloth[0]
                ag = cloth[1]
                ab = cloth[2]
                t = 1 + cloth[3] * (noise(r0 * 7, r1 * 7, 21) - 0.5)
                fold = 1 + 0.25 * (noise(r0 * 0.35 + 9, r1 * 0.12, 22) - 0.5)
                if cloth[4] > 0.5:
                    t *= 0.72 + 0.28 * (math.sin((r1 if cloth[4] < 1.5 else r0) * 3.2) > 0)
                ar *= t * fold
                ag *= t * fold
                ab *= t * fold
                gloss = 0.02
                soft = 0.0
                wrap = 0.15
            elif g == FRAME:
                ar = 0.03
                ag = 0.028
                ab = 0.03
                gloss = 0.8
                shine = 60.0
                soft = 0.0
            elif g == 2:
                ar = 0.42
                ag = 0.13
                ab = 0.12
                gloss = 0.12
            elif g == 3 or g == 4:
                ar = skin[0] * 0.85
                ag = skin[1] * 0.6
                ab = skin[2] * 0.55
            elif g == 5:
                ar = 0.58
                ag = 0.25
                ab = 0.24
                gloss = 0.3
                shine = 40.0
            elif g == 6:
                t = 1 - 0.07 * noise(r0 * 4, r1 * 2, 3)
                ar = teeth[0] * t
                ag = teeth[1] * t
                ab = teeth[2] * t
                gloss = 0.35
                shine = 50.0
                soft = 0.3
            elif g == 7 or g == 9:
                e = 0 if g == 7 else 1
                q0 = r0 - eyes[e, 0]
                q1 = r1 - eyes[e, 1]
                q2 = r2 - eyes[e, 2]
                s = 1 / math.sqrt(q0 * q0 + q1 * q1 + q2 * q2)
                angle = math.acos(_clamp(q2 * s, -1.0, 1.0))
                gloss = 0.8
                shine = 240.0
                soft = 0.2
                vein = noise(q0 * 9, q1 * 9, 4)
                ar = 0.84 - 0.04 * vein
                ag = 0.80 - 0.08 * vein
                ab = 0.78 - 0.08 * vein
                radius = eyes[e, 3]
                pupil = eyes[e, 4]
                if angle < radius + 0.05:
                    around = math.atan2(q1, q0)
                    streak = (
                        0.65
                        + 0.35 * noise(around * 9, angle * 14, 11)
                        + 0.35 * noise(around * 19, angle * 29, 12)
                    )  # noqa: E501
                    share = _clamp((radius + 0.05 - angle) / 0.06, 0.0, 1.0)
                    limbus = 0.35 + 0.65 * _clamp((radius - angle) / 0.09, 0.0, 1.0)
                    ring = 1.25 if angle > pupil + 0.06 else 0.8
                    black = _clamp((angle - pupil) / 0.025, 0.0, 1.0)
                    t = streak * limbus * ring * black
                    ar = ar * (1 - share) + iris[0] * t * share
                    ag = ag * (1 - share) + iris[1] * t * share
                    ab = ab * (1 - share) + iris[2] * t * share
                ao = 0.5 + 0.5 * ao
            elif g == 11 or g == 12:
                ar = 0.03 + hair[0] * 0.25
                ag = 0.022 + hair[1] * 0.25
                ab = 0.02 + hair[2] * 0.25
                gloss = 0.0
                soft = 0.0
                ao = 0.9
            if g == 2 or g == 5 or g == 6:
                depth = lips[0] - r2
                reach = (1.6 if g == 6 else 0.8) + 0.5 * min(lips[1], 1.5)
                lit = 1 / (1 + math.exp((depth - reach) * 1.8))
                if g == 6:
                    ao = (1 - teeth[3]) + teeth[3] * lit
                    ao *= 0.25 + 0.75 * lit
                else:
                    ao = 0.14 + 0.7 * lit
                ar *= 0.3 + 0.7 * lit
                ag *= 0.3 + 0.7 * lit
                ab *= 0.3 + 0.7 * lit
                soft = 0.4
                # little direct light reaches the back teeth; the front ones get most of it
                shadow_share = 0.45 if g == 6 else 0.7
                dim = 0.12 + 0.88 * lit
            s = 1 / math.sqrt(n0 * n0 + n1 * n1 + n2 * n2 + 1e-12)
            n0 *= s
            n1 *= s
            n2 *= s
            if g >= HAIR and n0 * v0 + n1 * v1 + n2 * v2 < 0:
                n0 = -n0
                n1 = -n1
                n2 = -n2
            # shadow of the key light, 3 x 3 taps
            sx = (p0 * shadow[0, 0] + p1 * shadow[0, 1] + p2 * shadow[0, 2]) * shadow[
                3, 0
            ] + shadow_offset[0]  # noqa: E501
            sy = (p0 * shadow[1, 0] + p1 * shadow[1, 1] + p2 * shadow[1, 2]) * shadow[
                3, 0
            ] + shadow_offset[1]  # noqa: E501
            sz = p0 * shadow[2, 0] + p1 * shadow[2, 1] + p2 * shadow[2, 2] + 60
            lit = 0.0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    jx = int(sx + dx * 2.1 * shadow_size / 320)
                    jy = int(sy + dy * 2.1 * shadow_size / 320)
                    if jx < 0 or jy < 0 or jx >= shadow_size or jy >= shadow_size:
                        lit += 1
                    else:
                        lit += 1 - _clamp((shadow_map[jy, jx] - sz - 0.35) / 0.4, 0.0, 1.0)
            lit = dim * (1 - shadow_share * (1 - lit / 9.0))
            dk = n0 * key[0] + n1 * key[1] + n2 * key[2]
            df = n0 * fill[0] + n1 * fill[1] + n2 * fill[2]
            ws = wrap * soft
            dr = max(0.0, (dk + ws + 0.06) / (1 + ws + 0.06))
            dg = max(0.0, (dk + 0.5 * ws) / (1 + 0.5 * ws))
            db = max(0.0, (dk + 0.35 * ws) / (1 + 0.35 * ws))
            lit_r = lit**0.75 if soft > 0.5 else lit
            fl = max(0.0, (df + 0.3) / 1.3)
            hemi = 0.6 + 0.4 * (0.5 + 0.5 * n1)
            ao_r = ao**0.8
            lr = key_rgb[0] * dr * lit_r + ao_r * (fill_rgb[0] * fl + ambient[0] * hemi)
            lg = key_rgb[1] * dg * lit + ao * (fill_rgb[1] * fl + ambient[1] * hemi)
            lb = key_rgb[2] * db * lit + ao * (fill_rgb[2] * fl + ambient[2] * hemi)
            nv = max(0.0, n0 * v0 + n1 * v1 + n2 * v2)
            one = 1 - nv
            fresnel = 0.04 + 0.96 * one * one * one * one * one
            dm = n0 * rim[0] + n1 * rim[1] + n2 * rim[2]
            if dm > 0:
                t = dm * (0.35 + 1.2 * one * one) * ao
                lr += rim_rgb[0] * t
                lg += rim_rgb[1] * t
                lb += rim_rgb[2] * t
            sp = 0.0
            if gloss > 0:
                hx = key[0] + v0
                hy = key[1] + v1
                hz = key[2] + v2
                s = 1 / math.sqrt(hx * hx + hy * hy + hz * hz)
                nh = max(0.0, (n0 * hx + n1 * hy + n2 * hz) * s)
                hx = fill[0] + v0
                hy = fill[1] + v1
                hz = fill[2] + v2
                s = 1 / math.sqrt(hx * hx + hy * hy + hz * hz)
                nf = max(0.0, (n0 * hx + n1 * hy + n2 * hz) * s)
                lobe = (shine + 8) / 25.1 * 0.22
                sp = (
                    gloss
                    * (
                        nh**shine * lobe * lit * max(0.0, dk + 0.1)
                        + 0.25 * nf**shine * lobe
                        + fresnel * 0.35 * ao
                    )
                    * (0.3 + 0.7 * ao)
                )  # noqa: E501
            elif g == HAIR or g == CURTAIN_HAIR:
                across = c0 * strand[i0, 0] + c1 * strand[i1, 0] + c2 * strand[i2, 0]
                t = max(0.0, 1 - abs(n1 - 0.5) * 3.0)
                sp = (
                    t
                    * t
                    * 0.10
                    * lit
                    * (0.3 + 1.1 * noise(across * 90, r1 * 0.6, 5))
                    * (0.25 + 2.2 * hair[0])
                )  # noqa: E501
                lr *= ao
                lg *= ao
                lb *= ao
            out[y, x, 0] = ar * lr + sp * key_rgb[0]
            out[y, x, 1] = ag * lg + sp * key_rgb[1]
            out[y, x, 2] = ab * lb + sp * key_rgb[2]


def develop(linear: np.ndarray, supersample: int) -> np.ndarray:
    """Box filter, film curve and display gamma: (kH, kW, 3) linear to (H, W, 3) uint8."""
    import cv2

    h, w = linear.shape[0] // supersample, linear.shape[1] // supersample
    o = cv2.resize(linear, (w, h), interpolation=cv2.INTER_AREA) if supersample > 1 else linear
    o = np.clip(o * (1 + o * (1 / 4.84)) / (1 + o * 0.9), 0, 1)
    return (np.sqrt(o) ** (2 / 2.2) * 255 + 0.5).astype(np.uint8)
