"""Which pictures a training step of the full model renders, and what each must be compared with.

A batch holds B pairs (source s, driver d), two frames of one person each; the *other* pair o of an
example is the next one in the batch, somebody else. D(V, pose, dynamics) renders::

    driven    D(V_s, pose_d, dyn_d)    must show d                          (MegaPortraits)
    posed     D(V_d, pose_s, dyn_d)  } must show the same: person in pose s
    acted     D(V_s, pose_s, dyn_d)  } with dynamics d                      (VASA-1 l_consist)
    crossed   D(V_s, pose_o, dyn_o)    must have the identity of s          (VASA-1 l_cross-id)
    turned    D(V_s, pose_o', dyn_o)   the same in the pose of o's source   (EMOPortraits 5.1)

V contains the identity map. The codes read back from ``driven``, ``crossed`` and ``turned`` must be
those of the frame that drove the dynamics, whatever the person and the pose: positives are dyn_d,
dyn_o and dyn_o, negatives dyn_o, dyn_d and dyn_d.

Mistakes that others shipped and the tests of this file would catch (paper facts 4.2): a prediction
compared with its source; transfer consistency between pictures that differ in pose or dynamics;
cross identity between frames of one person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from vasa_jax.nn.recompute import recomputed


class Renderer(Protocol):
    """What passes need of a model (``face.volume.autoencoder.VolumetricAutoencoder``)."""

    def aligned_faces(self, image_BYXC: jax.Array, pose_B7: jax.Array) -> jax.Array: ...

    def dynamics(
        self, params: Any, face_BYXC: jax.Array, *, dropout: jax.Array | None = None
    ) -> jax.Array: ...

    def encode(self, params: Any, image_BYXC, mask_BYX1, pose_B7, z_dyn_BK) -> Any: ...

    def decode(self, params: Any, appearance: Any, pose_B7, z_dyn_BK) -> jax.Array: ...


class Frames(NamedTuple):
    """One side of a batch of pairs."""

    image: Any  # (B, Y, X, 3) in [-1, 1]
    mask: Any  # (B, Y, X, 1) foreground
    pose: Any  # (B, 7) absolute
    face: Any  # (B, n, n, 3) what E_dyn sees of it


class Passes(NamedTuple):
    """Pictures (B, Y, X, 3), codes (B, K) and volumes of one step, see the module header."""

    driven: Any
    posed: Any
    acted: Any
    crossed: Any
    turned: Any
    z_source: Any
    z_driver: Any
    z_driven: Any
    z_crossed: Any
    z_turned: Any
    canonical_source: Any
    canonical_driver: Any
    matte: Any = None  # (B, Y, X, 1) of ``driven``; None of a model that draws none


def other(x: Any) -> Any:
    """The same of the next pair in the batch."""
    return jax.tree.map(lambda a: jnp.roll(a, -1, 0), x)


def together(*parts: Any) -> Any:
    """Trees of (B, ...) as one of (B N, ...), for one call of a net instead of N.

    The N versions of an example lie side by side, so a batch split over devices stays where it is.
    """
    n = len(parts)

    def one(*leaves: jax.Array) -> jax.Array:
        return jnp.stack(leaves, 1).reshape(n * leaves[0].shape[0], *leaves[0].shape[1:])

    return jax.tree.map(one, *parts)


def apart(tree: Any, n: int) -> list[Any]:
    """The N trees of (B, ...) that ``together`` made one."""

    def one(i: int) -> Any:
        return jax.tree.map(lambda a: a.reshape(-1, n, *a.shape[1:])[:, i], tree)

    return [one(i) for i in range(n)]


def in_turn(f: Callable[..., Any], params: Any, parts: Sequence[tuple[Any, ...]]) -> list[Any]:
    """``f(params, *part)`` of each of some tuples of arguments, shaped alike, one after the other.

    A loop, not calls: a compiler is free to make calls at the same time.
    """
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)
    made = jax.lax.map(lambda each: f(params, *each), stacked)
    return [jax.tree.map(lambda a, i=i: a[i], made) for i in range(len(parts))]


def render_driven(
    model: Renderer, params: Any, source: Frames, driver: Frames
) -> tuple[jax.Array, Any]:
    """The first pass alone, without dropout: ``driven`` and the appearance of the sources."""
    z_source, z_driver = apart(model.dynamics(params, together(source.face, driver.face)), 2)
    appearance = model.encode(params, source.image, source.mask, source.pose, z_source)
    return model.decode(params, appearance, driver.pose, z_driver)[..., :3], appearance


def render_passes(
    model: Renderer,
    params: Any,
    source: Frames,
    driver: Frames,
    key: jax.Array,
    *,
    one_by_one: bool = False,
) -> Passes:
    """All passes of a training step; ``key`` is for dropout on the codes of real frames.

    ``one_by_one`` encodes the two and decodes the five pictures of an example in loops instead of
    in one batch: the same numbers, with activations for one picture at a time. The loops are over
    passes, never over examples, so a batch split over devices stays split.
    """
    z_s, z_d = apart(model.dynamics(params, together(source.face, driver.face), dropout=key), 2)
    sides = [(s.image, s.mask, s.pose, z) for s, z in ((source, z_s), (driver, z_d))]
    if one_by_one:
        of_s, of_d = in_turn(model.encode, params, sides)
    else:
        of_s, of_d = apart(model.encode(params, *together(*sides)), 2)
    z_o, pose_o, pose_turned = other((z_d, driver.pose, source.pose))

    pictures = {  # appearance, pose, dynamics
        "driven": (of_s, driver.pose, z_d),
        "crossed": (of_s, pose_o, z_o),
        "turned": (of_s, pose_turned, z_o),
        "posed": (of_d, source.pose, z_d),
        "acted": (of_s, source.pose, z_d),
    }
    if one_by_one:
        rendered = in_turn(recomputed(model.decode), params, list(pictures.values()))
    else:
        rendered = apart(model.decode(params, *together(*pictures.values())), len(pictures))
    shown = {name: picture[..., :3] for name, picture in zip(pictures, rendered, strict=True)}
    driven = rendered[0]  # a fourth channel is its matte

    read = ("driven", "crossed", "turned")
    images = together(*(shown[name] for name in read))
    poses = together(*(pictures[name][1] for name in read))
    codes = apart(model.dynamics(params, model.aligned_faces(images, poses)), len(read))
    return Passes(
        **shown,
        z_source=z_s,
        z_driver=z_d,
        z_driven=codes[0],
        z_crossed=codes[1],
        z_turned=codes[2],
        canonical_source=of_s.volume,
        canonical_driver=of_d.volume,
        matte=driven[..., 3:] if driven.shape[-1] > 3 else None,
    )
