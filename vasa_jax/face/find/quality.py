"""What will look wrong in a portrait, seen before it speaks: one line each.

Angles, lids and lips are read off the landmarks. A covered mouth is not: the mesh net places lips
on a hand, too. Four signs are asked for it, each weak alone, and two of them make a warning:

* the mesh net is less sure of its face than it is of any whole one;
* lips have no more colour than the skin below the nose and on the chin (in grey: no darker);
* that skin is unlike the cheeks, more than a beard makes it;
* the patch between nose and chin is far from the space of mouths (``assets/mouths.npz``: mean and
  main variations of the training portraits' mouths, made by ``tools/make_mouths.py``).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from PIL import Image

from vasa_jax.face.find import align
from vasa_jax.face.find.detection import ASSETS
from vasa_jax.face.find.finder import Face
from vasa_jax.face.head.fit import LID_PAIRS, LIP_PAIRS

SIDE = 256  # px of the crop that is judged
SMALL_PX = 56  # height of a face below which its eyes have less than ten pixels
SIDE_DEG = 28.0
DARK = 25.0  # grey level of the face's median, of 255
EYE_SHUT = 0.16  # opening of the lids, of the eye's width
MOUTH_OPEN = 0.09  # between the lips, of the face's height

# Signs of a cover; read off the training portraits, whole and with drawn hands, masks, microphones.
SURE = 13.0  # logit of presence; whole faces have 14 and more
MORE_RED, MORE_DARK = 0.025, 0.03  # log ratios, lips to skin
UNLIKE, UNLIKE_HUE = 1.2, 0.2  # distances of log colours and of hues, lower face to cheeks
STRANGE = 0.68  # distance to the space of mouths, where the patch has length 1
GREY = 0.1  # chroma of the cheeks below which colours say nothing

_CHEEKS = (50, 280, 117, 346, 205, 425, 4, 195)
_LOWER = (200, 199, 18, 164, 167, 393, 43, 273)
_LIPS = (0, 17, 37, 267, 84, 314, 13, 14)
_LUMA = np.array([0.30, 0.59, 0.11], np.float32)
_EYES = (((362, 263), LID_PAIRS[0]), ((33, 133), LID_PAIRS[1]))  # corners, pairs of lids

TEXTS = {
    "small": "the face is only {height:.0f} pixels high and will look blurred; give a larger "
    "picture of it",
    "dark": "the face is nearly black ({level:.0f} % bright), so that its mouth will hardly be "
    "seen; brighten the picture",
    "side": "the face is seen from the side (turned by about {yaw:.0f} degrees), and its far half "
    "will be guessed; give a picture from the front",
    "covered_mouth": "the mouth seems to be covered (a hand, a microphone, a mask), and what "
    "covers it will move with the lips; give a picture with a free mouth",
    "mouth_open": "the mouth is wide open, and its lips may smear when they close; give a picture "
    "with a resting mouth",
    "eyes_shut": "the eyes are shut, so that open ones will be invented; give a picture with open "
    "eyes",
}

MOUTH_WIDTH, MOUTH_HEIGHT = 48, 32  # px of the patch that is compared with others


@dataclasses.dataclass(frozen=True)
class Flaw:
    """Something that will look wrong: a code for programs, a line for people."""

    code: str  # of ``TEXTS``
    text: str


def flaws(image_u8: np.ndarray, face: Face) -> list[Flaw]:
    """What will look wrong when this face of a picture (Y, X, 3) uint8 speaks; mostly nothing."""
    crop = align.crop_from_landmarks(face.landmarks)
    square = align.extract(image_u8, crop, SIDE)
    points = align.to_crop(face.landmarks, crop) * np.float32(SIDE)
    height = face.box[3] - face.box[1]
    level = float(np.median(_sampled(square, points, _CHEEKS + _LOWER) @ _LUMA))
    yaw = abs(turned(points))
    covered = covers(square, points, face.score) >= 2
    found = {
        "small": height < SMALL_PX,
        "dark": level < DARK,
        "side": yaw > SIDE_DEG,
        "covered_mouth": covered,
        # Of a covered mouth the landmarks only guess.
        "mouth_open": not covered and lips_apart(points) > MOUTH_OPEN,
        "eyes_shut": max(eyes_open(points)) < EYE_SHUT,
    }
    numbers = {"height": height, "level": level / 2.55, "yaw": yaw}
    return [Flaw(code, TEXTS[code].format(**numbers)) for code, there in found.items() if there]


def turned(points: np.ndarray) -> float:
    """Degrees that a face (478, 3) is turned to the side: the slope of depth between its ears."""
    across = points[454] - points[234]
    return float(np.degrees(np.arctan2(across[2], np.hypot(across[0], across[1]))))


def eyes_open(points: np.ndarray) -> tuple[float, float]:
    """Opening of the lids of each eye, of its width."""
    left, right = (
        np.mean([_distance(points, *pair) for pair in pairs]) / _distance(points, *corners)
        for corners, pairs in _EYES
    )
    return float(left), float(right)


def lips_apart(points: np.ndarray) -> float:
    """The gap between the lips in their middle, of the face's height."""
    gap = np.mean([_distance(points, *pair) for pair in LIP_PAIRS[:3]])
    return float(gap / _distance(points, 10, 152))


