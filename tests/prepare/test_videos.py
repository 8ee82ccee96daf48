"""Clips from videos: pose relative to itself, measured controls, and what no face does."""

import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION, GAZE, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import POSE, SAMPLES_PER_FRAME
from vasa_jax.motion.arkit.lips import lip_gap_cm
from vasa_jax.prepare import videos
from vasa_jax.synth.speech import voice


def test_a_clips_pose_is_relative_and_its_gaze_known():
    rng = np.random.default_rng(0)
    motion = rng.normal(size=(50, 54)).astype(np.float32) * 0.1 + 0.3
    clip = videos.real_clip(np.zeros(60 * SAMPLES_PER_FRAME, np.float32), motion)
    assert len(clip.samples) == 50 * SAMPLES_PER_FRAME
    np.testing.assert_allclose(np.median(clip.motion[:, POSE], axis=0), 0, atol=1e-6)
    np.testing.assert_array_equal(clip.motion[:, 9:], motion[:, 9:])
    np.testing.assert_allclose(clip.controls.gaze[0], np.median(motion[:, GAZE], axis=0))
    assert clip.controls.gaze_on.all() and not clip.controls.emotion_on.any()
    assert (clip.viseme == -1).all()


def test_frames_without_a_face_repeat_and_a_video_of_nobody_is_left_out(tmp_path, monkeypatch):
    seen = {}
    landmarks = np.tile(np.arange(30, dtype=np.float32)[:, None, None], (1, 478, 3))
    landmarks[[0, 7]] = np.nan
    monkeypatch.setattr(videos, "video_landmarks", lambda path, kept: landmarks)
    monkeypatch.setattr(
        videos, "video_sound", lambda path: np.zeros(30 * SAMPLES_PER_FRAME, np.float32)
    )
    monkeypatch.setattr(videos, "landmark_clip", lambda x, s, r: seen.update(x=x, s=s))
    videos.video_clip(tmp_path / "a.mp4", reader=None, audio_late_frames=2)
    assert [seen["x"][i, 0, 0] for i in (0, 6, 7, 8)] == [1, 6, 6, 8]
    assert len(seen["s"]) == 28 * SAMPLES_PER_FRAME
    landmarks[:10] = np.nan
    assert videos.video_clip(tmp_path / "a.mp4", reader=None) is None


def test_early_sound_is_shifted_as_late_sound_is(tmp_path, monkeypatch):
    sound, got = np.arange(1, 30 * SAMPLES_PER_FRAME + 1, dtype=np.float32), []
    monkeypatch.setattr(videos, "video_landmarks", lambda path, kept: np.zeros((30, 478, 3)))
    monkeypatch.setattr(videos, "video_sound", lambda path: sound)
    monkeypatch.setattr(videos, "landmark_clip", lambda x, samples, r: got.append(samples))
    for late in (1.5, 0, -1.5):
        videos.video_clip(tmp_path / "a.mp4", reader=None, audio_late_frames=late)
    half = 3 * SAMPLES_PER_FRAME // 2
    np.testing.assert_array_equal(got[0], sound[half:])
    np.testing.assert_array_equal(got[1], sound)
    np.testing.assert_array_equal(got[2][half:], sound)
    assert len(got[2]) == len(sound) + half and not got[2][:half].any()


def test_lips_shut_on_the_m_that_is_heard_and_nowhere_else(monkeypatch):
    frames, rng = 30, np.random.default_rng(0)
    said = [("a", 0.0, 0.5), ("m", 0.5, 0.62), ("a", 0.62, 1.2)]
    spans = [voice.Phoneme(*p) for p in said]
    monkeypatch.setattr(videos, "recognised", lambda samples: voice.Speech(samples, spans))
    monkeypatch.setattr(videos, "typical_rest", lambda landmarks, silent: None)

    class Reader:
        def rest(self, found):
            return found

        def __call__(self, landmarks, rest):
            motion = np.zeros((len(landmarks), 54), np.float32)
            motion[:, MOTION_INDEX["jawOpen"]] = 0.3
            return motion

    landmarks = np.tile(rng.uniform(100, 300, (1, 478, 3)), (frames, 1, 1))
    sound = rng.normal(0, 0.05, frames * SAMPLES_PER_FRAME).astype(np.float32)
    gap = lip_gap_cm(videos.landmark_clip(landmarks, sound, Reader()).motion[:, EXPRESSION])
    assert gap[13:15].max() < 0.05  # 0.52 to 0.6 s
    np.testing.assert_allclose(gap[[2, 6, 22, 27]], 0.3 * 3.27, rtol=1e-3)  # as it was read


def test_kept_landmarks_are_not_looked_for_again(tmp_path):
    np.savez(tmp_path / "clip.npz", landmarks=np.ones((3, 478, 3), np.float32))
    assert videos.video_landmarks(tmp_path / "nowhere" / "clip.mp4", tmp_path).shape == (3, 478, 3)


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(UserError, match="motion_encoder"):
        videos.load_reader(tmp_path)


def test_mouth_names_are_where_they_were():
    assert MOTION_INDEX["jawOpen"] == 27  # shards are written by number
