from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import FACE, tiny_release
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.arkit import GAZE, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import differences
from vasa_jax.generate import talker as talkers
from vasa_jax.generate.controls import controls
from vasa_jax.generate.engine import Engine
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.generate.talker import RENDER_BATCH, Talker
from vasa_jax.provenance.examine import examine_pictures

pytestmark = pytest.mark.usefixtures("broadcasting")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return load_release(tiny_release(tmp_path_factory.mktemp("release") / "tiny"))


@pytest.fixture(scope="module")
def talker(release):
    return Talker(release, drawn_face(300))


@pytest.fixture(scope="module")
def speech():
    return np.random.default_rng(0).normal(0, 0.1, 640 * 30 - 100).astype(np.float32)


def _frames(talker, speech, **options):
    return np.stack(list(talker.generate(speech, steps=2, **options)))


def test_speech_makes_as_many_frames_as_it_fills(talker, speech):
    frames = _frames(talker, speech)
    assert frames.shape == (30, 300, 300, 3) and frames.dtype == np.uint8
    assert _frames(talker, speech[:3300], frame="crop").shape == (6, FACE.size, FACE.size, 3)


def test_the_same_seed_gives_the_same_frames(talker, speech):
    # Without the mark, which says the minute.
    first, again = (_frames(talker, speech, seed=3, mark=False) for _ in range(2))
    assert (first == again).all()
    assert (first != _frames(talker, speech, seed=4, mark=False)).any()


def test_frames_are_marked_unless_somebody_measures_them(talker, release, speech):
    plain = _frames(talker, speech, seed=3, mark=False)
    before = talker.report()
    assert before["mark"] is None
    marked = _frames(talker, speech, seed=3)
    report = talker.report()
    assert report["compiled"] == before["compiled"] and report["ms_per_frame"]["mark"] > 0
    error = np.square(marked.astype(np.float32) - plain).mean((1, 2, 3))
    assert 10 * np.log10(255**2 / error.max()) >= 42.0
    verdict = examine_pictures(iter(marked))
    assert verdict.found and verdict.payload.to_json() == report["mark"]
    assert verdict.payload.release_prefix == release.sha256[:5]
    assert not examine_pictures(iter(plain)).found


def test_a_release_says_how_its_motion_is_sampled(talker, release, speech, monkeypatch):
    given = {}

    def pretend(model, params, stats, features, controls, **options):
        given.update(options)
        return np.zeros((len(features), 54), np.float32)

    table = {"sampler": "ddim", "steps": 4, "grid": "trailing", "guidance": {}, "temperature": 0.1}
    distilled = dataclasses.replace(release, config=release.config | {"generate": table})
    monkeypatch.setattr(talkers, "generate_motion", pretend)
    monkeypatch.setattr(talker, "engine", Engine(distilled))
    talker.motion(speech)
    assert {name: given[name] for name in table} == table
    talker.motion(speech, steps=7, guidance={"audio": 1.0})
    assert (given["steps"], given["guidance"]) == (7, {"audio": 1.0})


def test_a_student_speaks_unless_a_sampler_is_asked_for(talker, release, speech, monkeypatch):
    given = {}

    def pretend(model, params, stats, features, controls, **options):
        given.update(options, params=params)
        return np.zeros((len(features), 54), np.float32)

    few = {"sampler": "ddim", "steps": 4, "grid": "uniform", "guidance": {}, "temperature": 0.2}
    student = jax.tree.map(lambda a: a + 1.0, release.params["motion"])
    both = dataclasses.replace(
        release, params=release.params | {"student": student},
        config=release.config | {"student": {"generate": few}},
    )  # fmt: skip
    monkeypatch.setattr(talkers, "generate_motion", pretend)
    monkeypatch.setattr(talker, "engine", Engine(both))
    talker.motion(speech)
    assert {name: given[name] for name in few} == few
    assert not differences(student, given["params"], values=True)
    talker.motion(speech, sampler="heun")
    assert given["sampler"] == "heun" and given["steps"] == GenerateDefaults().steps
    assert not differences(release.params["motion"], given["params"], values=True)


def test_another_length_compiles_nothing_more(talker, speech):
    _frames(talker, speech)
    before = talker.report()["compilations"]
    list(talker.generate(np.tile(speech, 4), steps=2))
    assert talker.report()["compilations"] == before


def test_the_report_has_what_is_promised(talker, speech, release):
    _frames(talker, speech, seed=5)
    report = talker.report()
    assert report["frames"] == 30 and report["duration"] == pytest.approx(1.2)
    assert report["size"] == [300, 300] and report["seed"] == 5 and report["faces"] == 1
    assert {"motion", "render"} <= set(report["ms_per_frame"])
    assert report["release_sha256"] == release.sha256
    x0, y0, x1, y1 = report["face_box"]
    assert 0 < x0 < 150 < x1 < 300 and 0 < y0 < 150 < y1 < 300


