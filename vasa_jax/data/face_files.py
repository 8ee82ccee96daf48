"""Face files: one person in one crop, made of rendered stills, a photograph or a clip.

A *face file* (.npz) holds ``images`` (F, 256, 256, 3) uint8, ``motion`` (F, 54) absolute with zero
translation, ``placement`` (F, 3), ``identity`` (I,), ``shape`` (V, 3) cm as in ``FaceFit``, and
``target`` (F,) bool: whether the picture may be asked for (pictures that we warped ourselves may
only be the source). Three makers, one format:

* ``from_stills``: rendered people (``vasa_jax.synth.person.picture stills``), exact geometry;
* ``from_video``: a real clip, tracked and fitted;
* ``from_portrait``: a real photograph, and copies of it moved by the analytic flow as sources, so
  that the real picture, with real skin, hair and camera, is what has to be produced.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.fit import LID_PAIRS, FaceFit, fit_sequence
from vasa_jax.face.head.head import Head
from vasa_jax.io.atomic import replacing

FORMAT = 2  # of face files; named in caches of them
SIZE = 256  # px of a face file unless made with another --size
BLINKS_KEPT = 4  # frames of a clip with shut eyes
FIT_OF_SHUT = 0.62  # what landmarks of shut eyes are fitted with; detectors see them half open
SHUT_SHARE = 0.6  # of the usual distance between the lids; a detector never sees it at zero


def write_face_file(path: Path, **arrays: np.ndarray) -> None:
    """Writes one face file, whole or not at all. Raises UserError when it can't be written."""
    with replacing(path) as part:
        np.savez(part, **arrays)  # type: ignore[arg-type]  # no key is called allow_pickle


