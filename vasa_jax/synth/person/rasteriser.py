"""A z-buffer in numba: triangle ids and barycentric coordinates per pixel, depth-only for shadows.

Import this module lazily: it needs numba. Depth is 1 / w, larger is nearer, so it interpolates
linearly on the screen. Hair shells and lashes are cut by a strand pattern while rasterising.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

LASH_ROOTS = 0.3  # of a lash's length
OPAQUE, LASH, CURTAIN, TWO_SIDED = -1.0, 2.0, 3.0, 4.0  # below 0..1: a hair shell's layer


@njit(fastmath=True, cache=True, inline="always")
def _hash(i, j, s):
    n = (
        np.uint32(i) * np.uint32(374761393)
        + np.uint32(j) * np.uint32(668265263)
        + np.uint32(s) * np.uint32(2246822519)
    )
    n = (n ^ (n >> np.uint32(13))) * np.uint32(1274126177)
    n = n ^ (n >> np.uint32(16))
    return np.float32(n & np.uint32(0xFFFFFF)) / np.float32(16777216.0)


@njit(fastmath=True, cache=True)
def noise(x, y, s):
    """Value noise in [0, 1], period-free, lattice of one unit."""
    i = int(math.floor(x))
    j = int(math.floor(y))
    fx = np.float32(x - i)
    fy = np.float32(y - j)
    fx = fx * fx * (3 - 2 * fx)
    fy = fy * fy * (3 - 2 * fy)
    top = _hash(i, j, s) * (1 - fx) + _hash(i + 1, j, s) * fx
    bottom = _hash(i, j + 1, s) * (1 - fx) + _hash(i + 1, j + 1, s) * fx
    return top * (1 - fy) + bottom * fy


@njit(fastmath=True, cache=True, nogil=True)
def rasterise(points, triangles, kind, strand, inverse_w, ids, b1, b2):
    """Fills ids and barycentrics of the nearest triangle.

    Args:
      points: (N, 3) screen x, y in pixels and 1 / w.
      triangles: (F, 3); clockwise on the screen (y down) is the front of opaque ones.
      kind: (F,) OPAQUE, 0..1 a hair layer, LASH, CURTAIN or TWO_SIDED.
      strand: (N, 3) coordinates across and along the strands, and density.
      inverse_w, b1, b2: (H, W) float32, ids: (H, W) int32, all written.
    """
    height, width = ids.shape
    for k in range(triangles.shape[0]):
        i0 = triangles[k, 0]
        i1 = triangles[k, 1]
        i2 = triangles[k, 2]
        x0 = points[i0, 0]
        y0 = points[i0, 1]
        x1 = points[i1, 0]
        y1 = points[i1, 1]
        x2 = points[i2, 0]
        y2 = points[i2, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        what = kind[k]
        if area >= 0 and what < 0:
            continue
        if abs(area) < 1e-9:
            continue
        xa = max(0, int(math.ceil(min(x0, x1, x2) - 0.5)))
        xb = min(width - 1, int(math.floor(max(x0, x1, x2) - 0.5)))
        ya = max(0, int(math.ceil(min(y0, y1, y2) - 0.5)))
        yb = min(height - 1, int(math.floor(max(y0, y1, y2) - 0.5)))
        if xa > xb or ya > yb:
            continue
        inv = 1.0 / area
        w0 = points[i0, 2]
        w1 = points[i1, 2]
        w2 = points[i2, 2]
        for y in range(ya, yb + 1):
            py = y + 0.5
            for x in range(xa, xb + 1):
                px = x + 0.5
                e1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) * inv
                e2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) * inv
                e0 = 1 - e1 - e2
                if e0 < 0 or e1 < 0 or e2 < 0:
                    continue
                iw = e0 * w0 + e1 * w1 + e2 * w2
                if iw <= inverse_w[y, x]:
                    continue
                c1 = e1 * w1 / iw
                c2 = e2 * w2 / iw
                if what >= 0 and what < TWO_SIDED:
                    c0 = 1 - c1 - c2
                    u = c0 * strand[i0, 0] + c1 * strand[i1, 0] + c2 * strand[i2, 0]
                    v = c0 * strand[i0, 1] + c1 * strand[i1, 1] + c2 * strand[i2, 1]
                    m = c0 * strand[i0, 2] + c1 * strand[i1, 2] + c2 * strand[i2, 2]
                    if what == LASH:
                        # Roots stand close: seen from some way off they are one dark line.
                        if v > LASH_ROOTS and noise(u * 15.0, 0.0, 7) < 0.15 + 0.95 * v:
                            continue
                    elif what == CURTAIN:
                        if 0.65 * noise(u * 38.0, v * 0.35, 7) + 0.35 * noise(u * 90, v, 8) > m:
                            continue
                    else:
                        n = 0.6 * noise(u * 70.0, v * 1.1, 7) + 0.4 * noise(u * 160.0, v * 2.3, 8)
                        if n * m < 0.12 + 0.42 * what:
                            continue
                inverse_w[y, x] = iw
                ids[y, x] = k
                b1[y, x] = c1
                b2[y, x] = c2


@njit(fastmath=True, cache=True, nogil=True)
def rasterise_depth(points, triangles, depth):
    """Largest third coordinate per pixel, both sides of every triangle."""
    height, width = depth.shape
    for k in range(triangles.shape[0]):
        i0 = triangles[k, 0]
        i1 = triangles[k, 1]
        i2 = triangles[k, 2]
        x0 = points[i0, 0]
        y0 = points[i0, 1]
        x1 = points[i1, 0]
        y1 = points[i1, 1]
        x2 = points[i2, 0]
        y2 = points[i2, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9:
            continue
        xa = max(0, int(math.ceil(min(x0, x1, x2) - 0.5)))
        xb = min(width - 1, int(math.floor(max(x0, x1, x2) - 0.5)))
        ya = max(0, int(math.ceil(min(y0, y1, y2) - 0.5)))
        yb = min(height - 1, int(math.floor(max(y0, y1, y2) - 0.5)))
        if xa > xb or ya > yb:
            continue
        inv = 1.0 / area
        for y in range(ya, yb + 1):
            py = y + 0.5
            for x in range(xa, xb + 1):
                px = x + 0.5
                e1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) * inv
                e2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) * inv
                e0 = 1 - e1 - e2
                if e0 < 0 or e1 < 0 or e2 < 0:
                    continue
                z = e0 * points[i0, 2] + e1 * points[i1, 2] + e2 * points[i2, 2]
                if z > depth[y, x]:
                    depth[y, x] = z


@njit(fastmath=True, cache=True, nogil=True)
def vertex_normals(vertices, triangles):
    """Area-weighted unit normals (N, 3)."""
    out = np.zeros_like(vertices)
    for k in range(triangles.shape[0]):
        i0 = triangles[k, 0]
        i1 = triangles[k, 1]
        i2 = triangles[k, 2]
        ax = vertices[i1, 0] - vertices[i0, 0]
        ay = vertices[i1, 1] - vertices[i0, 1]
        az = vertices[i1, 2] - vertices[i0, 2]
        bx = vertices[i2, 0] - vertices[i0, 0]
        by = vertices[i2, 1] - vertices[i0, 1]
        bz = vertices[i2, 2] - vertices[i0, 2]
        nx = ay * bz - az * by
        ny = az * bx - ax * bz
        nz = ax * by - ay * bx
        for i in (i0, i1, i2):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for i in range(out.shape[0]):
        length = math.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2)
        if length > 1e-12:
            out[i, 0] /= length
            out[i, 1] /= length
            out[i, 2] /= length
    return out