def covers(square_u8: np.ndarray, points: np.ndarray, presence: float) -> int:
    """How many of four signs say that something lies over the mouth.

    ``square_u8`` (n, n, 3) is the face's crop, ``points`` (478, 2 or 3) its landmarks in px of it,
    ``presence`` the mesh net's belief in 0..1.
    """
    cheeks, lower, lips = (
        _sampled(square_u8, points, part).mean(0) for part in (_CHEEKS, _LOWER, _LIPS)
    )
    colourful = (cheeks.max() - cheeks.min()) / (cheeks.max() + 1.0) > GREY
    redder = np.log((lips[0] + 1) / (lips[1] + 1)) - np.log((lower[0] + 1) / (lower[1] + 1))
    darker = np.log(lower.mean() + 4) - np.log(lips.mean() + 4)
    unlike = np.linalg.norm(np.log(lower + 4) - np.log(cheeks + 4))
    hue = np.linalg.norm(lower / (lower.mean() + 1) - cheeks / (cheeks.mean() + 1))
    logit = np.log(max(presence, 1e-7) / max(1.0 - presence, 1e-7))
    signs = (
        logit < SURE,
        redder < MORE_RED if colourful else darker < MORE_DARK,
        unlike > UNLIKE or hue > UNLIKE_HUE,
        strangeness(mouth_patch(square_u8, points)) > STRANGE,
    )
    return sum(map(bool, signs))


def mouth_patch(square_u8: np.ndarray, points: np.ndarray) -> np.ndarray:
    """What lies between nose and chin, grey, level, with mean 0 and length 1: (32 * 48,)."""
    xy = np.asarray(points, np.float32)[:, :2]
    across = (xy[362] + xy[263] - xy[33] - xy[133]) / 2
    down = xy[152] - xy[168]
    nose, height = xy[2], float(np.hypot(*(xy[152] - xy[2])))
    u = across * (1.15 / MOUTH_WIDTH)
    v = down / max(float(np.hypot(*down)), 1e-3) * (1.1 * height / MOUTH_HEIGHT)
    origin = nose - across * (1.15 / 2) - v * (0.05 / 1.1 * MOUTH_HEIGHT)
    affine = (
        float(u[0]),
        float(v[0]),
        float(origin[0]),
        float(u[1]),
        float(v[1]),
        float(origin[1]),
    )
    patch = Image.fromarray(square_u8).transform(
        (MOUTH_WIDTH, MOUTH_HEIGHT), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
    )
    grey = (np.asarray(patch, np.float32) @ _LUMA).ravel()
    grey -= grey.mean()
    return grey / (np.linalg.norm(grey) + 12.75e-3 * grey.size**0.5)


def strangeness(patch: np.ndarray) -> float:
    """Distance of a mouth patch from the space that the mean mouth and its variations span."""
    mean, basis = _mouths()
    rest = patch - mean
    along = basis @ rest
    return float(np.sqrt(max(0.0, float(rest @ rest - along @ along))))


@functools.cache
def _mouths() -> tuple[np.ndarray, np.ndarray]:
    with np.load(ASSETS / "mouths.npz") as file:
        return file["mean"].astype(np.float32), file["basis"].astype(np.float32)


def _sampled(square_u8: np.ndarray, points: np.ndarray, indices: tuple[int, ...]) -> np.ndarray:
    """Pixels (N, 3) of squares of 5 px around landmarks."""
    limit = len(square_u8) - 3
    xy = np.clip(np.asarray(points)[list(indices), :2].astype(int), 2, limit)
    near = np.arange(-2, 3)
    ys, xs = xy[:, 1, None, None] + near[:, None], xy[:, 0, None, None] + near
    return square_u8[ys, xs].reshape(-1, 3).astype(np.float32)


def _distance(points: np.ndarray, a: int, b: int) -> float:
    return max(float(np.hypot(*(points[a, :2] - points[b, :2]))), 1e-3)