def test_silence_is_no_error(talker):
    assert len(_frames(talker, np.zeros(6400, np.float32), frame="crop")) == 10


def test_controls_are_kept_whatever_the_weights_say(talker, speech):
    long = np.tile(speech, 3)
    motion = talker.motion(long, controls=controls(gaze=[20, -10], distance=0.8), steps=2)
    np.testing.assert_allclose(np.degrees(motion[:, GAZE].mean(0)), [20, -10], atol=1.5)
    size = motion[:, MOTION_INDEX["log_scale"]]
    assert size.mean() == pytest.approx(-np.log(0.8), abs=0.03)  # nearer: larger
    np.testing.assert_allclose(np.degrees(motion[0, GAZE]), [20, -10], atol=1e-3)
    assert size[0] == pytest.approx(-np.log(0.8), abs=1e-5)


def test_render_fills_up_its_last_batch(talker):
    motion = np.zeros((RENDER_BATCH + 1, 54), np.float32)
    images = list(talker.render(motion))
    assert len(images) == RENDER_BATCH + 1
    assert (images[0] == images[-1]).all()


def test_several_faces_can_be_chosen_from(release):
    picture = np.full((400, 800, 3), 90, np.uint8)
    picture[:400, 400:] = drawn_face(400)
    picture[50:300, 50:300] = drawn_face(250)
    assert Talker(release, picture).face.box[0] > 400
    assert Talker(release, picture, face=1).face.box[2] < 400
    with pytest.raises(UserError, match="no face 2"):
        Talker(release, picture, face=2)


def test_everybody_in_a_group_can_be_chosen(release):
    picture = np.full((900, 1800, 3), 90, np.uint8)
    sides = (170, 160, 150, 140, 130)
    for k, side in enumerate(sides):
        picture[600 : 600 + side, 80 + 350 * k : 80 + 350 * k + side] = drawn_face(side)
    for k in (0, 4):
        talker = Talker(release, picture, face=k)
        middle = (talker.face.box[0] + talker.face.box[2]) / 2
        assert abs(middle - (80 + 350 * k + sides[k] / 2)) < 15 and len(talker.faces) == 5


def test_what_will_look_wrong_is_said_and_not_raised(release):
    assert Talker(release, drawn_face(300)).warnings == []
    talker = Talker(release, (drawn_face(300) * 0.05).astype(np.uint8))
    assert [flaw.code for flaw in talker.flaws] == ["dark"]
    with pytest.raises(UserError, match="the picture: the face is nearly black"):
        Talker(release, (drawn_face(300) * 0.05).astype(np.uint8), strict=True)
    assert "nearly black" in talker.warnings[0] and talker.report()["warnings"] == talker.warnings


def test_a_picture_without_a_face_is_refused(release):
    with pytest.raises(UserError, match="no face found"):
        Talker(release, np.full((200, 200, 3), 128, np.uint8))


def test_bad_requests_are_refused_at_once(talker, speech):
    for options in ({"sampler": "dimm"}, {"frame": "half"}):
        with pytest.raises(UserError):
            talker.generate(speech, **options)
    with pytest.raises(UserError, match="steps"):
        talker.generate(speech, steps=0)
    with pytest.raises(UserError, match="0.2 s"):
        talker.generate(speech[:1600])


def test_a_large_head_is_drawn_finer_and_moves_as_before(release, speech, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 25, (400, 400, 1))  # grain finer than the square
    picture = np.clip(drawn_face(400) + noise, 0, 255).astype(np.uint8)
    talker = Talker(release, picture)
    fine = np.stack(list(talker.generate(speech, mark=False))).astype(float)
    monkeypatch.setattr("vasa_jax.generate.talker.portrait_detail", lambda *given: None)
    coarse = np.stack(list(talker.generate(speech, mark=False))).astype(float)

    def grain(pictures):  # of the head, where the paste lies
        x0, y0, x1, y1 = np.asarray(talker.face.box).astype(int)
        head = pictures[:, y0:y1, x0:x1]
        return np.abs(head[:, 1:] - head[:, :-1]).mean()

    assert grain(fine) > 1.3 * grain(coarse)
    assert np.abs(fine.mean((1, 2, 3)) - coarse.mean((1, 2, 3))).max() < 1.0


def test_both_ways_to_draw_make_the_same_square(talker):
    motion = np.random.default_rng(0).normal(0, 0.1, (RENDER_BATCH, 54)).astype(np.float32)
    detail = np.zeros((2 * talker.engine.size, 2 * talker.engine.size, 3), np.float32)
    plain = np.stack(list(talker.render(motion))).astype(int)
    squares, fine = zip(*talker._squares(motion, detail), strict=True)
    assert np.abs(np.stack(squares) - plain).max() <= 1
    assert fine[0].shape == detail.shape
