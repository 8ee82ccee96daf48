"""Stage-1 examples: pairs of pictures of one person with their place in the head model.

Pairs are drawn from face files (``data/face_files.py``), which lie in one folder per source:
``synthetic``, ``portraits``, ``video``; a source may also be a folder of clips that ``vasa-jax
prepare`` made (``data/clips.py``). A file right in a source's folder is a person of its own;
files in a folder below it, to any depth, are all of the person that this folder is named after,
and the same name in two sources is the same person. People, not files, are neighbours in a batch,
and are held out.

    python -m vasa_jax.data.faces OUT --head HEAD.npz --stills DIR --portraits DIR --video DIR

takes that order from the folders it is given: DIR/anna/*.mp4 are clips of Anna.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.core.arkit import EXPRESSION
from vasa_jax.core.errors import UserError
from vasa_jax.data.clips import ClipFolder, ClipName
from vasa_jax.data.face_files import (
    FORMAT,
    SIZE,
    from_portrait,
    from_stills,
    from_video,
    read_face_file,
)
from vasa_jax.data.folders import (
    PICTURE_ENDINGS,
    VIDEO_ENDINGS,
    LeftOut,
    data_folder,
    finished_files,
    made_from,
    media_files,
    one_line_errors,
    person_of,
)
from vasa_jax.data.records import ABOUT
from vasa_jax.face.head import head as heads
from vasa_jax.face.head.head import Head
from vasa_jax.io.atomic import replacing

EXAMPLE_PORTRAIT = Path(__file__).parents[1] / "assets" / "example" / "portrait.png"
Item = Path | ClipName  # a face file, or a clip of a folder of records
TRIES = 64  # draws by share of a person who is not the neighbour, before anybody else will do


@dataclasses.dataclass(frozen=True, kw_only=True)
class FacePairsConfig:
    """Where face files lie and how pairs are drawn from them."""

    folder: str = "example"  # one folder per source; "example": the bundled portrait; $NAME works
    size: int = SIZE  # pictures are reduced to this side
    shares: tuple[tuple[str, float], ...] = (
        ("synthetic", 0.55),
        ("portraits", 0.25),
        ("video", 0.20),
    )  # of the sources; each that is named must have files ("example" has its own)
    # Last people of each source, at most half, for evaluation; 0: nobody. Where a folder of clips
    # has a list of its own (``vasa-jax prepare split``), that counts.
    held_out: int = 12
    people: int = 0  # people of each source that are used, the first ones; 0: all
    self_pairs: float = 0.06  # source and target the same picture: copy what need not change
    identity_noise: float = 0.2  # sigmas, on rendered people: a fit is never exact
    expression_noise: float = 0.04
    pose_noise_deg: float = 0.6
    camera: float = 1.0  # strength of the random gains and gammas, one for both pictures


def faces_folder(cfg: FacePairsConfig) -> Path:
    """The folder with environment variables filled in; configs and releases keep the name.

    Raises UserError when one of them is not set.
    """
    return data_folder(cfg.folder, "data.folder")


def example_head() -> Head:
    """The reduced head of the bundled release."""
    from vasa_jax.checkpoint.release import load_release

    return heads.head_from_arrays(load_release("lite").params["head"])


@functools.cache  # where nothing is kept between runs, then at least within one
def example_faces(size: int = SIZE) -> Path:
    """Face files of the bundled portrait alone, made once per user: for smoke runs and tests.

    Those of ``SIZE`` px serve every size that divides it.
    """
    import jax

    from vasa_jax.face.warp.autoencoder import FaceAutoencoder, FaceConfig
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
    """Pairs drawn from face files; batch ``n`` is a pure function of (seed, n).

    ``held_out`` asks for the people that training does not see, or where nobody is held out (one
    person alone, or ``cfg.held_out`` is 0) for those of training. The only person of a source is
    never held out.
    """

    def __init__(self, cfg: FacePairsConfig, *, held_out: bool = False):
        self.cfg = cfg
        self.person: dict[Item, str] = {}
        sources = _people_of_sources(cfg)
        found = [(share, people) for share, people, _ in sources]
        self._clips = {clips.folder: clips for _, _, clips in sources if clips is not None}
        needed = {name for _, people in found if len(people) == 1 for name in people}
        kept_back: set[str] = set()
        for _, people, clips in sources:
            listed = None if clips is None else clips.held_out
            kept_back |= set(_last(people, cfg.held_out, needed)) if listed is None else listed
        wanted = [
            (share, {n: f for n, f in people.items() if (n in kept_back) == held_out})
            for share, people in found
        ]
        if not any(people for _, people in wanted):
            wanted = found
        elif not held_out and not all(people for _, people in wanted):
            raise UserError(
                "the people of one source of data.shares are all held out of another; lower "
                f"data.held_out ({cfg.held_out}) or leave that source out"
            )
        self.sources: list[tuple[float, list[Item]]] = []
        self._files: list[list[list[Item]]] = []  # of each source, of each person
        for share, people in wanted:
            if people:
                self._files.append(list(people.values()))
                self.sources.append((share, [f for files in people.values() for f in files]))
                self.person |= {f: name for name, files in people.items() for f in files}
        self._cache: dict[Path, dict[str, np.ndarray]] = {}

    def _read(self, path: Item) -> dict[str, Any]:
        if isinstance(path, ClipName):  # as it is drawn: clips are many
            return _of_size(self._clips[path.folder].read(path), self.cfg.size, path.name)
        if path not in self._cache:
            if len(self._cache) > 800:
                self._cache.pop(next(iter(self._cache)))
            self._cache[path] = _of_size(read_face_file(path), self.cfg.size, path)
        return self._cache[path]

    def people(self, rng: np.random.Generator, count: int, parts: int = 1) -> list[Item]:
        """Files of a batch; neighbours in it, the last and the first too, are different people.

        Losses across identities compare each pair with the next one (``train/passes.py``). With
        ``parts`` microbatches, rows i, i + parts, ... (``train/optim.py``), this holds in each.
        """
        rings = [self._ring(rng, len(range(i, count, parts))) for i in range(parts)]
        return [rings[row % parts][row // parts] for row in range(count)]

    def _ring(self, rng: np.random.Generator, count: int) -> list[Item]:
        total = len(set(self.person.values()))
        drawn: list[Item] = []
        while len(drawn) < count:
            last = len(drawn) == count - 1
            # Two people cannot close a ring of odd length: then the last stays as it is.
            ring = drawn[-1:] + (drawn[:1] if last and total > 2 else [])
            taken = {self.person[path] for path in ring} if total > 1 else set()
            drawn.append(self._draw(rng, taken))
        return drawn

    def _draw(self, rng: np.random.Generator, taken: set[str]) -> Item:
        """A file of somebody who is not taken: a source by its share, a person, a file."""
        shares = np.array([s for s, _ in self.sources])
        for _ in range(TRIES):
            people = self._files[rng.choice(len(shares), p=shares / shares.sum())]
            files = people[rng.integers(len(people))]
            path = files[rng.integers(len(files))] if len(files) > 1 else files[0]
            if self.person[path] not in taken:
                return path
        free = [path for path, name in self.person.items() if name not in taken]
        return free[rng.integers(len(free))]

    def pair(self, rng: np.random.Generator, path: Item) -> dict[str, np.ndarray]:
        """One example: source and target picture of the person in ``path`` with their geometry."""
        c = self.cfg
        f = self._read(path)
        t = rng.choice(np.flatnonzero(f["target"]))
        s = t if rng.uniform() < c.self_pairs else rng.integers(len(f["images"]))
        identity, motion = f["identity"].copy(), f["motion"][s].copy()
        filmed = isinstance(path, ClipName) or "video" in str(path.parent)
        rendered = f["target"].all() and not filmed
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
        self, seed: int, start_step: int, batch: int, rows: slice | None = None, parts: int = 1
    ) -> Iterator[dict[str, np.ndarray]]:
        """Endless batches from ``start_step`` on, or some ``rows`` of each.

        Row ``r`` of step ``n`` is a pure function of (seed, n, r), whichever rows are made with it.
        ``parts``: see ``people``.
        """
        step = start_step
        while True:
            people = self.people(np.random.default_rng((seed, step, 3)), batch, parts)
            made = []
            for r in range(batch)[rows or slice(None)]:
                made.append(self.pair(np.random.default_rng((seed, step, 2, r)), people[r]))
            yield {k: np.stack([row[k] for row in made]) for k in made[0]}
            step += 1


def _of_size(arrays: dict[str, Any], size: int, name: object) -> dict[str, Any]:
    """Arrays whose pictures can be reduced to ``size``. Raises UserError for others."""
    side = arrays["images"].shape[1]
    if side % size:
        raise UserError(
            f"data.size must divide the {side} px of {name}, not be {size}; make it of another "
            "size (`python -m vasa_jax.data.faces --size`, `vasa-jax prepare --set size=...`)"
        )
    return arrays


def _people_of_sources(
    cfg: FacePairsConfig,
) -> list[tuple[float, dict[str, list[Item]], ClipFolder | None]]:
    """Share of each source with its people and their files, in order, and its folder of clips
    where ``vasa-jax prepare`` made it.

    Raises UserError when a source has no files: leaving it out would change the other shares.
    """
    example = cfg.folder == "example"
    root = example_faces(cfg.size) if example else faces_folder(cfg)
    shares = (("portraits", 1.0),) if example else cfg.shares
    found = []
    for source, share in shares:
        if share <= 0:
            continue
        folder = root / source
        people: dict[str, list[Item]] = {}
        clips = ClipFolder(folder) if (folder / ABOUT).exists() else None
        if clips is not None:
            people |= clips.people()
        else:
            for path in finished_files(folder, below=True):
                name = person_of(path, folder) or f"{source}/{path.name}"
                people.setdefault(name, []).append(path)
        if not people:
            raise UserError(
                f"no face files in {folder.absolute()}, of which data.shares wants {share:g}: make "
                "them with `python -m vasa_jax.data.faces` (see configs/face_256_lite.py), or say "
                "what there is, as in --set 'data.shares=[[\"synthetic\", 1.0]]'"
            )
        chosen = list(people)[: cfg.people or None]
        found.append((share, {name: people[name] for name in chosen}, clips))
    if not found:
        raise UserError("data.shares names no source with a share above 0")
    return found


def _last(people: dict[str, list[Item]], count: int, needed: set[str]) -> list[str]:
    """The last people of a source that are held out: at most half of them, none of the needed."""
    free = [name for name in people if name not in needed]
    return free[max(len(free) - min(count, len(people) // 2), 0) :]


def keep_head(head: Path, folder: Path) -> None:
    """Copies the head to ``folder``/head.npz, where training looks for it.

    Raises:
      UserError: the folder's files were made with another head.
    """
    kept, content = folder / "head.npz", head.read_bytes()
    if kept.exists() and kept.read_bytes() != content:
        raise UserError(f"the files in {folder} were made with another head; choose another folder")
    with replacing(kept) as part:
        part.write_bytes(content)


@one_line_errors
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
    head = heads.load_head(args.head)
    if not head.landmark_trust.any():
        raise UserError(f"{args.head} knows no landmarks: tools/make_head.py --stills STILLS")
    keep_head(args.head, args.out)
    left_out, tried = LeftOut(), 0
    if args.stills:
        with np.load(args.head) as z:
            source_vertex = z["source_vertex"]
        tried += make_stills(args.out, args.stills, head, source_vertex, left_out,
                             size=args.size, limit=args.limit)  # fmt: skip
    if args.portraits:
        tried += make_portraits(args.out, args.portraits, head, left_out,
                                size=args.size, limit=args.limit)  # fmt: skip
    if args.video:
        tried += make_videos(args.out, args.video, head, left_out,
                             size=args.size, limit=args.limit)  # fmt: skip
    left_out.tell(tried)


def make_stills(
    out: Path, folder: Path, head: Head, source_vertex: np.ndarray, left_out: LeftOut, *,
    size: int = SIZE, limit: int | None = None,
) -> int:  # fmt: skip
    """Face files of rendered people in ``out``/synthetic; returns how many files there were."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    found = finished_files(folder)[:limit]
    if not found:
        raise UserError(
            f"{folder} holds no stills of `python -m vasa_jax.synth.person.picture stills`"
        )
    sides = []
    for path, made in _missing(found, folder, out / "synthetic"):
        try:
            sides.append(from_stills(head, source_vertex, path, made, size=size))
        except UserError as error:
            left_out.add(path, error)
    if sides and np.median(sides) < size:
        print(f"stills were enlarged: their heads fill {np.median(sides):.0f} px, not {size}; "
              f"render them with --size {2 * size}", flush=True)  # fmt: skip
    return len(found)


