"""The synthetic engine's public face: a person and an absolute motion become a picture with truth.

    head   = load_mesh_head("facekit.npz")        # or None: the simple built-in head
    person = make_person(7, head)
    image, truth = render_still(person, motion_54, head=head, size=256)

Absolute motion: pose is that of the head itself (not relative to a portrait), gaze in the camera's
frame, expression weights as they are. Projection is that of ``mesh_head`` and can be repeated
exactly from ``truth.placement`` (already moved by the motion's translation and log-scale)::

    v' = R(yaw, pitch, roll) (v - PIVOT) + PIVOT,  d = 1 / (1 - z' / 70)
    screen = ((cx + s x' d + 1) / 2, (cy - s y' d + 1) / 2)      in [0, 1] of the picture

Vertices below the chin blend towards the unturned body by ``Person.neck_weight``.

One portrait, and batches of stills for training a face model::

    python -m vasa_jax.synth.person.picture portrait OUT.png --seed 1002 --head PATH
    python -m vasa_jax.synth.person.picture stills OUT --identities 300 --frames 10 --size 256 \
        --head PATH

Needs numba and OpenCV (``pip install 'vasa-jax[train]'``), imported at the first picture.
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS
from vasa_jax.motion.arkit.emotions import EMOTION_OFFSETS, weights
from vasa_jax.synth.person.load_head import load_mesh_head
from vasa_jax.synth.person.mesh_head import (
    PIVOT_CM,
    MeshHead,
    crop_placement,
    eye_in_head,
    place,
    project,
)
from vasa_jax.synth.person.person import Light, Person, background, make_person
from vasa_jax.synth.speech.visemes import VISEME_NAMES, VISEMES, seal

SEGMENTS = (
    "background", "face", "head_neck", "mouth_inside", "teeth", "eyeball", "eye_socket", "lashes",
    "hair", "clothes",
)  # fmt: skip
_SEGMENT_OF_GROUP = np.zeros(32, np.uint8)
for _group, _segment in {
    0: 1, 1: 2, 2: 3, 3: 6, 4: 6, 5: 3, 6: 4, 7: 5, 8: 5, 9: 5, 10: 5, 11: 7, 12: 7, 20: 8, 21: 8,
    22: 9,
}.items():  # fmt: skip
    _SEGMENT_OF_GROUP[_group] = _segment
_SHADOW_SPAN_CM = 46.0


@dataclass(frozen=True)
class StillTruth:
    """What is known of one picture; positions in [0, 1] of the picture, x right, y down."""

    screen: np.ndarray  # (V, 2) float32, all head vertices in the head model's order
    landmarks68: np.ndarray  # (68, 2) float32
    landmarks68_camera: np.ndarray  # (68, 3) float32, cm in camera space
    segments: np.ndarray  # (size, size) uint8, index into SEGMENTS
    depth: np.ndarray  # (size, size) float32, cm from the camera, 0 where background
    placement: np.ndarray  # (3,) cx, cy, s after translation and log-scale
    eye_in_head: np.ndarray  # (2,) rad
    lip_gap_cm: float  # between the inner lips, in the head's frame, above the resting gap

    def without_pixels(self) -> StillTruth:
        """The same without the large arrays: masks, depth and all vertices."""
        empty = np.zeros((0, 0), np.uint8)
        return replace(self, screen=np.zeros((0, 2)), segments=empty, depth=empty)


def render_still(
    person: Person,
    motion_54: np.ndarray,
    *,
    head: MeshHead,
    size: int = 256,
    supersample: int = 2,
    placement: np.ndarray | None = None,
    backdrop: np.ndarray | None = None,
) -> tuple[np.ndarray, StillTruth]:
    """Renders one picture.

    Args:
      person: from ``make_person`` with the same head.
      motion_54: absolute motion.
      head: from ``load_mesh_head``.
      size: side of the square picture in pixels.
      supersample: 2 renders at twice the side and averages.
      placement: (3,) cx, cy, s at zero translation; the person's own if None.
      backdrop: (size * supersample,)*2 + (3,) linear light; the person's own if None.

    Returns:
      (size, size, 3) uint8 and its truth.

    Raises:
      UserError: numba or OpenCV is missing, or the motion is not finite.
    """
    raster, shading = _kernels()
    motion_54 = np.asarray(motion_54, np.float32)
    if motion_54.shape != (MOTION_DIM,) or not np.isfinite(motion_54).all():
        raise UserError(f"a motion has {MOTION_DIM} finite numbers; got shape {motion_54.shape}")
    base = person.placement if placement is None else placement
    placed = place(head, person.shape, person.eye_centres, motion_54, base)
    camera, normal = _scene(person, head, placed, raster)
    n = size * supersample
    points = np.empty((len(camera), 3), np.float32)
    points[:, :2] = project(camera, placed.placement) * n
    points[:, 2] = 1 / (1 - camera[:, 2] / 70.0)
    inverse_w = np.zeros((n, n), np.float32)
    ids = np.full((n, n), -1, np.int32)
    b1, b2 = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    raster.rasterise(points, person.triangles, person.kind, person.strand, inverse_w, ids, b1, b2)

    light = person.light
    axes = _shadow_axes(light.key)
    view = np.empty_like(camera)
    side = 320 if n <= 512 else 720  # large pictures would show the map's texels
    scale = side / _SHADOW_SPAN_CM
    view[:, :2] = (camera - PIVOT_CM * 0.3) @ axes[:2].T * scale + side / 2
    view[:, 2] = camera @ axes[2] + 60
    shadow_map = np.zeros((side, side), np.float32)
    # the densest shell stands for the hair, the thin outer ones cast nothing
    raster.rasterise_depth(view, _casters(person), shadow_map)
    offset = side / 2 - (PIVOT_CM * 0.3) @ axes[:2].T * scale
    shadow = np.concatenate([axes, [[scale, 0, 0]]]).astype(np.float32)

    up, low = head.landmarks68[62], head.landmarks68[66]
    rest_gap = person.shape[up, 1] - person.shape[low, 1]
    gap = float(np.linalg.norm(placed.deformed[up] - placed.deformed[low]) - max(rest_gap, 0.0))
    gap = gap if placed.deformed[up, 1] - placed.deformed[low, 1] > rest_gap else 0.0
    lips = np.array([person.shape[up, 2], max(gap, 0.0), person.gloss], np.float32)
    linear = np.empty((n, n, 3), np.float32)
    shading.shade(
        ids, b1, b2, person.triangles, person.group, person.kind, person.uv, camera, normal,
        person.rest, _occlusion(person), person.strand, person.paint, person.bump, person.skin,
        person.hair_rgb, person.iris_rgb, person.cloth, person.teeth, person.eyes, lips, light.key,
        light.key_rgb, light.fill, light.fill_rgb, light.rim, light.rim_rgb, light.ambient,
        shadow, offset.astype(np.float32), shadow_map,
        _backdrop(person.seed, n) if backdrop is None else backdrop, linear,
    )  # fmt: skip
    image = shading.develop(linear, supersample)
    step = supersample // 2 if supersample > 1 else 0
    seen = ids[step::supersample, step::supersample]
    near = inverse_w[step::supersample, step::supersample]
    screen = points[: head.vertex_count, :2] / n
    truth = StillTruth(
        screen=screen,
        landmarks68=screen[head.landmarks68],
        landmarks68_camera=camera[head.landmarks68],
        segments=np.where(seen < 0, 0, _SEGMENT_OF_GROUP[person.group[np.maximum(seen, 0)]]),
        depth=np.where(near > 0, 70.0 / np.maximum(near, 1e-6), 0).astype(np.float32),
        placement=placed.placement.astype(np.float32),
        eye_in_head=np.array(eye_in_head(placed.rotation, motion_54[GAZE]), np.float32),
        lip_gap_cm=max(gap, 0.0),
    )
    return image, truth


def _kernels():
    """The numba modules, loaded when the first picture is wanted."""
    try:
        from vasa_jax.synth.person import rasteriser, shading
    except ImportError as e:
        raise UserError("rendering needs numba and OpenCV: pip install 'vasa-jax[train]'") from e
    return rasteriser, shading


@functools.lru_cache(maxsize=8)
def _backdrop(seed: int, size: int) -> np.ndarray:
    return background(seed, size)


def _scene(person: Person, head: MeshHead, placed, raster) -> tuple[np.ndarray, np.ndarray]:
    """Camera-space vertices and normals of head, shells, hanging hair and garment."""
    w = person.neck_weight[:, None]
    v = placed.deformed * (1 - w) + placed.camera * w
    n = raster.vertex_normals(v, head.triangles)
    parts, normals = [v], [n]
    used = person.shell_vertices
    if len(used):
        loft = (0.12 + 0.88 * person.loft[used])[:, None]
        for layer in range(person.shells):
            out = (layer / max(person.shells - 1, 1)) * person.hair_thickness
            parts.append(v[used] + n[used] * (out * loft))
            normals.append(n[used])
    if len(person.curtain):
        c = person.curtain
        share = np.clip((c[:, 1:2] + 16) / 16, 0.25, 1)
        c = c * (1 - share) + ((c - PIVOT_CM) @ placed.rotation.T + PIVOT_CM) * share
        parts.append(c.astype(np.float32))
    parts.append(person.torso)
    scene = np.ascontiguousarray(np.concatenate(parts).astype(np.float32))
    extra = len(scene) - sum(len(x) for x in normals)
    if extra:
        rest = person.triangles[person.group > 20]
        first = len(scene) - extra
        normals.append(raster.vertex_normals(scene[first:], rest - first))
    return scene, np.ascontiguousarray(np.concatenate(normals).astype(np.float32))


def _casters(person: Person) -> np.ndarray:
    """Triangles that throw shadows (cached on the person)."""
    if "casters" not in person.__dict__:
        hair = (person.group == 20) & (np.abs(person.kind - 0.5) > 0.01)
        lash = (person.group == 11) | (person.group == 12)
        person.__dict__["casters"] = np.ascontiguousarray(person.triangles[~hair & ~lash])
    return person.__dict__["casters"]


def _occlusion(person: Person) -> np.ndarray:
    """Occlusion of all vertices; shells take the scalp's (cached on the person)."""
    if "all_occlusion" not in person.__dict__:
        ao = person.occlusion
        parts = [ao] + [ao[person.shell_vertices]] * (
            person.shells if len(person.shell_vertices) else 0
        )
        parts.append(np.full(len(person.curtain) + len(person.torso), 0.9, np.float32))
        person.__dict__["all_occlusion"] = np.concatenate(parts).astype(np.float32)
    return person.__dict__["all_occlusion"]


