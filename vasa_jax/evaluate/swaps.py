"""Did a face move as asked, and only as asked? Pictures against the picture that would be right.

Output and truth are read by the same annotators (``motion``, ``controls``: landmarks alone, not the
head model that renders), so their constant errors cancel in the first set of measures. The second
set, ``known_*``, compares readings with the parameters that a rendered truth was made from; the
reading of the true picture itself then shows what the annotators get wrong.

A pair is one source A and one driver B; intervals resample A's identities, since pairs of one
person are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vasa_jax.evaluate import controls, suite
from vasa_jax.face.head.fit import INNER_LIPS, OUTER_LIPS
from vasa_jax.metrics import image, motion

MOST_DB = 100.0  # stands for the infinite PSNR of equal pictures
SHUT = 0.13  # eye aspect ratio below which gaze is not defined
LIPS = list(INNER_LIPS + OUTER_LIPS)


class Measure(NamedTuple):
    """One line of the table; ``better`` is +1 or -1, 0 where neither end is good."""

    key: str
    text: str
    digits: int
    better: int
    part: str  # what it sees: "picture", "pose", "dynamics" or "" (only for the eye)


MEASURES = (
    Measure("psnr", "PSNR, dB", 2, 1, "picture"),
    Measure("psnr_head", "  on the head alone", 2, 1, "picture"),
    Measure("ssim", "SSIM", 4, 1, "picture"),
    Measure("lpips", "LPIPS (AlexNet)", 4, -1, "picture"),
    Measure("landmarks", "landmarks, % of eye distance", 2, -1, "picture"),
    Measure("lips", "  lips alone", 2, -1, "picture"),
    Measure("pose", "pose, degrees", 2, -1, "pose"),
    Measure("gaze", "gaze, degrees", 2, -1, "dynamics"),
    Measure("expression", "expression, plain expressions", 3, -1, "dynamics"),
    # No verdict on these: beside the annotators' own errors they say little about a model.
    Measure("known_landmarks", "known: landmarks, % of eye distance", 2, 0, ""),
    Measure("known_pose", "known: pose, degrees", 2, 0, ""),
    Measure("known_gaze", "known: gaze, degrees", 2, 0, ""),
    Measure("known_expression", "known: expression", 3, 0, ""),
    *(
        Measure(f"{judge}_{end}", text.format(judge), 3, better, part)
        for judge in ("mobileface", "faceres", "dlib")
        for end, text, better, part in (
            ("truth", "identity to truth, {}", 1, "picture"),
            ("source", "  to source", 0, ""),
            ("driver", "  to driver", 0, ""),
        )
    ),
    Measure("found", "face found, share", 2, 0, ""),
)
# What each case asks to change; the rest of the source must stay.
ASKED = {
    "self": ("pose", "dynamics"),
    "pose": ("pose",),
    "dynamics": ("dynamics",),
    "both": ("pose", "dynamics"),
}
Embed = Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]


class Reading(NamedTuple):
    """What annotators, or the maker of a picture, say of a face; NaN is unknown."""

    landmarks: np.ndarray  # (478, 3) px
    rotation: np.ndarray  # (3, 3)
    scale: float  # px between the outer eye corners seen from ahead
    gaze: np.ndarray  # (2,) rad, camera frame; NaN where the eyes are shut
    signs: np.ndarray  # (8,) facial_signs in units of a plain expression


def read(landmarks_L3: np.ndarray) -> Reading:
    """A reading of landmarks (478, 3) px; NaN landmarks give an empty one."""
    lm = np.asarray(landmarks_L3, np.float64)[None]
    if not np.isfinite(lm).all():
        return Reading(lm[0] * np.nan, np.full((3, 3), np.nan), np.nan, *_unknown())
    pose = motion.head_pose(lm)
    gaze = motion.gaze(lm)[0]
    if motion.eye_opening(lm)[0] < SHUT:
        gaze = gaze * np.nan
    signs = controls.facial_signs(lm)[0] / controls.UNITS
    return Reading(lm[0], pose["rotation"][0], float(pose["scale"][0]), gaze, signs)


def _unknown() -> tuple[np.ndarray, np.ndarray]:
    return np.full(2, np.nan), np.full(len(controls.SIGNS), np.nan)


def known(
    rotation_33: np.ndarray, gaze_2: np.ndarray, landmarks_L3: np.ndarray | None = None
) -> Reading:
    """The parameters of a rendered face; landmarks (478, 3) px where its head model has them."""
    lost = np.full((478, 3), np.nan)
    seen = read(lost if landmarks_L3 is None else landmarks_L3)
    return seen._replace(
        rotation=np.asarray(rotation_33, np.float64), gaze=np.asarray(gaze_2, np.float64)
    )


def turn_deg(a_33: np.ndarray, b_33: np.ndarray) -> float:
    """Angle in degrees of the rotation that takes one to the other."""
    sine = np.linalg.norm(np.asarray(a_33, np.float64) - b_33) / (2 * np.sqrt(2))
    return float(np.degrees(2 * np.arcsin(np.clip(sine, 0, 1))))


def gaze_deg(a_2: np.ndarray, b_2: np.ndarray) -> float:
    """Angle in degrees between two directions given as (yaw, pitch) in rad."""

    def ray(g: np.ndarray) -> np.ndarray:
        y, p = np.asarray(g, np.float64)
        return np.array([np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)])

    return float(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(ray(a_2) - ray(b_2)) / 2, 0, 1))))


def distance(
    seen: Reading, right: Reading, *, trust_L: np.ndarray | None = None
) -> dict[str, float]:
    """Errors of a reading: landmarks, lips (% of eye distance), pose, gaze (deg), expression.

    ``trust_L`` (478,) weighs the landmarks. Expression is the root mean square over the eight
    signs of ``controls`` in units of a plain expression.
    """
    w = np.ones(478) if trust_L is None else np.asarray(trust_L, np.float64)
    gap = np.linalg.norm(seen.landmarks[:, :2] - right.landmarks[:, :2], axis=1)
    unit = 100.0 / right.scale
    return {
        "landmarks": float((gap * w).sum() / w.sum() * unit),
        "lips": float((gap * w)[LIPS].sum() / w[LIPS].sum() * unit),
        "pose": turn_deg(seen.rotation, right.rotation),
        "gaze": gaze_deg(seen.gaze, right.gaze),
        "expression": float(np.sqrt(np.mean((seen.signs - right.signs) ** 2))),
    }


def likeness(
    picture: np.ndarray, truth: np.ndarray, *, head_YX: np.ndarray | None, lpips: Any = None
) -> dict[str, float]:
    """PSNR (whole, and of the head's pixels), SSIM and LPIPS of uint8 pictures."""
    out = {
        "psnr": min(image.psnr(picture, truth), MOST_DB),
        "ssim": image.ssim(picture, truth),
    }
    if head_YX is not None:
        out["psnr_head"] = min(image.psnr(picture, truth, head_YX), MOST_DB)
    if lpips is not None:
        out["lpips"] = lpips(picture, truth)
    return out


class Shot(NamedTuple):
    """A picture with its reading and what each identity judge makes of it."""

    image: np.ndarray  # (Y, X, 3) uint8
    reading: Reading
    codes: dict[str, np.ndarray]  # judge -> (D,) unit vector; NaN where no face is found

    @property
    def found(self) -> bool:
        return bool(np.isfinite(self.reading.scale))


def shots(
    pictures: Sequence[np.ndarray], finder: Any, judges: Mapping[str, Embed] | None = None
) -> list[Shot]:
    """Pictures (Y, X, 3) uint8 with the reading of their largest face."""
    faces = [finder.find(picture) for picture in pictures]
    lost = np.full((478, 3), np.nan)
    readings = [read(f[0].landmarks if f else lost) for f in faces]
    found = [i for i, f in enumerate(faces) if f]
    codes: list[dict[str, np.ndarray]] = [{} for _ in pictures]
    for name, embed in (judges or {}).items() if found else ():
        seen = embed([pictures[i] for i in found], [faces[i][0].landmarks for i in found])
        for rows in codes:
            rows[name] = np.full(seen.shape[1], np.nan)
        for i, code in zip(found, seen, strict=True):
            codes[i][name] = np.asarray(code, np.float64)
    return [Shot(*parts) for parts in zip(pictures, readings, codes, strict=True)]


def similarities(shot: Shot, others: Mapping[str, Shot]) -> dict[str, float]:
    """``<judge>_<name of the other>``: cosine of recognition codes; NaN where no face is found."""
    return {
        f"{judge}_{name}": float(code @ other.codes[judge])
        for judge, code in shot.codes.items()
        for name, other in others.items()
        if judge in other.codes
    }


def measure(
    shot: Shot,
    truth: Shot,
    *,
    source: Shot,
    driver: Shot | None = None,
    parameters: Reading | None = None,
    trust_L: np.ndarray | None = None,
    head_YX: np.ndarray | None = None,
    lpips: Any = None,
) -> dict[str, float]:
    """All measures of one output, or, with ``shot is truth``, of the truth itself.

    The truth is not compared with itself; what remains are its reading against the known
    parameters and its likeness to source and driver.
    """
    out: dict[str, float] = {"found": float(shot.found)}
    others = {"source": source} | ({} if driver is None else {"driver": driver})
    if shot is not truth:
        out |= likeness(shot.image, truth.image, head_YX=head_YX, lpips=lpips)
        out |= distance(shot.reading, truth.reading)
        others = {"truth": truth, **others}
    if parameters is not None:
        errors = distance(shot.reading, parameters, trust_L=trust_L)
        out |= {f"known_{k}": v for k, v in errors.items() if k != "lips"}
        # Whether the eyes are shut is for the truth to say, not for a wrong output.
        if not np.isfinite(truth.reading.gaze).all():
            out["known_gaze"] = float("nan")
    return out | similarities(shot, others)


def clustered(values: Sequence[float], groups: Sequence[Any]) -> dict[str, float]:
    """Mean over pairs and its 95 % interval by resampling groups (``suite.bootstrap``).

    ``n`` counts pairs, ``groups`` the people among them; NaN is left out.
    """
    v = np.asarray(values, np.float64)
    ok = np.isfinite(v)
    names = np.asarray(groups)[ok]
    means, counts = [], []
    for name in np.unique(names):
        means.append(v[ok][names == name].mean())
        counts.append(int((names == name).sum()))
    # Each person's mean weighs as many pairs as it stands for: this is the mean over pairs.
    found = suite.bootstrap(means, counts)
    return {**found, "n": int(ok.sum()), "groups": len(means)}


def summarise(pairs: Iterable[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """``summary[case][method][measure]`` of pairs ``{"person", "cases": {case: {method: ...}}}``.

    Every method but copy and truth also gets ``against_copy`` and ``against_warp``: the paired
    difference to copying the source and to moving it by geometry alone, positive where the method
    is better.
    """
    pairs = list(pairs)
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    cases = {case: None for pair in pairs for case in pair["cases"]}
    for case in cases:
        having = [p for p in pairs if case in p["cases"]]
        methods = {m: None for p in having for m in p["cases"][case]}
        people = [p["person"] for p in having]
        summary[case] = {}
        for method in methods:
            rows = [_numbers(p["cases"][case].get(method, {})) for p in having]
            summary[case][method] = {}
            for m in MEASURES:
                values = [row.get(m.key, np.nan) for row in rows]
                if not np.isfinite(np.array(values, np.float64)).any():
                    continue
                cell: dict[str, Any] = {**clustered(values, people)}
                for base in ("copy", "warp"):
                    if method in ("copy", "truth", base) or base not in methods or not m.better:
                        continue
                    others = [_numbers(p["cases"][case].get(base, {})) for p in having]
                    gain = [
                        m.better * (v - o.get(m.key, np.nan))
                        for v, o in zip(values, others, strict=True)
                    ]
                    cell[f"against_{base}"] = clustered(gain, people)
                summary[case][method][m.key] = cell
    return summary


def _numbers(row: Mapping[str, float | None]) -> dict[str, float]:
    """Unknown values are null in a file and NaN in arithmetic."""
    return {k: float("nan") if v is None else float(v) for k, v in row.items()}


def verdict(cell: dict[str, Any], base: str = "copy") -> str:
    """Whether a method is better, worse or the same: does the gain's interval leave zero out?"""
    gain = cell.get(f"against_{base}")
    if gain is None or not np.isfinite(gain["mean"]):
        return ""
    return "better" if gain["low"] > 0 else "worse" if gain["high"] < 0 else "same"


def stays(case: str, measure: Measure) -> bool:
    """Whether the case asks for no change of what the measure sees: copying is right then."""
    asked = ASKED.get(case, ("pose", "dynamics"))
    return measure.part in ("pose", "dynamics") and measure.part not in asked


def table(summary: dict[str, dict[str, dict[str, Any]]], *, judged: str = "model") -> str:
    """Markdown: one line per case and measure, one column per method, and the verdict.

    ``judged`` is the method that the last columns compare with copying the source and with geometry
    alone; "leak" marks what should have stayed as in the source and did not.
    """
    methods = list({m: None for rows in summary.values() for m in rows})
    head = ["case", "measure", *methods, "against copy", "against warp"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case, rows in summary.items():
        for m in MEASURES:
            cells = [rows.get(method, {}).get(m.key) for method in methods]
            if not any(cells):
                continue
            shown = ["-" if c is None else _show(c, m.digits) for c in cells]
            ends = [verdict(rows.get(judged, {}).get(m.key, {}), base) for base in ("copy", "warp")]
            if stays(case, m) and ends[0]:
                ends[0] = "leak" if ends[0] == "worse" else "stays"
            lines.append(f"| {case} | {m.text} | " + " | ".join([*shown, *ends]) + " |")
    return "\n".join(lines)


def _show(cell: dict[str, Any], digits: int) -> str:
    low, high = cell["low"], cell["high"]
    return f"{cell['mean']:.{digits}f} ({low:.{digits}f} .. {high:.{digits}f})"


def findings(summary: dict[str, dict[str, dict[str, Any]]], *, judged: str = "model") -> str:
    """In words: what is not better than copying the source, and what moves but should stay."""
    lines = []
    for case, rows in summary.items():
        cells = rows.get(judged, {})
        ends = {m: verdict(cells.get(m.key, {})) for m in MEASURES}
        asked = {m: end for m, end in ends.items() if end and not stays(case, m)}
        failed = [f"{m.text.strip()} ({end})" for m, end in asked.items() if end != "better"]
        leaks = [m.text.strip() for m, end in ends.items() if end == "worse" and stays(case, m)]
        line = f"{case}: better than copying in {len(asked) - len(failed)} of {len(asked)} measures"
        line += f"; not in {', '.join(failed)}" if failed else ""
        line += f"; should stay but moves: {', '.join(leaks)}" if leaks else ""
        gains = [verdict(cells.get(m.key, {}), "warp") for m in MEASURES]
        line += (
            f"; than geometry alone {gains.count('better')} better, {gains.count('worse')} worse"
        )
        lines.append(line)
    return "\n".join(lines)


def columns(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All values, one list per measure: ``{case: {"person": [], method: {measure: []}}}``."""
    out: dict[str, Any] = {}
    for case in {case: None for pair in pairs for case in pair["cases"]}:
        having = [p for p in pairs if case in p["cases"]]
        methods = {m: None for p in having for m in p["cases"][case]}
        out[case] = {"person": [p["person"] for p in having]}
        for method in methods:
            rows = [p["cases"][case].get(method, {}) for p in having]
            keys = {k: None for row in rows for k in row}
            out[case][method] = {k: [row.get(k) for row in rows] for k in keys}
    return out
