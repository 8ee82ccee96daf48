"""Fits the reduced head of a release from ICT-FaceKit's morphable model (MIT, see NOTICE).

    python tools/make_head.py facekit.npz head.npz [--identities 50] [--stills DIR]

The reduced topology is ours: vertices are chosen by dart throwing with a spacing that follows how
much a region moves (lips and lids dense, scalp coarse), triangles are the nerve of the geodesic
Voronoi cells of the chosen vertices, so openings of mouth and eyes keep their borders.

With ``--stills`` (written by ``python -m vasa_jax.synth.person.picture stills``) the correspondence
between the face detector's 478 landmarks and the mesh is fitted: for each landmark the convex
combination of vertices that best predicts where the detector puts it in rendered pictures.
"""

from __future__ import annotations

import argparse
import heapq
from pathlib import Path

import numpy as np

from vasa_jax.core.arkit import EXPRESSION_NAMES
from vasa_jax.face.head.head import GROUPS, LIDS_SHUT_CM
from vasa_jax.synth.person.mesh_head import LID_PAIRS

LOOK = (
    "eyeLookUp_L", "eyeLookUp_R", "eyeLookDown_L", "eyeLookDown_R", "eyeLookIn_L", "eyeLookIn_R",
    "eyeLookOut_L", "eyeLookOut_R",
)  # fmt: skip


def boundary_edges(tris: np.ndarray) -> np.ndarray:
    """Edges (n, 2) that belong to one triangle only."""
    e = np.sort(np.concatenate([tris[:, [0, 1]], tris[:, [1, 2]], tris[:, [2, 0]]]), 1)
    unique, count = np.unique(e, axis=0, return_counts=True)
    return unique[count == 1]


def spacing(v: np.ndarray, group: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Wanted distance in cm between chosen vertices at each vertex."""
    h = np.full(len(v), 1.1, np.float32)
    lips, lids = v[landmarks[48:68]], v[landmarks[36:48]]

    def near(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(v[:, None] - points[None], axis=-1).min(1)

    d_lip, d_lid = near(lips), near(lids)
    d_face = near(v[landmarks[17:68]])
    h = np.minimum(h, 0.45 + 0.22 * d_face)
    h = np.minimum(h, 0.20 + 0.20 * d_lip)
    h = np.minimum(h, 0.13 + 0.22 * d_lid)
    h = np.where(np.isin(group, [GROUPS.index("mouth_socket"), GROUPS.index("eye_socket")]), 1.2, h)
    h = np.where(group == GROUPS.index("gums_tongue"), 0.8, h)
    h = np.where(np.isin(group, [5, 6]), 0.4, h)
    h = np.where(np.isin(group, [7, 8]), 0.5, h)
    return np.where(group == GROUPS.index("scalp_neck"), np.maximum(h, 1.4), h)


def choose(v: np.ndarray, tris: np.ndarray, group: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Indices of the chosen vertices: boundaries first, then the rest, by dart throwing."""
    rng = np.random.default_rng(0)
    border = np.zeros(len(v), bool)
    for g in np.unique(group):
        border[boundary_edges(tris[(group[tris] == g).all(1)]).ravel()] = True
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(border)), rng.permutation(np.flatnonzero(~border))]
    )
    chosen: list[int] = []
    for i in order:
        if chosen:
            c = np.array(chosen)
            c = c[group[c] == group[i]]
            if len(c) and (np.linalg.norm(v[c] - v[i], axis=1) < 0.8 * h[i]).any():
                continue
        chosen.append(int(i))
    return np.array(sorted(chosen))


