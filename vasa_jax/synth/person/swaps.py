"""What a swap of pose or dynamics between two people must look like: rendered, not guessed.

A person and a ``State`` (pose and place in the square; expression and gaze) make one picture,
whoever the state was taken from. So for a source A and a driver B every answer has a truth, with
A's own light, background and camera::

    self       A in another state of A
    pose       A turned as B, as large in the square and in the same place; A's expression and gaze
    dynamics   A where A is; B's expression and gaze (gaze is a direction in the camera's frame)
    both       A with all of B's state

How far B stands from the camera can't be seen in one picture (a small head nearby looks like a
large one further off), so a pose carries the size of the face in the square, not its distance.

Evaluation people come from seeds that no training data uses: stills count up from 0
(``synthetic.write_stills``), clips draw below 2**31 (``clips.draw_recipe``), these begin there.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vasa_jax.core.arkit import GAZE
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import POSE
from vasa_jax.data.folders import finished_files
from vasa_jax.face.find import align
from vasa_jax.face.head.fit import FaceFit
from vasa_jax.synth.person.mesh_head import (
    MAX_EYE_PITCH,
    MAX_EYE_YAW,
    MeshHead,
    crop_placement,
    move_placement,
    rotation,
)
from vasa_jax.synth.person.person import Person, make_person
from vasa_jax.synth.person.picture import SEGMENTS, StillTruth, random_still_motion, render_still

# Whose pose and whose dynamics A must show: states by their names in ``Pair``.
CASES = {
    "self": ("other", "other"),
    "pose": ("driver", "source"),
    "dynamics": ("source", "driver"),
    "both": ("driver", "driver"),
}
FIRST_SEED = 2**31
PEOPLE_PER_SEED = 100_000
SAME_SIGMAS = 1e-3  # coefficients closer than this are the same person's
_BODY = (SEGMENTS.index("background"), SEGMENTS.index("clothes"))


class State(NamedTuple):
    """What moves, absolute, and the same for anybody."""

    motion: np.ndarray  # (54,) translation and log-scale are zero: they are in the frame
    frame: np.ndarray  # (3,) centre x, y and height of the level face in the square's [-1, 1]


class Picture(NamedTuple):
    """One rendered picture and what is known of it."""

    image: np.ndarray  # (size, size, 3) uint8
    fit: FaceFit  # the true parameters in the form of a fit; all identity modes of the engine
    rotation: np.ndarray  # (3, 3) of the head
    gaze: np.ndarray  # (2,) rad in the camera's frame, as far as the eyes can turn
    head: np.ndarray  # (size, size) bool: face, hair and neck; not clothes or background


class Pair(NamedTuple):
    """One question to the model: people by number, and the states that are swapped."""

    a: int
    b: int
    source: State  # of A
    other: State  # of A, at another time
    driver: State  # of B


def held_out_person(seed: int, number: int, head: MeshHead) -> Person:
    """Person ``number`` of an evaluation; ``seed`` chooses another set of people."""
    if not (0 <= number < PEOPLE_PER_SEED and 0 <= seed < 2**31):
        raise UserError(f"seed and number of people must lie below 2**31 and {PEOPLE_PER_SEED}")
    return make_person(FIRST_SEED + seed * PEOPLE_PER_SEED + number, head)


def state_of(person: Person, motion_54: np.ndarray, head: MeshHead) -> State:
    """A motion relative to the person's own place as a state in the camera."""
    motion = np.array(motion_54, np.float32)
    cx, cy, s = move_placement(person.placement, motion)
    middle, height = _face(person, head)
    motion[3:7] = 0
    return State(motion, np.array([cx, cy + s * middle, s * height]))


def placement(person: Person, state: State, head: MeshHead) -> np.ndarray:
    """Placement (3,) cx, cy, s that puts this person's level face into the state's frame."""
    middle, height = _face(person, head)
    s = state.frame[2] / height
    return np.array([state.frame[0], state.frame[1] - s * middle, s])


def _face(person: Person, head: MeshHead) -> tuple[float, float]:
    """Middle (down) and height of the level face in units of the placement's s."""
    _, cy, s = crop_placement(head, person.shape)  # the crop that fits this very face
    return float(-cy / s), float(2 / (align.HEIGHTS_PER_CROP * s))


