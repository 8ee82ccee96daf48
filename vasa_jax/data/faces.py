"""Stage-1 examples: pairs of pictures of one person with their place in the head model.

A *face file* (.npz) holds one person in one crop: ``images`` (F, 256, 256, 3) uint8, ``motion``
(F, 54) absolute with zero translation, ``placement`` (F, 3), ``identity`` (I,), ``shape`` (V, 3)
cm as in ``FaceFit``, and ``target`` (F,) bool: whether the picture may be asked for (pictures that
we warped ourselves may only be the source). Three makers, one format:

* ``from_stills``: rendered people (``vasa_jax.data.synthetic stills``), exact geometry;
* ``from_video``: a real clip, tracked and fitted;
* ``from_portrait``: a real photograph, and copies of it moved by the analytic flow as sources, so
  that the real picture, with real skin, hair and camera, is what has to be produced.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.places import typed
from vasa_jax.core.types import EXPRESSION, MOTION_DIM, MOTION_INDEX
from vasa_jax.face import head as heads
from vasa_jax.face.fit import LID_PAIRS
from vasa_jax.face.head import Head

FORMAT = 2  # of face files; named in caches of them
SIZE = 256  # px of a face file unless made with another --size
BLINKS_KEPT = 4  # frames of a clip with shut eyes
FIT_OF_SHUT = 0.62  # what landmarks of shut eyes are fitted with; detectors see them half open
SHUT_SHARE = 0.6  # of the usual distance between the lids; a detector never sees it at zero
EXAMPLE_PORTRAIT = Path(__file__).parents[1] / "assets" / "example" / "portrait.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FacePairsConfig:
    """Where face files lie and how pairs are drawn from them."""

    folder: str = "example"  # one folder per source; "example": the bundled portrait; $NAME works
    size: int = SIZE  # pictures are reduced to this side
    shares: tuple[tuple[str, float], ...] = (
        ("synthetic", 0.55),
        ("portraits", 0.25),
        ("video", 0.20),
    )
    held_out: int = 12  # last files of each source, for evaluation; 0: those of training
    people: int = 0  # files of each source that are used, the first ones; 0: all
    self_pairs: float = 0.06  # source and target the same picture: copy what need not change
    identity_noise: float = 0.2  # sigmas, on rendered people: a fit is never exact
    expression_noise: float = 0.04
    pose_noise_deg: float = 0.6
    camera: float = 1.0  # strength of the random gains and gammas, one for both pictures


def faces_folder(cfg: FacePairsConfig) -> Path:
    """The folder with environment variables filled in; configs and releases keep the name."""
    return typed(os.path.expandvars(cfg.folder))


def write_face_file(path: Path, **arrays: np.ndarray) -> None:
    """Writes one face file atomically."""
    temporary = path.with_name(path.name + ".tmp.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]  # no key is called allow_pickle
    temporary.replace(path)


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
) -> None:
    """Converts one file of rendered stills; all are cut by the crop of the first, the portrait."""
    import jax.numpy as jnp

    from vasa_jax.face.align import crop_from_landmarks, extract, to_crop

    with np.load(path) as z:
        images, motion, screen = z["images"], z["motion"].copy(), z["screen"].astype(np.float64)
        identity = z["identity"][: head.identity.shape[0]].astype(np.float32)
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

    from vasa_jax.face.align import crop_from_landmarks, extract, to_crop
    from vasa_jax.face.autoencoder import from_uint8
    from vasa_jax.face.finder import FaceFinder
    from vasa_jax.face.fit import fit_portrait

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
    appearance = model.encode_appearance(params, from_uint8(picture), fit)
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


def from_video(
    head: Head, frames: list[np.ndarray], out: Path, *, keep: int = 10, size: int = SIZE
) -> bool:
    """Clip of one person -> face file with ``keep`` frames spread over mouth openings.

    Up to BLINKS_KEPT frames with shut lids come on top; any other choice would hardly have one.
    """
    from vasa_jax.face.align import crop_from_landmarks, extract, to_crop
    from vasa_jax.face.finder import FaceTracker
    from vasa_jax.face.fit import fit_portrait, fit_sequence

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
    motion = fit_sequence(head, local, fit)
    blinks = motion[:, EXPRESSION][:, list(heads.BLINKS)]
    motion[:, [EXPRESSION.start + i for i in heads.BLINKS]] = (blinks / FIT_OF_SHUT).clip(0, 1)
    # Evenly spread over the ranking of mouth openings, so that open mouths are not rare.
    order = np.argsort(gap)[np.linspace(0, len(gap) - 1, keep).round().astype(int)]
    order = np.concatenate([order, _shut_eyes(local)])
    images = np.stack([extract(frames[good[i]], crop, size) for i in order])
    placement = np.stack(
        [np.asarray(heads.move_placement(fit.placement, m), np.float32) for m in motion[order]]
    )
    chosen = motion[order].copy()
    chosen[:, 3:7] = 0
    write_face_file(
        out, images=images, motion=chosen, placement=placement, identity=fit.identity,
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


def example_head() -> Head:
    """The reduced head of the bundled release."""
    from vasa_jax.checkpoint.release import load_release

    return heads.head_from_arrays(load_release("lite").params["head"])


def example_faces(size: int = SIZE) -> Path:
    """Face files of the bundled portrait alone, made once per user: for smoke runs and tests.

    Those of ``SIZE`` px serve every size that divides it.
    """
    import jax

    from vasa_jax.face.autoencoder import FaceAutoencoder, FaceConfig
    from vasa_jax.io.fetch import cache_folder
    from vasa_jax.io.image import read_image

    size = SIZE if SIZE % size == 0 else size
    name = f"example_faces_{FORMAT}_{size}"
    root = cache_folder() / name
    out = root / "portraits" / "example.npz"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        model = FaceAutoencoder(FaceConfig(size=size), example_head())
        params = model.init(jax.random.key(0))
        if not from_portrait(model, params, read_image(EXAMPLE_PORTRAIT), out):
            raise UserError("the bundled portrait was not recognised as a face; reinstall vasa-jax")
    return root


class FacePairs:
    """Pairs drawn from face files; batch ``n`` is a pure function of (seed, n)."""

    def __init__(self, cfg: FacePairsConfig, *, held_out: bool = False):
        self.cfg = cfg
        self.sources: list[tuple[float, list[Path]]] = []
        root = example_faces(cfg.size) if cfg.folder == "example" else faces_folder(cfg)
        for name, share in cfg.shares:
            files = sorted((root / name).glob("*.npz"))[: cfg.people or None]
            split = len(files) - cfg.held_out
            part = (
                (files[split:] if held_out else files[:split]) if 0 < split < len(files) else files
            )
            if part and share > 0:
                self.sources.append((share, part))
        if not self.sources:
            raise UserError(
                f"no face files under {root.resolve()}: make them with "
                "`python -m vasa_jax.data.faces` (see configs/face_256_lite.py)"
            )
        self._cache: dict[Path, dict[str, np.ndarray]] = {}

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        if path not in self._cache:
            if len(self._cache) > 800:
                self._cache.pop(next(iter(self._cache)))
            with np.load(path) as z:
                f = {k: z[k] for k in z.files}
            side = f["images"].shape[1]
            if side % self.cfg.size:
                raise UserError(
                    f"data.size must divide the {side} px of {path}, not be {self.cfg.size}; "
                    "`python -m vasa_jax.data.faces --size` makes files of another size"
                )
            self._cache[path] = f
        return self._cache[path]

    def people(self, rng: np.random.Generator, count: int) -> list[Path]:
        """Files of a batch; neighbours in it, the last and the first too, are different people.

        Losses across identities compare each pair with the next one (``train/passes.py``).
        """
        shares = np.array([s for s, _ in self.sources])
        total = sum(len(files) for _, files in self.sources)
        drawn: list[Path] = []
        while len(drawn) < count:
            files = self.sources[rng.choice(len(shares), p=shares / shares.sum())][1]
            path = files[rng.integers(len(files))]
            last = len(drawn) == count - 1
            # Two people cannot close a ring of odd length: then the last stays as it is.
            ring = drawn[-1:] + (drawn[:1] if last and total > 2 else [])
            if path not in ring or total == 1:
                drawn.append(path)
        return drawn

    def pair(self, rng: np.random.Generator, path: Path) -> dict[str, np.ndarray]:
        """One example: source and target picture of the person in ``path`` with their geometry."""
        c = self.cfg
        f = self._read(path)
        t = rng.choice(np.flatnonzero(f["target"]))
        s = t if rng.uniform() < c.self_pairs else rng.integers(len(f["images"]))
        identity, motion = f["identity"].copy(), f["motion"][s].copy()
        rendered = f["target"].all() and "video" not in str(path.parent)
        if rendered:
            identity += rng.normal(size=identity.shape).astype(np.float32) * c.identity_noise
            motion[EXPRESSION] += (
                rng.normal(size=len(motion[EXPRESSION])).astype(np.float32) * c.expression_noise
            )
            motion[EXPRESSION] = motion[EXPRESSION].clip(0, 1.1)
            motion[:3] += rng.normal(size=3).astype(np.float32) * np.radians(c.pose_noise_deg)
        # One camera for both pictures: gain per channel, gamma, contrast.
        gain = np.exp(rng.normal(size=3) * 0.08 * c.camera).astype(np.float32)
        gamma = np.float32(np.exp(rng.normal() * 0.12 * c.camera))
        ramp = (np.arange(256, dtype=np.float32) / 255.0) ** gamma
        table = np.clip(ramp[:, None] * gain[None] * 255.0, 0, 255).astype(np.uint8)

        def develop(image: np.ndarray) -> np.ndarray:
            k = image.shape[0] // c.size
            if k > 1:
                image = image.reshape(c.size, k, c.size, k, 3).mean((1, 3)).astype(np.uint8)
            return np.stack([table[image[..., k], k] for k in range(3)], -1)

        if "shape" not in f:
            raise UserError(
                "these face files lack the shape of the face: make them again with "
                "`python -m vasa_jax.data.faces` (see configs/face_256_lite.py)"
            )
        return {
            "source": develop(f["images"][s]), "target": develop(f["images"][t]),
            "identity": identity.astype(np.float32), "source_motion": motion,
            "source_placement": f["placement"][s], "target_motion": f["motion"][t],
            "target_placement": f["placement"][t], "shape": f["shape"].astype(np.float32),
        }  # fmt: skip

    def batches(
        self, seed: int, start_step: int, batch: int, rows: slice | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Endless batches from ``start_step`` on, or some ``rows`` of each.

        Row ``r`` of step ``n`` is a pure function of (seed, n, r), whichever rows are made with it.
        """
        step = start_step
        while True:
            people = self.people(np.random.default_rng((seed, step, 3)), batch)
            made = []
            for r in range(batch)[rows or slice(None)]:
                made.append(self.pair(np.random.default_rng((seed, step, 2, r)), people[r]))
            yield {k: np.stack([row[k] for row in made]) for k in made[0]}
            step += 1


