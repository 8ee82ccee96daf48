"""The renderer on the built-in head: signs, truth, determinism; clips: resume and settings."""

import json

import numpy as np
import pytest

from vasa_jax.core.arkit import MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError

pytest.importorskip("numba")
pytest.importorskip("cv2")

from vasa_jax.synth import clips  # noqa: E402
from vasa_jax.synth.person import picture as synthetic
from vasa_jax.synth.person.load_head import load_mesh_head  # noqa: E402
from vasa_jax.synth.person.mesh_head import place, project  # noqa: E402
from vasa_jax.synth.person.person import make_person  # noqa: E402
from vasa_jax.synth.speech import voice

SIZE = 64
NOSE = 30


@pytest.fixture(scope="module")
def head():
    return load_mesh_head(None)


@pytest.fixture(scope="module")
def person(head):
    return make_person(3, head, texture=256)


def still(person, head, **named):
    motion = np.zeros(MOTION_DIM, np.float32)
    for name, value in named.items():
        motion[MOTION_INDEX[name]] = value
    return synthetic.render_still(person, motion, head=head, size=SIZE)


def test_signs_are_those_of_the_motion_vector(person, head):
    rest = still(person, head)[1].landmarks68
    assert still(person, head, yaw=0.3)[1].landmarks68[NOSE, 0] > rest[NOSE, 0] + 0.02
    assert still(person, head, pitch=0.3)[1].landmarks68[NOSE, 1] < rest[NOSE, 1] - 0.02
    turned = still(person, head, roll=0.3)[1].landmarks68
    assert turned[27, 0] > turned[8, 0] + 0.05  # clockwise: the brow is right of the chin
    moved = still(person, head, tx=0.1, ty=0.1)[1].landmarks68 - rest
    assert moved[:, 0].min() > 0.02 and moved[:, 1].max() < -0.02
    near = still(person, head, log_scale=0.3)[1].landmarks68
    assert np.ptp(near[:, 1]) == pytest.approx(np.ptp(rest[:, 1]) * np.exp(0.3), rel=1e-3)


def test_gaze_is_in_the_cameras_frame(person, head):
    eye = still(person, head, yaw=0.3, gaze_yaw=0.3)[1].eye_in_head
    np.testing.assert_allclose(eye, 0, atol=1e-5)
    assert still(person, head, gaze_yaw=0.3)[1].eye_in_head[0] == pytest.approx(0.3, abs=1e-5)
    assert still(person, head, gaze_pitch=0.2)[1].eye_in_head[1] == pytest.approx(0.2, abs=1e-5)


def test_jaw_opens_and_closures_close(person, head):
    assert still(person, head)[1].lip_gap_cm == pytest.approx(0, abs=0.02)
    assert still(person, head, jawOpen=0.5)[1].lip_gap_cm > 0.5


def test_truth_repeats_the_projection(person, head):
    motion = np.zeros(MOTION_DIM, np.float32)
    motion[:7] = [0.2, -0.1, 0.1, 0.05, -0.02, 0, 0.1]
    _, truth = synthetic.render_still(person, motion, head=head, size=SIZE)
    placed = place(head, person.shape, person.eye_centres, motion, person.placement)
    np.testing.assert_allclose(truth.placement, placed.placement, rtol=1e-6)
    on_head = person.neck_weight > 0.999
    np.testing.assert_allclose(truth.screen[on_head], placed.screen[on_head], atol=1e-4)
    np.testing.assert_allclose(
        truth.landmarks68, project(truth.landmarks68_camera, truth.placement), atol=1e-5
    )


def test_geometry_agrees_with_the_models_own_head():
    """The same rotation and placement as the reduced head of the face model."""
    model_head = pytest.importorskip("vasa_jax.face.head.head")
    from vasa_jax.synth.person import mesh_head

    assert mesh_head.CAMERA_CM == model_head.CAMERA_CM
    np.testing.assert_allclose(mesh_head.PIVOT_CM, model_head.PIVOT_CM)
    angles = np.array([0.3, -0.2, 0.15], np.float32)
    ours = mesh_head.rotation(*angles)
    np.testing.assert_allclose(ours, model_head.rotation(*angles), atol=1e-6)
    gaze = np.array([0.2, 0.1], np.float32)
    np.testing.assert_allclose(
        mesh_head.eye_in_head(ours, gaze), model_head.eye_in_head(ours, gaze), atol=1e-5
    )