def draw_state(
    rng: np.random.Generator,
    person: Person,
    head: MeshHead,
    *,
    portrait: bool = False,
    independent: bool = False,
) -> State:
    """A state of the kind that stage 1 is trained on (``synthetic.random_still_motion``).

    ``portrait`` draws a level face with a shut mouth that looks into the camera. ``independent``
    draws expression and gaze apart from the pose: by default eyes follow the head a part of the
    way, so that pose can be guessed from honest dynamics.
    """
    motion = random_still_motion(rng, 0 if portrait else 1)
    if independent:
        motion[POSE] = random_still_motion(rng, 1)[POSE]
    return state_of(person, motion, head)


def swap(pose: State, dynamics: State) -> State:
    """The pose and place of one state, expression and gaze of another."""
    motion = dynamics.motion.copy()
    motion[POSE] = pose.motion[POSE]
    return State(motion, pose.frame)


def draw_pair(
    seed: int, index: int, people: list[Person], head: MeshHead, *, portrait: bool = False
) -> Pair:
    """Pair ``index``: A goes through all people in turn, B is anybody else.

    The pair depends on seed, index and the number of people alone. Raises UserError below two
    people.
    """
    if len(people) < 2:
        raise UserError("a swap needs two people; give --identities 2 or more")
    rng = np.random.default_rng([seed, index, 0x5A9])
    a = index % len(people)
    b = (a + 1 + int(rng.integers(len(people) - 1))) % len(people)
    source = draw_state(rng, people[a], head, portrait=portrait)
    return Pair(a, b, source, draw_state(rng, people[a], head), draw_state(rng, people[b], head))


def answers(pair: Pair) -> dict[str, State]:
    """The state that A must be in, by case."""
    return {
        case: swap(getattr(pair, pose), getattr(pair, dynamics))
        for case, (pose, dynamics) in CASES.items()
    }


def render(person: Person, state: State, *, head: MeshHead, size: int = 256) -> Picture:
    """The person in a state: their own skin, hair, clothes, light and background."""
    placed = placement(person, state, head)
    image, truth = render_still(person, state.motion, head=head, size=size, placement=placed)
    return Picture(
        image=image,
        fit=FaceFit(person.identity, state.motion, placed.astype(np.float32), 0.0),
        rotation=rotation(*(float(x) for x in state.motion[:3])),
        gaze=seen_gaze(state.motion, truth),
        head=~np.isin(truth.segments, _BODY),
    )


def seen_gaze(motion_54: np.ndarray, truth: StillTruth) -> np.ndarray:
    """Gaze (2,) rad in the camera's frame of the eyes as drawn: they stop at the orbit's limits."""
    yaw, pitch = (float(x) for x in truth.eye_in_head)
    if abs(yaw) < MAX_EYE_YAW - 1e-5 and abs(pitch) < MAX_EYE_PITCH - 1e-5:
        return np.array(motion_54[GAZE], np.float64)
    ray = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    x, y, z = rotation(*(float(a) for a in motion_54[:3])) @ ray
    return np.array([np.arctan2(x, z), np.arcsin(np.clip(y, -1, 1))])


def refuse_trained_people(people: list[Person], faces: Path) -> dict[str, float | int]:
    """Compares the people with every rendered face file that a model was trained on.

    Returns the number of files and the smallest distance (largest difference of one coefficient, in
    sigmas). Raises UserError when one of them is the same person, or the folder holds none.
    """
    files = finished_files(faces / "synthetic", below=True)
    if not files:
        raise UserError(f"{faces} holds no face files (synthetic/*.npz) to compare people with")
    trained = []
    for file in files:
        try:
            with np.load(file) as z:
                trained.append(z["identity"])
        except (OSError, KeyError, ValueError) as error:
            raise UserError(f"{file} is not a face file: {error}") from error
    nearest = float("inf")
    for person in people:
        for file, identity in zip(files, trained, strict=True):
            n = min(len(identity), len(person.identity))
            distance = float(np.abs(person.identity[:n] - identity[:n]).max())
            if distance < SAME_SIGMAS:
                raise UserError(f"person {person.seed} is the one of {file}, which was trained on")
            nearest = min(nearest, distance)
    return {"files": len(files), "nearest_sigmas": nearest}