def voronoi_nerve(v: np.ndarray, tris: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Triangles between seeds whose geodesic cells meet in a triangle of the full mesh."""
    neighbours: list[list[int]] = [[] for _ in range(len(v))]
    for a, b, c in tris:
        neighbours[a] += [b, c]
        neighbours[b] += [a, c]
        neighbours[c] += [a, b]
    distance = np.full(len(v), np.inf)
    owner = np.full(len(v), -1)
    heap: list[tuple[float, int]] = []
    for k, i in enumerate(seeds):
        distance[i], owner[i] = 0.0, k
        heap.append((0.0, int(i)))
    heapq.heapify(heap)
    while heap:
        d, i = heapq.heappop(heap)
        if d > distance[i]:
            continue
        for j in neighbours[i]:
            e = d + float(np.linalg.norm(v[i] - v[j]))
            if e < distance[j]:
                distance[j], owner[j] = e, owner[i]
                heapq.heappush(heap, (e, j))
    t = owner[tris]
    t = t[(t >= 0).all(1)]
    t = t[(t[:, 0] != t[:, 1]) & (t[:, 1] != t[:, 2]) & (t[:, 0] != t[:, 2])]
    _, first = np.unique(np.sort(t, 1), axis=0, return_index=True)
    return t[np.sort(first)]


def sphere_center(points: np.ndarray) -> np.ndarray:
    a = np.c_[2 * points, np.ones(len(points))]
    return np.linalg.lstsq(a, (points**2).sum(1), rcond=None)[0][:3]


def fit_landmarks(
    positions: np.ndarray, observed: np.ndarray, allowed: np.ndarray, k: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices and weights per landmark from pictures.

    positions (N, V, 2) and observed (N, 478, 2) in face heights; allowed (478, V) says which
    vertices a landmark may use. Weights are convex (projected gradient on the least squares).
    """
    n_lm = observed.shape[1]
    vertices = np.zeros((n_lm, k), np.int32)
    weights = np.zeros((n_lm, k), np.float32)
    residual = np.zeros(n_lm, np.float32)
    for j in range(n_lm):
        gap = np.linalg.norm(positions - observed[:, j : j + 1], axis=-1)
        cost = np.where(allowed[j], np.median(gap, 0), np.inf)
        idx = np.argsort(cost)[:k]
        p = positions[:, idx].transpose(0, 2, 1).reshape(-1, k)
        y = observed[:, j].reshape(-1)
        w = np.full(k, 1.0 / k)
        a = p.T @ p / len(y)
        b = p.T @ y / len(y)
        rate = 1.0 / np.linalg.eigvalsh(a)[-1]
        for _ in range(800):
            w = w - rate * (a @ w - b)
            u = np.sort(w)[::-1]
            css = np.cumsum(u) - 1
            rho = np.flatnonzero(u - css / (np.arange(k) + 1) > 0)[-1]
            w = np.maximum(w - css[rho] / (rho + 1), 0)
        vertices[j], weights[j] = idx, w
        residual[j] = np.median(
            np.linalg.norm(np.einsum("nkc,k->nc", positions[:, idx], w) - observed[:, j], axis=1)
        )
    return vertices, weights, residual


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("facekit", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--identities", type=int, default=50)
    parser.add_argument("--stills", type=Path, default=None)
    args = parser.parse_args()
    z = np.load(args.facekit, allow_pickle=True)
    v0 = z["neutral"].astype(np.float32)
    names = [str(n) for n in z["expression_names"]]
    expression = z["expression"].astype(np.float32)
    identity = z["identity"][: args.identities].astype(np.float32)
    tris, tri_group = z["tris"].astype(np.int64), z["tri_group"].astype(int)
    group_names = [str(n) for n in z["group_names"]]
    lm68 = z["landmarks68"].astype(int)
    jaw = expression[names.index("jawOpen")]

    to_ours = {
        "face": 0, "head_neck": 1, "mouth_socket": 2, "eye_socket_l": 3, "eye_socket_r": 3,
        "gums_tongue": 4, "teeth": 5, "sclera_l": 7, "sclera_r": 8,
    }  # fmt: skip
    ours = np.array([to_ours.get(group_names[g], -1) for g in tri_group])
    moving_teeth = np.linalg.norm(jaw, axis=1)[tris].mean(1) > 0.3
    ours[(ours == 5) & moving_teeth] = 6
    keep = ours >= 0
    # Nobody sees the back of the head or the inside of the eye sockets in a portrait.
    center = v0[tris].mean(1)
    keep &= ~((ours <= 1) & (center[:, 2] < -6.0))
    keep &= ~(np.isin(ours, [7, 8]) & (center[:, 2] < 6.9))
    keep &= ours != 3
    tris, ours = tris[keep], ours[keep]
    vertex_group = np.full(len(v0), -1)
    for g in range(len(GROUPS)):
        vertex_group[tris[ours == g].ravel()] = g

    opened = v0 + 0.6 * jaw  # lips apart, so that spacing does not bridge them
    h = spacing(opened, vertex_group, lm68)
    seeds_all, tris_all, group_all = [], [], []
    offset = 0
    # Face and scalp share a border in the source mesh: one surface, reduced together.
    for gs in ([0, 1], [2], [4], [5], [6], [7], [8]):
        part = np.isin(ours, gs)
        t = tris[part]
        used = np.unique(t)
        local = np.full(len(v0), -1)
        local[used] = np.arange(len(used))
        surface = np.zeros(len(used), int)
        seeds = choose(opened[used], local[t], surface, h[used])
        reduced = voronoi_nerve(opened[used], local[t], seeds)
        g = vertex_group[used[seeds]]
        tris_all.append(reduced + offset)
        group_all.append(np.where((g[reduced] == gs[-1]).sum(1) >= 2, gs[-1], gs[0]))
        seeds_all.append(used[seeds])
        offset += len(seeds)
        names_of = "+".join(GROUPS[g] for g in gs)
        print(f"{names_of:20s} {len(seeds):5d} vertices {len(reduced):5d} triangles")
    seeds, t, g = np.concatenate(seeds_all), np.concatenate(tris_all), np.concatenate(group_all)

    vg = np.zeros(len(seeds), int)
    start = 0
    for part_seeds, gs in zip(seeds_all, ([0, 1], [2], [4], [5], [6], [7], [8]), strict=True):
        vg[start : start + len(part_seeds)] = gs[0]
        start += len(part_seeds)
    vg[(vg == 0) & (vertex_group[seeds] == 1)] = 1
    eye = np.where(vg == 7, 1, np.where(vg == 8, 2, 0))
    eye_center, eye_center_identity = [], []
    angle = np.full(len(seeds), 9.0, np.float32)
    vrange = z["group_vrange"]
    for side, name in enumerate(("sclera_l", "sclera_r")):
        a, b = vrange[group_names.index(name)]
        c = sphere_center(v0[a:b].astype(np.float64))
        eye_center.append(c)
        eye_center_identity.append(
            np.stack([sphere_center((v0[a:b] + m[a:b]).astype(np.float64)) - c for m in identity])
        )
        mine = eye == side + 1
        q = v0[seeds][mine] - c
        angle[mine] = np.arccos(np.clip(q[:, 2] / np.linalg.norm(q, axis=1), -1, 1))
    base = v0[seeds].copy()
    # Reduced gums and teeth would cut into each other: gums sit behind.
    base[vg == GROUPS.index("gums_tongue"), 2] -= 0.25
    pairs = lm68[np.array(LID_PAIRS)]  # (2, 2, 2) of the mesh; here the nearest that were kept
    skin = np.flatnonzero(vg == 0)
    lids = skin[np.linalg.norm(v0[seeds[skin]] - v0[pairs][..., None, :], axis=-1).argmin(-1)]
    # They are near the places that meet, not at them: how far apart they are when those do.
    blink = sum(expression[names.index(f"eyeBlink_{side}")] for side in "LR")
    gap, travel = (x[pairs[..., 0], 1] - x[pairs[..., 1], 1] for x in (v0, -blink))
    shut = v0 + ((gap - LIDS_SHUT_CM) / travel)[..., None, None] * blink  # (2, 2, V, 3)
    kept = np.take_along_axis(shut[..., 1], seeds[lids], -1)
    lids_shut = (kept[..., 0] - kept[..., 1]).astype(np.float32)
    y = v0[seeds][:, 1]
    s = np.clip((y + 15.5) / 7.0, 0, 1)
    arrays = dict(
        base=base, identity=identity[:, seeds],
        expression=np.stack([expression[names.index(n)][seeds] for n in EXPRESSION_NAMES]),
        look=np.stack([expression[names.index(n)][seeds] for n in LOOK]),
        triangles=t.astype(np.int32), group=g.astype(np.int32),
        rigid=(s * s * (3 - 2 * s)).astype(np.float32), eye=eye.astype(np.int32),
        eye_center=np.array(eye_center, np.float32),
        eye_center_identity=np.stack(eye_center_identity, 1).astype(np.float32),
        iris_angle=angle,
        landmark_vertices=np.zeros((478, 6), np.int32),
        landmark_weights=np.full((478, 6), 1 / 6, np.float32),
        landmark_trust=np.zeros(478, np.float32),
        lids=lids.astype(np.int32), lids_shut=lids_shut,
        source_vertex=seeds.astype(np.int32),
    )  # fmt: skip
    print(f"{len(seeds)} vertices, {len(t)} triangles")
    if args.stills:
        calibrate(arrays, args.stills, vg)
    temporary = args.out.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(args.out)


def calibrate(arrays: dict[str, np.ndarray], stills: Path, vertex_group: np.ndarray) -> None:
    """Fills the landmark rows of ``arrays`` from rendered stills and the face detector."""
    from vasa_jax.face.find.finder import FaceFinder

    finder = FaceFinder()
    positions, observed = [], []
    for path in sorted(stills.glob("*.npz"))[:120]:
        with np.load(path) as z:
            images, screen = z["images"], z["screen"][:, arrays["source_vertex"]]
        for image, points in list(zip(images, screen, strict=True))[:5]:
            faces = finder.find(image)
            if not faces:
                continue
            points = points.astype(np.float64) * image.shape[0]
            lm = faces[0].landmarks[:, :2].astype(np.float64)
            height = np.ptp(lm[:468, 1])
            if np.linalg.norm(lm.mean(0) - points[vertex_group == 0].mean(0)) > 0.5 * height:
                continue
            origin = lm.mean(0)
            positions.append((points - origin) / height)
            observed.append((lm - origin) / height)
    skin, eyes = np.isin(vertex_group, [0, 1]), np.isin(vertex_group, [7, 8])
    allowed = np.repeat(skin[None], 478, 0)
    allowed[468:] = eyes
    v, w, residual = fit_landmarks(np.stack(positions), np.stack(observed), allowed)
    arrays["landmark_vertices"], arrays["landmark_weights"] = v, w
    arrays["landmark_trust"] = np.clip(0.015 / np.maximum(residual, 0.005), 0, 1).astype(np.float32)
    print(
        f"{len(positions)} pictures; median landmark residual {np.median(residual):.4f} of face "
        f"height, 90th percentile {np.percentile(residual, 90):.4f}"
    )


if __name__ == "__main__":
    main()