def test_masks_and_depth_lie_under_the_face(person, head):
    image, truth = still(person, head)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    x, y = (truth.landmarks68[NOSE] * SIZE).astype(int)
    assert synthetic.SEGMENTS[truth.segments[y, x]] == "face"
    assert synthetic.SEGMENTS[truth.segments[2, 2]] == "background"
    assert 40 < truth.depth[y, x] < 70 and truth.depth[2, 2] == 0


def test_one_seed_one_person_one_picture(head):
    a = still(make_person(5, head, texture=128), head, yaw=0.1)[0]
    b = still(make_person(5, head, texture=128), head, yaw=0.1)[0]
    c = still(make_person(6, head, texture=128), head, yaw=0.1)[0]
    np.testing.assert_array_equal(a, b)
    assert np.abs(a.astype(int) - c).mean() > 3


def test_a_bad_motion_or_head_is_refused(person, head, tmp_path):
    with pytest.raises(UserError, match="54 finite numbers"):
        synthetic.render_still(person, np.full(54, np.nan), head=head)
    with pytest.raises(UserError, match="no head model"):
        load_mesh_head(str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a facekit"):
        load_mesh_head(str(tmp_path / "bad.npz"))


def test_stills_hold_what_they_promise_and_are_kept(tmp_path):
    synthetic.write_stills(tmp_path, identities=1, frames=2, size=32, quiet=True)
    path = tmp_path / "id_00000.npz"
    with np.load(path) as z:
        assert z["images"].shape == (2, 32, 32, 3) and z["images"].dtype == np.uint8
        assert z["motion"].shape == (2, 54) and z["segments"].shape == (2, 32, 32)
        assert z["screen"].shape[:1] == (2,) and z["landmarks68"].shape == (2, 68, 2)
    stamp = path.stat().st_mtime_ns
    synthetic.write_stills(tmp_path, identities=1, frames=2, size=32, quiet=True)
    assert path.stat().st_mtime_ns == stamp


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    out = tmp_path_factory.mktemp("clips")
    settings = clips.ClipSettings(seed=1, seconds=0.6, size=32, masks=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice, "joe_available", lambda: False)  # its graph takes seconds to load
        clips.render_clips(out, settings, 2)
        yield out, settings


def test_clips_have_truth_for_every_frame(folder):
    out, _ = folder
    lines = [json.loads(x) for x in (out / "manifest.jsonl").read_text().splitlines()]
    assert [x["index"] for x in lines] == [0, 1]
    with np.load(out / lines[0]["truth"]) as z:
        frames = lines[0]["frames"]
        assert frames == 15
        for name in ("motion", "gaze", "emotion", "landmarks68", "viseme", "frame_placement"):
            assert len(z[name]) == frames, name
        assert z["segments"].shape == (2, 32, 32)
        assert z["phoneme_times"][-1, 1] == pytest.approx(0.6, abs=1e-3)
        np.testing.assert_allclose(
            z["motion"][:, :3], z["motion_relative"][:, :3] + z["portrait_pose"], atol=1e-6
        )


def test_finished_clips_are_skipped_and_missing_ones_made_the_same(folder):
    import shutil

    out, settings = folder
    with np.load(out / "clips/000001/truth.npz") as z:
        before = {k: z[k] for k in z.files}
    movie = (out / "clips/000001/clip.mp4").read_bytes()
    stamp = (out / "clips/000000/clip.mp4").stat().st_mtime_ns
    shutil.rmtree(out / "clips/000001")
    lines = clips.render_clips(out, settings, 2)
    assert [x["cached"] for x in lines] == [True, False]
    assert (out / "clips/000000/clip.mp4").stat().st_mtime_ns == stamp
    with np.load(out / "clips/000001/truth.npz") as z:
        for k, value in before.items():
            np.testing.assert_array_equal(z[k], value, err_msg=k)
    assert (out / "clips/000001/clip.mp4").read_bytes() == movie
    assert not list((out / "clips").glob(".*"))


def test_another_setting_needs_another_folder(folder):
    out, _ = folder
    with pytest.raises(UserError, match="other settings"):
        clips.render_clips(out, clips.ClipSettings(seed=2, seconds=0.6, size=32, masks=2), 1)
    with pytest.raises(UserError, match="at least one"):
        clips.render_clips(out, clips.ClipSettings(), 0)


def test_a_contact_sheet_is_drawn(folder):
    out, settings = folder
    path = clips.contact_sheet(out, clips.render_clips(out, settings, 2))
    assert path.stat().st_size > 1000