def _shadow_axes(key: np.ndarray) -> np.ndarray:
    u = np.cross([0, 1, 0], key)
    u = u / np.linalg.norm(u)
    return np.stack([u, np.cross(key, u), key]).astype(np.float32)


# ---------------------------------------------------------------------------------- portrait


def studio_portrait(seed: int, head: MeshHead, size: int = 512) -> np.ndarray:
    """A friendly, mouth-closed portrait in studio light before a plain wall, (size, size, 3)."""
    person = make_person(seed, head, texture=1400, identity_scale=0.6)

    def unit(*xyz: float) -> np.ndarray:
        return (np.array(xyz) / np.linalg.norm(xyz)).astype(np.float32)

    person.light = Light(
        key=unit(-0.7, 0.6, 0.75),
        key_rgb=np.array([1.75, 1.62, 1.45], np.float32),
        fill=unit(0.9, 0.1, 0.6),
        fill_rgb=np.array([0.22, 0.24, 0.28], np.float32),
        rim=unit(0.9, 0.4, -0.5),
        rim_rgb=np.array([0.9, 0.9, 0.95], np.float32),
        ambient=np.array([0.38, 0.39, 0.42], np.float32),
    )
    person.gloss = 0.9
    person.placement = crop_placement(head, person.shape)
    motion = np.zeros(MOTION_DIM, np.float32)
    motion[:2] = 0.05, 0.01
    motion[EXPRESSION] = weights(
        mouthSmile=0.2, cheekSquint=0.12, mouthPress=0.05, browOuterUp=0.05, eyeSquint=0.04
    )
    n = size * 3
    yy, xx = np.mgrid[0:n, 0:n] / n
    spot = np.exp(-((xx - 0.62) ** 2 + (yy - 0.4) ** 2) * 2.6)[..., None]
    near, far = np.array([[0.26, 0.30, 0.34], [0.10, 0.12, 0.15]])
    wall = np.ascontiguousarray((near * spot + far * (1 - spot)).astype(np.float32))
    return render_still(person, motion, head=head, size=size, supersample=3, backdrop=wall)[0]


