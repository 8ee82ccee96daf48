"""Errors of faces that were moved by known amounts; verdicts on numbers made up for it."""

from __future__ import annotations

import numpy as np
import pytest

from vasa_jax.evaluate import swaps as r
from vasa_jax.metrics.motion import RIGID_POINTS, RIGID_SHAPE

EYE_PX = 50.0  # one unit of RIGID_SHAPE, the distance of the outer eye corners


def _yaw(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def face(rotation: np.ndarray | None = None, shift=(0.0, 0.0)) -> np.ndarray:
    """Landmarks (478, 3) px whose rigid points are the reference shape, turned and shifted."""
    points = np.random.default_rng(0).normal(0, 0.3, (478, 3))
    points[list(RIGID_POINTS)] = RIGID_SHAPE
    for lower, upper in ((144, 160), (153, 158), (380, 385), (373, 387)):  # the eyes are open
        points[upper] = points[lower] + [0.0, 0.1, 0.0]
    turned = points @ (np.eye(3) if rotation is None else rotation).T
    return turned * [EYE_PX, -EYE_PX, -EYE_PX] + [128 + shift[0], 128 + shift[1], 0]


@pytest.fixture
def picture():
    return np.random.default_rng(1).integers(20, 230, (64, 64, 3)).astype(np.uint8)


def test_a_shift_by_known_pixels_moves_landmarks_and_nothing_else():
    found = r.distance(r.read(face(shift=(3.0, -4.0))), r.read(face()))
    assert found["landmarks"] == pytest.approx(100 * 5 / EYE_PX, rel=1e-6)
    assert found["lips"] == pytest.approx(100 * 5 / EYE_PX, rel=1e-6)
    assert found["pose"] == pytest.approx(0, abs=1e-5)
    assert found["gaze"] == pytest.approx(0, abs=1e-5)
    assert found["expression"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("degrees", [5.0, -17.0])
def test_a_turn_by_known_degrees_is_the_pose_error(degrees):
    turned = r.read(face(_yaw(np.radians(degrees))))
    assert r.distance(turned, r.read(face()))["pose"] == pytest.approx(abs(degrees), abs=1e-4)
    known = r.known(_yaw(np.radians(degrees)), np.zeros(2))
    assert r.distance(turned, known)["pose"] == pytest.approx(0, abs=1e-4)
    assert np.isnan(r.distance(turned, known)["landmarks"])


def test_landmarks_that_are_not_trusted_do_not_count():
    moved, trust = face(), np.ones(478)
    moved[50, :2] += 30
    trust[50] = 0
    right = r.read(face())
    assert r.distance(r.read(moved), right, trust_L=trust)["landmarks"] == pytest.approx(0)
    assert r.distance(r.read(moved), right)["landmarks"] > 0


def test_angles_between_directions():
    assert r.gaze_deg(np.array([0.3, 0.0]), np.zeros(2)) == pytest.approx(np.degrees(0.3))
    assert r.gaze_deg(np.array([0.0, -0.2]), np.array([0.0, 0.1])) == pytest.approx(np.degrees(0.3))
    assert r.turn_deg(_yaw(1.0), _yaw(-0.5)) == pytest.approx(np.degrees(1.5))
    assert r.turn_deg(_yaw(np.pi), np.eye(3)) == pytest.approx(180)


def test_shut_eyes_have_no_gaze():
    shut = face()
    for lower, upper in ((144, 160), (153, 158), (380, 385), (373, 387)):
        shut[upper, :2] = shut[lower, :2]
    assert np.isnan(r.read(shut).gaze).all()
    assert np.isfinite(r.read(face()).gaze).all()


def test_likeness_of_a_known_error(picture):
    off = picture.copy()
    off[:16] += 10
    head = np.zeros((64, 64), bool)
    head[:16] = True
    found = r.likeness(off, picture, head_YX=head)
    assert found["psnr_head"] == pytest.approx(20 * np.log10(255 / 10))
    assert found["psnr"] == pytest.approx(20 * np.log10(255 / 5))  # a quarter of the pixels
    same = r.likeness(picture, picture.copy(), head_YX=head, lpips=lambda a, b: 0.0)
    assert same == {"psnr": r.MOST_DB, "psnr_head": r.MOST_DB, "ssim": pytest.approx(1),
                    "lpips": 0.0}  # fmt: skip


def shot(picture, landmarks, code=(1.0, 0.0)):
    return r.Shot(picture, r.read(landmarks), {"mobileface": np.array(code)})


def test_an_oracle_has_no_error_and_copying_has_the_known_one(picture):
    source = shot(picture, face(), (0.0, 1.0))
    truth = shot(255 - picture, face(_yaw(0.2)))
    given = {"source": source, "driver": source, "parameters": r.known(_yaw(0.2), np.zeros(2))}
    oracle = r.measure(shot(truth.image.copy(), face(_yaw(0.2))), truth, **given)
    for key in ("landmarks", "lips", "pose", "gaze", "expression", "known_pose"):
        assert oracle[key] == pytest.approx(0, abs=1e-4), key
    assert oracle["psnr"] == r.MOST_DB and oracle["mobileface_truth"] == 1
    assert oracle["mobileface_source"] == 0
    copy = r.measure(source, truth, **given)
    assert copy["pose"] == pytest.approx(np.degrees(0.2), abs=1e-4)
    assert copy["known_pose"] == pytest.approx(np.degrees(0.2), abs=1e-4)
    assert copy["mobileface_source"] == 1 and copy["mobileface_truth"] == 0
    own = r.measure(truth, truth, **given)
    assert "psnr" not in own and "pose" not in own
    assert own["known_pose"] == pytest.approx(0, abs=1e-4)


def test_a_face_that_is_not_found_is_counted_and_not_measured(picture):
    lost = r.measure(shot(picture, face() * np.nan, (np.nan, np.nan)), shot(picture, face()),
                     source=shot(picture, face()))  # fmt: skip
    assert lost["found"] == 0
    assert np.isnan([lost["landmarks"], lost["pose"], lost["mobileface_truth"]]).all()


class OneFace:
    """A finder that sees the given landmarks in bright pictures."""

    def find(self, image):
        found = type("Face", (), {"landmarks": face()})
        return [found] if image.mean() > 50 else []


def test_shots_keep_their_order_when_a_face_is_missing(picture):
    embed = lambda images, landmarks: np.eye(2)[[int(i.mean() > 200) for i in images]]  # noqa: E731
    dark, bright = np.zeros_like(picture), np.full_like(picture, 255)
    found = r.shots([picture, dark, bright], OneFace(), {"j": embed})
    assert [s.found for s in found] == [True, False, True]
    assert found[0].codes["j"].tolist() == [1, 0] and found[2].codes["j"].tolist() == [0, 1]
    assert np.isnan(found[1].codes["j"]).all()


def test_intervals_resample_people_and_not_pairs():
    cell = r.clustered([0.0] * 6 + [1.0] * 6, [0] * 6 + [1] * 6)
    assert (cell["mean"], cell["low"], cell["high"]) == (0.5, 0, 1)  # two people: nothing is known
    assert (cell["n"], cell["groups"]) == (12, 2)
    uneven = r.clustered([1.0, 1.0, 1.0, 5.0, np.nan], [0, 0, 0, 1, 1])
    assert uneven["mean"] == pytest.approx(2.0) and uneven["n"] == 4


def pairs(copy, model, warp=1.0, measure="pose", case="self", people=8):
    rng = np.random.default_rng(0)
    return [
        {"person": p, "cases": {case: {
            "copy": {measure: copy + 0.01 * rng.normal()},
            "warp": {measure: warp},
            "model": {measure: model + 0.01 * rng.normal()},
        }}}
        for p in range(people)
    ]  # fmt: skip


def test_verdicts_say_better_worse_and_same():
    for copy, model, want in ((9.0, 2.0, "better"), (2.0, 9.0, "worse")):
        cell = r.summarise(pairs(copy, model))["self"]["model"]["pose"]
        assert r.verdict(cell) == want
        assert r.verdict(cell, "warp") == "worse"
    up = r.summarise(pairs(20.0, 30.0, 25.0, "psnr"))["self"]["model"]["psnr"]
    assert r.verdict(up) == r.verdict(up, "warp") == "better"
    assert up["against_copy"]["mean"] == pytest.approx(10, abs=0.05)
    noise = pairs(5.0, 5.0)
    for p, pair in enumerate(noise):
        pair["cases"]["self"]["copy"]["pose"] = 5.0 + (-1) ** p
    assert r.verdict(r.summarise(noise)["self"]["model"]["pose"]) == "same"


def test_what_should_stay_and_moves_is_called_a_leak():
    summary = r.summarise(pairs(1.0, 4.0, case="dynamics"))
    assert "| leak | worse |" in r.table(summary)
    assert "should stay but moves: pose, degrees" in r.findings(summary)
    assert "leak" not in r.table(r.summarise(pairs(1.0, 4.0, case="pose")))


def test_unknown_values_of_a_file_are_left_out():
    some = pairs(9.0, 2.0)
    some[0]["cases"]["self"]["model"]["pose"] = None
    assert r.summarise(some)["self"]["model"]["pose"]["n"] == 7
    assert r.columns(some)["self"]["model"]["pose"][0] is None
    assert r.columns(some)["self"]["person"] == list(range(8))