def read_face_file(path: Path) -> dict[str, np.ndarray]:
    """All arrays of one face file. Raises UserError when it is damaged or something else."""
    try:
        with np.load(path) as z:
            found = {k: z[k] for k in z.files}
            found["images"], found["target"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no whole face file; delete it and make it again") from error
    return found


def placement_of(head: Head, identity: np.ndarray, motion: np.ndarray, screen_V2: np.ndarray):
    """Least-squares placement (3,) that puts a posed head onto known screen positions in [0, 1]."""
    import jax.numpy as jnp

    neutral, centers = heads.person(head, jnp.asarray(identity))
    pose = heads.absolute_pose(jnp.asarray(motion), jnp.asarray([0.0, 0.0, 1.0]))
    p = np.asarray(heads.place_head(head, neutral, centers, pose))[:, :2]
    y = np.asarray(screen_V2, np.float64) * 2 - 1
    w = np.asarray(head.rigid)[:, None] ** 4
    mp, my = (w * p).sum(0) / w.sum(), (w * y).sum(0) / w.sum()
    s = (w * (p - mp) * (y - my)).sum() / (w * (p - mp) ** 2).sum()
    return np.array([*(my - s * mp), s], np.float32)


def from_stills(
    head: Head, source_vertex: np.ndarray, path: Path, out: Path, *, size: int = SIZE
) -> float:
    """Converts one file of rendered stills; all are cut by the crop of the first, the portrait.

    Returns the side in px of what was cut out; below ``size`` the pictures were enlarged, and the
    stills should be rendered larger. Raises UserError for a file that is damaged.
    """
    import jax.numpy as jnp

    from vasa_jax.face.find.align import crop_from_landmarks, extract, to_crop

    try:
        with np.load(path) as z:
            images, motion, screen = z["images"], z["motion"].copy(), z["screen"].astype(np.float64)
            identity = z["identity"][: head.identity.shape[0]].astype(np.float32)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError("it holds no rendered stills, or not all of them") from error
    motion[:, 3:7] = 0
    side = images.shape[1]
    placed = placement_of(head, identity, motion[0], screen[0][source_vertex])
    vertices = heads.place_fit(head, *(jnp.asarray(x) for x in (identity, motion[0], placed)))
    landmarks = (np.asarray(heads.landmarks(head, vertices))[:, :2] + 1) / 2 * side
    crop = crop_from_landmarks(landmarks)
    placement = np.stack(
        [
            placement_of(head, identity, m, to_crop(s[source_vertex] * side, crop))
            for m, s in zip(motion, screen, strict=True)
        ]
    )
    write_face_file(
        out, images=np.stack([extract(i, crop, size) for i in images]), motion=motion,
        placement=placement, identity=identity, target=np.ones(len(images), bool),
        shape=np.zeros(head.base.shape, np.float16),  # nothing is hidden from the head model
    )  # fmt: skip
    return crop.size


def _random_motions(rng: np.random.Generator, count: int) -> np.ndarray:
    """Plausible driving motions for the copies of a photograph."""
    m = np.zeros((count, MOTION_DIM), np.float32)
    m[:, :3] = np.clip(rng.normal(size=(count, 3)) * [0.16, 0.09, 0.07], -0.35, 0.35)
    m[:, 3:5] = rng.normal(size=(count, 2)) * 0.03
    m[:, 6] = rng.normal(size=count) * 0.04
    m[:, 7:9] = rng.normal(size=(count, 2)) * [0.15, 0.08]

    def both(name: str, value: np.ndarray) -> None:
        for key in (name, f"{name}_L", f"{name}_R"):
            if key in MOTION_INDEX:
                m[:, MOTION_INDEX[key]] += value

    on = lambda p: (rng.uniform(size=count) < p).astype(np.float32)  # noqa: E731
    both("jawOpen", on(0.4) * rng.uniform(0, 0.3, count))
    both("mouthPucker", on(0.25) * rng.uniform(0, 0.6, count))
    both("mouthSmile", on(0.3) * rng.uniform(0, 0.6, count))
    both("mouthStretch", on(0.2) * rng.uniform(0, 0.4, count))
    both("eyeBlink", on(0.4) * rng.uniform(0, 1.0, count))
    both("browInnerUp", on(0.2) * rng.uniform(0, 0.7, count))
    return m


def from_portrait(
    model: Any, params: Any, image_u8: np.ndarray, out: Path, *, copies: int = 6
) -> bool:
    """Photograph -> face file: the picture itself and warped copies. False where no face is found.

    ``model`` is a FaceAutoencoder; untrained ``params`` make it the pure analytic warp.
    """
    import jax.numpy as jnp

    from vasa_jax.face.find.align import crop_from_landmarks, extract, to_crop
    from vasa_jax.face.find.finder import FaceFinder
    from vasa_jax.face.head.fit import fit_portrait
    from vasa_jax.face.model import from_uint8

    faces = FaceFinder().find(image_u8)
    if not faces:
        return False
    crop = crop_from_landmarks(faces[0].landmarks)
    picture = extract(image_u8, crop, model.cfg.size)
    fit = fit_portrait(model.head, to_crop(faces[0].landmarks, crop))
    if fit.error > 0.012:
        return False
    rng = np.random.default_rng(int(picture.astype(np.int64).sum() % 2**31))
    motions = _random_motions(rng, copies)
    appearance = model.encode_appearance(params, model.head, from_uint8(picture), fit)
    images, absolute, placements = [picture], [fit.motion], [fit.placement]
    own = jnp.asarray(fit.motion)
    for m in motions:
        pose = heads.drive(own, jnp.asarray(fit.placement), jnp.asarray(m))
        moved = fit.motion.copy()
        moved[:3] += m[:3]
        moved[EXPRESSION] = pose.expression
        moved[7:9] = m[7:9]
        images.append(model.render_uint8(params, appearance, m[None])[0])
        absolute.append(moved)
        placements.append(np.asarray(pose.placement))
    write_face_file(
        out, images=np.stack(images), motion=np.stack(absolute).astype(np.float32),
        placement=np.stack(placements).astype(np.float32), identity=fit.identity,
        target=np.arange(copies + 1) == 0, shape=np.asarray(fit.shape, np.float16),
    )  # fmt: skip
    return True


def fitted_frames(
    head: Head, landmarks_TL: np.ndarray, reference: FaceFit
) -> tuple[np.ndarray, np.ndarray]:
    """Motion (T, 54), absolute and without translation, and placement (T, 3) of a clip's frames.

    ``landmarks_TL`` (T, 478, 2 or 3) lie in [0, 1] of the crop of ``reference``, a fit of the same
    person in the same crop. Lids are as shut as detectors see them half open.
    """
    import jax.numpy as jnp

    motion = fit_sequence(head, landmarks_TL, reference)
    own = jnp.asarray(reference.placement)
    placement = np.asarray(heads.move_placement(own, jnp.asarray(motion.T)).T)
    motion[:, 3:7] = 0.0  # they live in the placement
    blinks = [EXPRESSION.start + i for i in heads.BLINKS]
    motion[:, blinks] = (motion[:, blinks] / FIT_OF_SHUT).clip(0.0, 1.0)
    return motion, placement


def from_video(
    head: Head, frames: list[np.ndarray], out: Path, *, keep: int = 10, size: int = SIZE
) -> bool:
    """Clip of one person -> face file with ``keep`` frames spread over mouth openings.

    Up to BLINKS_KEPT frames with shut lids come on top; any other choice would hardly have one.
    """
    from vasa_jax.face.find.align import crop_from_landmarks, extract, to_crop
    from vasa_jax.face.find.finder import FaceTracker
    from vasa_jax.face.head.fit import fit_portrait

    tracker = FaceTracker()
    found = [tracker.track(f) for f in frames]
    good = [i for i, face in enumerate(found) if face is not None]
    if len(good) < keep:
        return False
    landmarks = np.stack([found[i].landmarks for i in good])  # type: ignore[union-attr]
    crop = crop_from_landmarks(np.median(landmarks, 0))
    local = to_crop(landmarks, crop)
    gap = np.linalg.norm(local[:, 13, :2] - local[:, 14, :2], axis=-1)
    fit = fit_portrait(head, local[int(np.argmin(gap))])
    motion, placement = fitted_frames(head, local, fit)
    # Evenly spread over the ranking of mouth openings, so that open mouths are not rare.
    order = np.argsort(gap)[np.linspace(0, len(gap) - 1, keep).round().astype(int)]
    order = np.concatenate([order, _shut_eyes(local)])
    images = np.stack([extract(frames[good[i]], crop, size) for i in order])
    write_face_file(
        out, images=images, motion=motion[order], placement=placement[order], identity=fit.identity,
        target=np.ones(len(order), bool), shape=np.asarray(fit.shape, np.float16),
    )  # fmt: skip
    return True


def _shut_eyes(landmarks_TL2: np.ndarray) -> np.ndarray:
    """Frames of a clip whose lids are nearest to each other, where they are much nearer than usual.

    At most BLINKS_KEPT, and no two of one moment.
    """
    upper, lower = np.array([p for eye in LID_PAIRS for p in eye]).T
    gap = np.linalg.norm(landmarks_TL2[:, upper, :2] - landmarks_TL2[:, lower, :2], axis=-1)
    gap = gap.max(1) / np.median(gap.max(1))
    chosen: list[int] = []
    for i in np.argsort(gap):
        if gap[i] > SHUT_SHARE or len(chosen) == BLINKS_KEPT:
            break
        if all(abs(i - j) > 5 for j in chosen):
            chosen.append(int(i))
    return np.array(chosen, int)