# ------------------------------------------------------------------------------------ stills


def random_still_motion(rng: np.random.Generator, frame: int) -> np.ndarray:
    """A broad absolute motion (54,) for stage 1: visemes, lids at all stages, emotions, gaze, pose.

    Frame 0 is a portrait: nearly level, mouth shut, eyes open, looking at the camera.
    """
    m = np.zeros(MOTION_DIM, np.float32)
    m[3:5] = rng.normal(0, (0.05, 0.035))
    m[6] = rng.normal(0, 0.07)
    if frame == 0:
        m[0:3] = rng.normal(0, (0.10, 0.05, 0.04))
        m[GAZE] = rng.normal(0, (0.05, 0.04))
        e = EMOTION_OFFSETS["happy"] * max(rng.normal(0, 0.15), 0)
        m[EXPRESSION] = np.clip(e, 0, 1)
        return m
    m[0] = rng.uniform(-25, 25)
    m[1] = np.clip(rng.normal(0, 7), -15, 15)
    m[2] = np.clip(rng.normal(0, 5), -12, 12)
    m[:3] = np.radians(m[:3])
    m[GAZE] = np.clip(m[:2] * rng.uniform(0, 1) + np.radians(rng.normal(0, (13, 8))), -0.6, 0.6)
    a, b = (VISEMES[VISEME_NAMES[i]].target for i in rng.integers(0, len(VISEME_NAMES), 2))
    mix = rng.uniform()
    e = (a * mix + b * (1 - mix)) * rng.uniform(0.7, 1.45) if rng.uniform() < 0.8 else np.zeros(45)
    if rng.uniform() < 0.7:
        name = EMOTIONS[int(rng.integers(1, len(EMOTIONS)))]
        e = e + EMOTION_OFFSETS[name] * rng.uniform(0.2, 1.0)
    if rng.uniform() < 0.18:  # a laugh: smile with teeth
        e = e + EMOTION_OFFSETS["happy"] * 0.8
        for name in ("mouthUpperUp_L", "mouthUpperUp_R", "mouthLowerDown_L", "mouthLowerDown_R"):
            e[MOTION_INDEX[name] - 9] += rng.uniform(0.1, 0.35)
        e[MOTION_INDEX["jawOpen"] - 9] += rng.uniform(0, 0.3)
    if rng.uniform() < 0.2:  # teeth seen between parted lips
        e[MOTION_INDEX["jawOpen"] - 9] += rng.uniform(0.1, 0.5)
    side = rng.normal(0, 0.12, 45)
    e = e * np.exp(side) + (rng.uniform(size=45) < 0.06) * rng.uniform(0, 0.5, 45)
    e[MOTION_INDEX["mouthClose"] - 9] = min(e[MOTION_INDEX["mouthClose"] - 9], 0.1)
    e[MOTION_INDEX["jawOpen"] - 9] = min(e[MOTION_INDEX["jawOpen"] - 9], 0.75)
    if rng.uniform() < 0.12:
        e = seal(e[None], np.ones(1), np.zeros(1))[0]
    if rng.uniform() < 0.35:
        lid = rng.uniform() if rng.uniform() < 0.65 else 1.0
        for name in ("eyeBlink_L", "eyeBlink_R"):
            e[MOTION_INDEX[name] - 9] = np.clip(lid + rng.normal(0, 0.02), 0, 1)
        for name in ("eyeWide_L", "eyeWide_R"):
            e[MOTION_INDEX[name] - 9] *= 1 - lid
    m[EXPRESSION] = np.clip(e, 0, 1)
    return m