def make_portraits(
    out: Path, folder: Path, head: Head, left_out: LeftOut, *,
    size: int = SIZE, limit: int | None = None,
) -> int:  # fmt: skip
    """Face files of photographs in ``out``/portraits; returns how many photographs there were."""
    import jax

    from vasa_jax.face.warp.autoencoder import FaceAutoencoder, FaceConfig
    from vasa_jax.io.image import read_image

    found = media_files(folder, PICTURE_ENDINGS, "photographs")[:limit]
    model = FaceAutoencoder(FaceConfig(size=size), head)
    params = model.init(jax.random.key(0))
    for path, made in _missing(found, folder, out / "portraits"):
        try:
            picture = read_image(path)
        except UserError as error:
            left_out.add(path, error)
            continue
        if not from_portrait(model, params, picture, made):
            left_out.add(path, "no face was found that the head model fits")
    return len(found)


def make_videos(
    out: Path, folder: Path, head: Head, left_out: LeftOut, *,
    size: int = SIZE, limit: int | None = None,
) -> int:  # fmt: skip
    """Face files of clips in ``out``/video; returns how many clips there were."""
    from vasa_jax.io.video import read_video

    found = media_files(folder, VIDEO_ENDINGS, "videos")[:limit]
    for path, made in _missing(found, folder, out / "video"):
        try:
            frames = list(read_video(path))
        except UserError as error:
            left_out.add(path, error)
            continue
        if not from_video(head, frames, made, size=size):
            left_out.add(path, "a face was found in too few frames")
    return len(found)


def _missing(found: list[Path], folder: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Sources with the face files that are not made of them yet, told one by one."""
    for n, path in enumerate(found):
        if path.suffix == ".npz":  # stills: their name is as good for what is made of them
            made = out / path.relative_to(folder)
        else:
            made = made_from(path, folder, out)
        if not made.exists():
            print(f"{out.name} {n + 1}/{len(found)} {path.relative_to(folder)}", flush=True)
            yield path, made


if __name__ == "__main__":
    main()
