"""Training windows: sound and motion stay together at any speed; held-out clips stay apart."""

import dataclasses

import jax
import numpy as np
import pytest

from vasa_jax.audio.features import FeatureConfig
from vasa_jax.core.arkit import MOTION_INDEX
from vasa_jax.core.types import SAMPLES_PER_FRAME
from vasa_jax.data import motions
from vasa_jax.data.augment import AugmentConfig, sound_at
from vasa_jax.data.corpus import MotionCorpus
from vasa_jax.data.motions import MotionDataConfig, MotionWindows
from vasa_jax.data.shards import write_shard
from vasa_jax.synth import acted

CLEAN = AugmentConfig(gain_db=0, noise=0, tilt=0, band=0, reverb=0, saturate=0, speed=0)
JAW = MOTION_INDEX["jawOpen"]


def windows(corpus: MotionCorpus, augment: AugmentConfig, batch: int = 4) -> MotionWindows:
    cfg = MotionDataConfig(batch=batch, augment=augment)
    return MotionWindows(cfg, corpus, FeatureConfig(), window=30, past=6, lookahead=2)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_sound_and_motion_stay_together_at_any_speed(speed):
    """The toy's jaw opens with the loudness, so the two must correlate best at no lag."""
    augment = dataclasses.replace(CLEAN, speed=1.0, speed_range=(speed, speed))
    made = windows(MotionCorpus.of(acted.toy_clips()), augment, batch=16)
    scores = np.zeros(5)
    for step in range(4):
        batch = made.batch(step)
        loud = batch["features"].mean(-1)[:, :36]
        jaw = batch["motion"][..., JAW]
        ok = batch["motion_valid"] & batch["audio_valid"][:, :36]
        for i, lag in enumerate((-2, -1, 0, 1, 2)):
            a, b = loud[:, 2:-2], np.roll(jaw, -lag, axis=1)[:, 2:-2]
            sound_valid = ok[:, 2:-2] & np.roll(ok, -lag, axis=1)[:, 2:-2]
            scores[i] += np.corrcoef(a[sound_valid], b[sound_valid])[0, 1] / 4
    assert scores.argmax() == 2, scores
    assert scores[2] > 0.6


def test_speed_moves_motion_between_frames_linearly():
    values = np.arange(10, dtype=np.float32)[:, None]
    got = motions._between(values, np.array([0.0, 2.25, 8.5, 9.0]))
    np.testing.assert_allclose(got[:, 0], [0.0, 2.25, 8.5, 9.0])


def test_sound_outside_the_clip_is_silent():
    samples = np.full(10 * SAMPLES_PER_FRAME, 16384, np.int16)
    sound = sound_at(samples, -5, 20, 1.0)
    assert len(sound) == 20 * SAMPLES_PER_FRAME
    assert np.all(sound[: 5 * SAMPLES_PER_FRAME] == 0)
    assert np.all(sound[-5 * SAMPLES_PER_FRAME :] == 0)
    np.testing.assert_allclose(
        sound[5 * SAMPLES_PER_FRAME : -5 * SAMPLES_PER_FRAME], 0.5, atol=1e-4
    )


def test_held_out_clips_are_the_end_of_the_folder_and_never_trained():
    corpus = MotionCorpus.of(acted.toy_clips(count=20))
    train, held = corpus.split(0.1)
    assert list(map(id, held.clips)) == list(map(id, corpus.clips[18:]))
    assert list(map(id, train.clips)) == list(map(id, corpus.clips[:18]))
    assert train.probability.sum() == pytest.approx(1.0)


def test_every_folder_keeps_its_share_when_split(tmp_path):
    for name, count in (("a", 10), ("b", 40)):
        clips = acted.toy_clips(count=count, frames=60, seed=count)
        write_shard(tmp_path / name / "s.array_record", clips)
    folders = (str(tmp_path / "a"), str(tmp_path / "b"))
    train, held = MotionCorpus(folders, (0.8, 0.2)).split(0.1)
    assert (train.sizes, held.sizes) == ([9, 36], [1, 4])
    for part in (train, held):
        assert part.probability[: part.sizes[0]].sum() == pytest.approx(0.8)
    sounds = [{clip.samples.tobytes() for clip in part.clips} for part in (train, held)]
    assert not sounds[0] & sounds[1]


def test_a_batch_is_a_function_of_its_step():
    made = windows(MotionCorpus.of(acted.toy_clips()), AugmentConfig())
    a, b, other = made.batch(3), made.batch(3), made.batch(4)
    np.testing.assert_array_equal(a["features"], b["features"])
    assert not np.array_equal(a["features"], other["features"])


@pytest.mark.parametrize(("rows", "per"), [(slice(2, 4), 1), (slice(1, 3), 2), (slice(0, 1), 2)])
def test_rows_made_alone_are_those_of_the_whole_batch(rows, per):
    made = windows(MotionCorpus.of(acted.toy_clips()), AugmentConfig())
    made.cfg = dataclasses.replace(made.cfg, windows_per_clip=per)
    whole, some = made.batch(5), made.batch(5, rows)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(some), strict=True):
        # Features are made by a program for another number of rows.
        np.testing.assert_allclose(a[rows], b, rtol=1e-6, atol=1e-6)