def write_stills(
    out: str | Path,
    *,
    identities: int,
    frames: int,
    size: int = 256,
    head_path: str | None = None,
    first: int = 0,
    supersample: int = 2,
    quiet: bool = False,
) -> None:
    """Writes ``OUT/id_00000.npz`` ... one per identity; existing ones are kept.

    Each file: ``images`` (F, size, size, 3) uint8; ``motion`` (F, 54) absolute; ``identity`` (I,);
    ``screen`` (F, V, 2) float16 in [0, 1], head vertex order; ``landmarks68`` (F, 68, 2) float32;
    ``segments`` (F, size, size) uint8 (index into SEGMENTS); ``placement`` (3,) cx, cy, s before
    the motion's translation and log-scale; ``frame_placement`` (F, 3) after it; ``lip_gap_cm``
    (F,). See the module's header for the projection.
    """
    from rich.progress import track

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    head = load_mesh_head(head_path)
    wanted = range(first, first + identities)
    for i in wanted if quiet else track(wanted, description="identities"):
        path = out / f"id_{i:05d}.npz"
        if path.exists():
            continue
        person = make_person(i, head)
        rng = np.random.default_rng([i, 0x571])
        rows = []
        for f in range(frames):
            motion = random_still_motion(rng, f)
            image, t = render_still(person, motion, head=head, size=size, supersample=supersample)
            rows.append((image, motion, t))
        part = path.with_suffix(".part")
        with open(part, "wb") as file:
            np.savez(
                file,
                images=np.stack([r[0] for r in rows]),
                motion=np.stack([r[1] for r in rows]),
                identity=person.identity,
                screen=np.stack([r[2].screen for r in rows]).astype(np.float16),
                landmarks68=np.stack([r[2].landmarks68 for r in rows]),
                segments=np.stack([r[2].segments for r in rows]),
                placement=person.placement,
                frame_placement=np.stack([r[2].placement for r in rows]),
                lip_gap_cm=np.array([r[2].lip_gap_cm for r in rows], np.float32),
                seed=i,
            )
        part.rename(path)


