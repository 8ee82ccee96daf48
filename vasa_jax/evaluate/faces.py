"""The work behind ``vasa-jax evaluate face``: pairs, probes and clips, one kept part at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vasa_jax.checkpoint.release import Release
from vasa_jax.core.arkit import EXPRESSION, GAZE
from vasa_jax.core.errors import UserError
from vasa_jax.evaluate import swaps as reenactment
from vasa_jax.face.find import align
from vasa_jax.face.find.finder import FaceFinder
from vasa_jax.face.head.fit import FaceFit, fit_sequence
from vasa_jax.face.head.head import head_from_arrays, move_placement
from vasa_jax.face.swap import Reenactor, reenactor_of
from vasa_jax.io.image import contact_sheet, read_image, write_image
from vasa_jax.io.parts import Parts
from vasa_jax.io.video import read_video
from vasa_jax.metrics import identity, image, probes
from vasa_jax.synth.person import swaps
from vasa_jax.synth.person.mesh_head import MeshHead

SHEET_PAIRS = 3
CLIP_STEP = 12  # video frames between two drivers: about half a second
DYNAMICS = slice(GAZE.start, EXPRESSION.stop)
SHOWN = ("truth", "model", "exact", "warp")
LABELS = {
    "self": "self: another state of A",
    "pose": "pose: of the driver; expression and gaze of the source",
    "dynamics": "dynamics: expression and gaze of the driver; pose of the source",
    "both": "both: pose, expression and gaze of the driver",
}

# Absolute motion (54,) and placement (3,); of a full face, as read from a picture, its code, too.
Motion = tuple[np.ndarray, ...]


class Question(NamedTuple):
    """One swap, as the model sees it and as it is."""

    case: str
    seen: Motion  # as read from the pictures
    true: Motion  # as rendered
    truth: np.ndarray  # (Y, X, 3) uint8


Method = Callable[[Question], np.ndarray]
# Source picture with its true parameters, and how its face was read -> methods by name.
Prepare = Callable[[swaps.Picture, FaceFit], dict[str, Method]]


class FaceRuns:
    """A release, people nobody was trained on, and annotators."""

    def __init__(
        self,
        release: Release,
        head: MeshHead,
        settings: Any,
        kept: Parts,
        *,
        exact: bool,
        prepare: Prepare | None = None,
    ):
        """``exact``: the engine's parameters mean the same to the release's head model.

        ``prepare`` stands for the release's methods; a test puts its own here.
        """
        for name in ("face", "head"):
            if name not in release.params:
                raise UserError(f"release {release.name} has no {name} weights; build it again")
        table = release.config.get("face")
        if table is None:
            raise UserError("the release's config.json has no 'face' part")
        self.reenactor: Any = reenactor_of(
            table, release.params["face"], head_from_arrays(release.params["head"])
        )
        self.trust = np.asarray(self.reenactor.head.landmark_trust)
        self.head, self.settings, self.kept, self.exact = head, settings, kept, exact
        self.prepare = prepare or self.methods
        self.finder = FaceFinder()
        self.judges = {name: identity.load_judge(name) for name in settings.judges}
        self.lpips = image.load_lpips()
        self.left_out: list[str] = []
        self.people = [
            swaps.held_out_person(settings.seed, i, head)
            for i in _track(range(settings.identities), "people")
        ]

    def everything(
        self, count: int, clips: list[Path], frames: int, states: int, *, sheet: bool
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[list[np.ndarray]]]:
        """Pairs (real clips among them), probes and the sheet's rows."""
        pairs, examples = [], []
        for i in _track(range(count), "pairs"):
            pair, rows = self.pair(i, sheet=sheet and i < SHEET_PAIRS)
            pairs += [pair] if pair else []
            examples += rows
        real: list[dict[str, Any]] = []
        names = sorted({_person(c) for c in clips})
        for clip in _track(clips, "real clips"):
            # Nameless: people on film did not ask to be in a record.
            who = f"clip person {names.index(_person(clip))}"
            make = functools.partial(self.clip, clip, who, frames)
            seen = self.kept.part(f"clip_{clip.name}_{frames}", make)
            real += seen
            self.left_out += [] if seen else [who]
        parts = [
            self.kept.part(f"codes_{i:05d}_{states}", functools.partial(self.states, i, states))
            for i in _track(range(self.settings.identities if states else 0), "codes")
        ]
        return pairs + real, self.probes(parts), examples

    # ------------------------------------------------------------------------------- swaps

    def methods(self, source: swaps.Picture, fit: FaceFit) -> dict[str, Method]:
        """Copying, moving by geometry, the model from pictures, the model from true parameters;
        of a full face the first and the third."""
        engine = self.reenactor
        seen = engine.source(source.image, fit)
        out: dict[str, Method] = {
            "copy": lambda q: source.image,
            "model": lambda q: engine.render(seen, *q.seen),
        }
        if isinstance(engine, Reenactor):
            lite = engine
            out["warp"] = lambda q: lite.warp(seen, *q.seen)
            if self.exact:
                own = lite.source(source.image, self._true_fit(source))
                out["exact"] = lambda q: lite.render(own, *q.true)
        return {name: out[name] for name in engine.methods if name in out}

    def _true_fit(self, picture: swaps.Picture) -> FaceFit:
        modes = self.reenactor.head.identity.shape[0]
        return picture.fit._replace(identity=picture.fit.identity[:modes])

    def _parameters(self, picture: swaps.Picture) -> reenactment.Reading:
        points = self.reenactor.landmarks(self._true_fit(picture)) if self.exact else None
        return reenactment.known(picture.rotation, picture.gaze, points)

    def pair(
        self, index: int, *, sheet: bool = False
    ) -> tuple[dict[str, Any] | None, list[list[np.ndarray]]]:
        """Measures of one pair, and its rows of the sheet; None where a source shows no face."""
        name, picture = f"pair_{index:05d}", f"pair_{index:05d}.png"
        folder = self.kept.folder
        if sheet and not self.kept.has(picture):
            made, rows = self._pair(index)
            if folder is not None and rows:
                grid = np.concatenate([np.concatenate(row, 1) for row in rows])
                write_image(folder / picture, grid)
            record = self.kept.part(name, lambda: made)
        elif sheet and folder is not None:
            grid = read_image(folder / picture)
            n = self.reenactor.size
            rows = [
                [grid[y : y + n, x : x + n] for x in range(0, grid.shape[1], n)]
                for y in range(0, grid.shape[0], n)
            ]
            record = self.kept.part(name, lambda: self._pair(index)[0])
        else:
            record, rows = self.kept.part(name, lambda: self._pair(index)[0]), []
        if record is None:
            self.left_out.append(name)
        return record, rows

    def _pair(self, index: int) -> tuple[dict[str, Any] | None, list[list[np.ndarray]]]:
        s = self.settings
        pair = swaps.draw_pair(
            s.seed, index, self.people, self.head, portrait=s.source == "portrait"
        )
        a, b = self.people[pair.a], self.people[pair.b]
        size = self.reenactor.size

        def draw(person: Any, state: swaps.State) -> swaps.Picture:
            return swaps.render(person, state, head=self.head, size=size)

        given = {"source": draw(a, pair.source), "other": draw(a, pair.other),
                 "driver": draw(b, pair.driver)}  # fmt: skip
        shots = dict(
            zip(given, reenactment.shots([p.image for p in given.values()], self.finder,
                                         self.judges), strict=True)
        )  # fmt: skip
        if not all(shot.found for shot in shots.values()):
            return None, []
        fits = {
            k: self.reenactor.read(shot.reading.landmarks, shot.image) for k, shot in shots.items()
        }
        methods = self.prepare(given["source"], fits["source"])
        mix = functools.partial(self.reenactor.swap, fits["source"])
        truths, outputs, rows = {}, {}, []
        for case, state in swaps.answers(pair).items():
            pose, dynamics = swaps.CASES[case]
            truths[case] = given["other"] if case == "self" else draw(a, state)
            question = Question(
                case, mix(fits[pose], fits[dynamics]), (state.motion, truths[case].fit.placement),
                truths[case].image,
            )  # fmt: skip
            outputs[case] = {name: method(question) for name, method in methods.items()}
            shown = {"truth": truths[case].image, **outputs[case]}
            driver = given["other" if case == "self" else "driver"].image
            rows.append([given["source"].image, driver, *(shown[k] for k in SHOWN if k in shown)])
        cases = {case: self._measure(case, truths[case], outputs[case], shots) for case in truths}
        agree = self._agree(given, fits, shots, methods)
        if agree:
            cases["agree"] = agree
        return {"person": pair.a, "driver": pair.b, "cases": cases}, rows

    def _measure(
        self,
        case: str,
        truth: swaps.Picture,
        outputs: dict[str, np.ndarray],
        shots: dict[str, reenactment.Shot],
    ) -> dict[str, dict[str, float]]:
        pictures = [truth.image, *outputs.values()]
        right, *seen = reenactment.shots(pictures, self.finder, self.judges)
        parameters = self._parameters(truth)
        return {
            name: reenactment.measure(
                shot, right, source=shots["source"],
                driver=None if case == "self" else shots["driver"], parameters=parameters,
                trust_L=self.trust, head_YX=truth.head, lpips=self.lpips,
            )
            for name, shot in zip((*outputs, "truth"), (*seen, right), strict=True)
        }  # fmt: skip

    def _agree(
        self,
        given: dict[str, swaps.Picture],
        fits: dict[str, FaceFit],
        shots: dict[str, reenactment.Shot],
        one: dict[str, Method],
    ) -> dict[str, dict[str, float]]:
        """Pairwise transfer (VASA-1 section 3.1): both ways must lead to the same picture.

        The dynamics of A's other picture put on the source, and the pose of the source put on the
        other picture.
        """
        two = self.prepare(given["other"], fits["other"])
        first, second = (
            Question("agree", goal, goal, given["other"].image)
            for goal in (
                self.reenactor.swap(fits[own], fits["source"], fits["other"])
                for own in ("source", "other")
            )
        )
        out: dict[str, dict[str, float]] = {}
        for name in ("copy", "warp", "model"):
            if name not in one:
                continue
            a, b = reenactment.shots([one[name](first), two[name](second)], self.finder,
                                     self.judges)  # fmt: skip
            out[name] = reenactment.measure(
                a, b, source=shots["source"], head_YX=given["source"].head, lpips=self.lpips
            )
        return out

    # -------------------------------------------------------------------------- real clips

    def clip(self, path: Path, who: str, count: int) -> list[dict[str, Any]]:
        """First frame as source, later ones as drivers and truth; nothing where no face is seen."""
        size, frames = self.reenactor.size, []
        for i, frame in enumerate(read_video(path)):
            if i % CLIP_STEP == 0:
                frames.append(frame)
            if len(frames) > count:
                break
        faces = self.finder.find(frames[0]) if len(frames) > 1 else []
        if not faces:
            return []
        crop = align.crop_from_landmarks(faces[0].landmarks)
        squares = [align.extract(frame, crop, size) for frame in frames]
        source, *drivers = reenactment.shots(squares, self.finder, self.judges)
        drivers = [d for d in drivers if d.found]
        if not source.found or not drivers:
            return []
        engine = self.reenactor
        fit = engine.read(source.reading.landmarks, source.image)
        points = np.stack([d.reading.landmarks for d in drivers]) / size
        full = np.concatenate([points, np.repeat(points[-1:], count - len(points), 0)])
        motions = fit_sequence(engine.head, full, fit)[: len(points)]
        encoded = engine.source(source.image, fit)
        found = []
        for driver, motion in zip(drivers, motions, strict=True):
            placement = np.asarray(move_placement(fit.placement, motion), np.float32)
            still = motion.copy()
            still[3:7] = 0
            outputs = {"copy": source.image}
            if isinstance(engine, Reenactor):
                outputs["warp"] = engine.warp(encoded, still, placement)
                outputs["model"] = engine.render(encoded, still, placement)
            else:
                code = engine.coded(fit._replace(motion=still, placement=placement), driver.image)
                outputs["model"] = engine.render(encoded, still, placement, code.code)
            seen = reenactment.shots(list(outputs.values()), self.finder, self.judges)
            rows = {
                name: reenactment.measure(shot, driver, source=source, lpips=self.lpips)
                for name, shot in zip(outputs, seen, strict=True)
            }
            found.append({"person": who, "cases": {"real": rows}})
        return found

    # ------------------------------------------------------------------------------ probes

    def states(self, number: int, count: int) -> dict[str, list[Any]]:
        """Codes and true values of one person in states whose pose and dynamics are independent."""
        s, person = self.settings, self.people[number]
        rng = np.random.default_rng([s.seed, number, 0x9B0])
        out: dict[str, list[Any]] = {}

        def add(**values: Any) -> None:
            for name, value in values.items():
                out.setdefault(name, []).append(np.asarray(value, np.float64).ravel().tolist())

        for _ in range(count):
            state = swaps.draw_state(rng, person, self.head, independent=True)
            picture = swaps.render(person, state, head=self.head, size=self.reenactor.size)
            (shot,) = reenactment.shots([picture.image], self.finder, self.judges)
            if not shot.found:
                continue
            fit = self.reenactor.read(shot.reading.landmarks, picture.image)
            encoded = self.reenactor.source(picture.image, fit)
            add(
                **self.reenactor.codes(encoded, fit, state.motion),
                weights=fit.motion[DYNAMICS], landmarks=shot.reading.landmarks[:, :2] / 100,
                pose=np.degrees(state.motion[:3]), dynamics=state.motion[DYNAMICS],
                **{f"judge_{name}": code for name, code in shot.codes.items()},
            )  # fmt: skip
        return out

    def probes(self, parts: list[dict[str, list[Any]]]) -> list[dict[str, Any]]:
        """One row per question and code; the last of each question is an upper reference."""
        parts = [p for p in parts if p]
        if not parts:
            return []
        table = {k: np.concatenate([np.array(p[k], np.float64) for p in parts]) for k in parts[0]}
        groups = np.concatenate([np.full(len(p["pose"]), i) for i, p in enumerate(parts)])
        seed = self.settings.seed
        best = next((k for k in table if k.startswith("judge_")), "z_id")
        rows: list[dict[str, Any]] = []

        def row(question: str, code: str, measure: str, found: dict[str, Any]) -> None:
            name = CODES.get(code, code.replace("judge_", "reference: "))
            rows.append({"question": question, "code": name, "measure": measure, **found})

        known = [code for code in CODES if code in table]
        for code in known:
            found = probes.ridge(table[code], table["pose"], groups, seed=seed)
            row("head pose", code, "R2, new people", found)
        of_person = [c for c in ("z_dyn", "z_dyn_true", "z_id") if c in table]
        for code in dict.fromkeys((*of_person, best)):
            found = probes.same_person(table[code], groups, seed=seed)
            row("same person?", code, "AUC, new people", found)
        for code in dict.fromkeys((*of_person, best)):
            found = probes.which_person(table[code], groups, seed=seed)
            row("which person?", code, "share, new states", found)
        for code in ("z_id", "z_dyn"):
            found = probes.ridge(table[code], table["dynamics"], groups, seed=seed)
            row("expression and gaze", code, "R2, new people", found)
        return rows

    # ------------------------------------------------------------------------------- sheet

    def write_sheet(self, path: str, rows: list[list[np.ndarray]]) -> None:
        """The first pairs: source, driver, truth and answers; rendered people only."""
        made = ("truth", *self.reenactor.methods)
        shown = [k for k in SHOWN if k in made and (self.exact or k != "exact")]
        labels = [LABELS[case] for _ in range(SHEET_PAIRS) for case in swaps.CASES]
        sheet = contact_sheet(rows, labels, columns=["source", "driver", *shown], cell=128)
        write_image(path, sheet)
        print(path)


CODES = {
    "z_dyn": "z_dyn from the picture",
    "weights": "  the 47 numbers it is made of",
    "z_dyn_true": "z_dyn of the true parameters",
    "z_id": "z_id from the picture",
    "landmarks": "reference: landmarks",
}


def _person(clip: Path) -> str:
    """Clips of one person share the name before the last underscore."""
    return clip.stem.rsplit("_", 1)[0]


def _track(items: Any, name: str) -> Iterator[Any]:
    """Items with a progress bar, where there is a terminal; nothing where there are no items."""
    from rich.progress import track

    yield from track(items, description=f"{name:<10}") if len(items) else ()