def keep_head(head: Path, folder: Path) -> None:
    """Copies the head to ``folder``/head.npz, where training looks for it.

    Raises:
      UserError: the folder's files were made with another head.
    """
    kept, content = folder / "head.npz", head.read_bytes()
    if kept.exists() and kept.read_bytes() != content:
        raise UserError(f"the files in {folder} were made with another head; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(".part")
    part.write_bytes(content)
    part.replace(kept)


def main() -> None:
    """Makes face files: ``python -m vasa_jax.data.faces OUT --head HEAD.npz --stills DIR ...``."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m vasa_jax.data.faces",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--head", type=Path, required=True, help="head .npz of tools/make_head.py")
    parser.add_argument("--stills", type=Path, help="folder of rendered stills")
    parser.add_argument("--video", type=Path, help="folder of clips of talking people")
    parser.add_argument("--portraits", type=Path, help="folder of photographs")
    parser.add_argument("--limit", type=int, default=10**9, help="files per source")
    parser.add_argument(
        "--size", type=int, default=SIZE, help=f"px of the pictures (default {SIZE}); render "
        "stills at twice that, since they are cut to the head"
    )  # fmt: skip
    args = parser.parse_args()
    try:
        head = heads.load_head(args.head)
        if not head.landmark_trust.any():
            raise UserError(f"{args.head} knows no landmarks: tools/make_head.py --stills STILLS")
        keep_head(args.head, args.out)
    except UserError as error:
        parser.error(str(error))
    with np.load(args.head) as z:
        source_vertex = z["source_vertex"]

    def jobs(name: str, folder: Path | None, patterns: tuple[str, ...]):
        if folder is None:
            return
        target = args.out / name
        target.mkdir(parents=True, exist_ok=True)
        files = sorted(p for pattern in patterns for p in folder.glob(pattern))[: args.limit]
        for n, path in enumerate(files):
            out = target / f"{path.stem}.npz"
            if not out.exists():
                print(f"{name} {n + 1}/{len(files)} {path.name}", flush=True)
                yield path, out

    for path, out in jobs("synthetic", args.stills, ("*.npz",)):
        from_stills(head, source_vertex, path, out, size=args.size)
    if args.portraits:
        import jax

        from vasa_jax.face.autoencoder import FaceAutoencoder, FaceConfig
        from vasa_jax.io.image import read_image

        model = FaceAutoencoder(FaceConfig(size=args.size), head)
        params = model.init(jax.random.key(0))
        for path, out in jobs("portraits", args.portraits, ("*.jpg", "*.png", "*.webp")):
            if not from_portrait(model, params, read_image(path), out):
                print(f"  left out: {path.name}", flush=True)
    for path, out in jobs("video", args.video, ("*.mp4",)):
        from vasa_jax.io.video import read_video

        if not from_video(head, list(read_video(path)), out, size=args.size):
            print(f"  left out: {path.name}", flush=True)


if __name__ == "__main__":
    main()
