"""The head that people are made of: read from a file, or the simple built-in one."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from vasa_jax.core.arkit import EXPRESSION_NAMES
from vasa_jax.core.errors import UserError
from vasa_jax.synth.person.builtin_head import builtin_head
from vasa_jax.synth.person.mesh_head import GROUPS, G, MeshHead

_LOOK = ("eyeLookUp", "eyeLookDown", "eyeLookIn", "eyeLookOut")


@functools.lru_cache(maxsize=2)
def load_mesh_head(path: str | None = None) -> MeshHead:
    """Reads ``facekit.npz``, or builds the simple head if ``path`` is None.

    Raises:
      UserError: the file is missing or not a facekit.
    """
    if path is None:
        return builtin_head()
    if not Path(path).is_file():
        raise UserError(f"no head model at '{path}'; give --head facekit.npz or leave it out")
    try:
        with np.load(path) as z:
            d = {k: z[k] for k in z.files}
        names = [str(n) for n in d["expression_names"]]
        groups = [str(n) for n in d["group_names"]]
        table = {n: d["expression"][i] for i, n in enumerate(names)}
        expression = np.stack([table[n] for n in EXPRESSION_NAMES]).astype(np.float32)
        look = np.stack([table[f"{n}_{s}"] for n in _LOOK for s in "LR"]).astype(np.float32)
        triangles = d["tris"].astype(np.int32)
        group = np.array([GROUPS.index(n) for n in groups], np.int32)[d["tri_group"]]
        uv = d["uv"].astype(np.float32)[d["tri_uv"]]
        neutral = d["neutral"].astype(np.float32)
        ranges = {n: (int(a), int(b)) for n, (a, b) in zip(groups, d["group_vrange"], strict=True)}
    except (KeyError, ValueError, OSError) as e:
        raise UserError(f"'{path}' is not a facekit.npz: {e}") from e
    # The iris is painted on the sclera mesh; lower lashes look like eyeliner.
    lash = group >= G["eyelash_l"]
    low_lash = lash & (neutral[triangles].mean(1)[:, 1] < 3.25)
    keep = ~np.isin(group, [G["iris_l"], G["iris_r"]]) & ~low_lash
    return MeshHead(
        neutral=neutral,
        identity=d["identity"],
        expression=expression,
        look=look,
        triangles=np.ascontiguousarray(triangles[keep]),
        group=np.ascontiguousarray(group[keep]),
        uv=np.ascontiguousarray(uv[keep]),
        landmarks68=d["landmarks68"].astype(np.int64),
        ranges=ranges,
        lip_gap_cm=0.06,
    )
