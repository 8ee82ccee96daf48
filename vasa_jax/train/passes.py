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

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


class Renderer(Protocol):
    """What passes need of a model (``face.volumetric.VolumetricAutoencoder``)."""

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


def other(x: Any) -> Any:
    """The same of the next pair in the batch."""
    return jax.tree.map(lambda a: jnp.roll(a, -1, 0), x)


def render_driven(
    model: Renderer, params: Any, source: Frames, driver: Frames
) -> tuple[jax.Array, Any]:
    """The first pass alone, without dropout: ``driven`` and the appearance of the sources."""
    z_source = model.dynamics(params, source.face)
    appearance = model.encode(params, source.image, source.mask, source.pose, z_source)
    return model.decode(
        params, appearance, driver.pose, model.dynamics(params, driver.face)
    ), appearance  # fmt: skip


def render_passes(
    model: Renderer, params: Any, source: Frames, driver: Frames, key: jax.Array
) -> Passes:
    """All passes of a training step; ``key`` is for dropout on the codes of real frames."""
    key_s, key_d = jax.random.split(key)
    z_s = model.dynamics(params, source.face, dropout=key_s)
    z_d = model.dynamics(params, driver.face, dropout=key_d)
    of_s = model.encode(params, source.image, source.mask, source.pose, z_s)
    of_d = model.encode(params, driver.image, driver.mask, driver.pose, z_d)
    z_o, pose_o, pose_turned = other((z_d, driver.pose, source.pose))

    driven = model.decode(params, of_s, driver.pose, z_d)
    crossed = model.decode(params, of_s, pose_o, z_o)
    turned = model.decode(params, of_s, pose_turned, z_o)

    def read_back(image: jax.Array, pose: jax.Array) -> jax.Array:
        return model.dynamics(params, model.aligned_faces(image, pose))

    return Passes(
        driven=driven,
        posed=model.decode(params, of_d, source.pose, z_d),
        acted=model.decode(params, of_s, source.pose, z_d),
        crossed=crossed,
        turned=turned,
        z_source=z_s,
        z_driver=z_d,
        z_driven=read_back(driven, driver.pose),
        z_crossed=read_back(crossed, pose_o),
        z_turned=read_back(turned, pose_turned),
        canonical_source=of_s.volume,
        canonical_driver=of_d.volume,
    )