def main(argv: list[str] | None = None) -> None:
    """``python -m vasa_jax.synth.person.picture stills OUT ...``"""
    parser = argparse.ArgumentParser(prog="python -m vasa_jax.synth.person.picture")
    verbs = parser.add_subparsers(dest="verb", required=True)
    stills = verbs.add_parser("stills", help="pictures with truth, one npz per identity")
    stills.add_argument("out")
    stills.add_argument("--identities", type=int, default=300)
    stills.add_argument("--frames", type=int, default=10)
    stills.add_argument("--size", type=int, default=256)
    stills.add_argument("--first", type=int, default=0, help="seed of the first identity")
    stills.add_argument("--head", default=None, help="facekit.npz; without it a simple head")
    portrait = verbs.add_parser("portrait", help="one studio portrait as PNG")
    portrait.add_argument("out")
    portrait.add_argument("--seed", type=int, default=1002)
    portrait.add_argument("--size", type=int, default=512)
    portrait.add_argument("--head", default=None, help="facekit.npz; without it a simple head")
    args = parser.parse_args(argv)
    if args.verb == "portrait":
        from vasa_jax.io.image import write_image

        write_image(args.out, studio_portrait(args.seed, load_mesh_head(args.head), args.size))
        return
    write_stills(
        args.out,
        identities=args.identities,
        frames=args.frames,
        size=args.size,
        head_path=args.head,
        first=args.first,
    )


if __name__ == "__main__":
    main()
