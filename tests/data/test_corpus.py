"""Shards read clip by clip, and people who are either trained on or held out."""

import pickle

import numpy as np
import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLES_PER_FRAME
from vasa_jax.data.corpus import MotionCorpus
from vasa_jax.data.shards import Shard, read_shard, write_shard
from vasa_jax.synth import acted


def clips_of(*people, seed=0):
    clips = acted.toy_clips(count=len(people), frames=30, seed=seed)
    return [clip._replace(person=name) for clip, name in zip(clips, people, strict=True)]


def test_a_shard_gives_back_its_clips(tmp_path):
    made = clips_of("anna", "", "bert")
    made[1] = made[1]._replace(
        samples=made[1].samples[: 7 * SAMPLES_PER_FRAME], motion=made[1].motion[:7],
        viseme=made[1].viseme[:7], speech=False,
        controls=type(made[1].controls)(*(x[:7] for x in made[1].controls)),
    )  # fmt: skip
    path = tmp_path / "a.array_record"
    write_shard(path, [c._replace(samples=c.samples.astype(np.float32) / 32767) for c in made])
    for clip, wanted in zip(read_shard(path), made, strict=True):
        assert (clip.person, clip.speech) == (wanted.person, wanted.speech)
        assert clip.samples.dtype == np.int16 and clip.motion.dtype == np.float32
        np.testing.assert_allclose(clip.samples, wanted.samples, atol=1)
        for ours, theirs in zip(clip.controls, wanted.controls, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
        np.testing.assert_allclose(clip.motion, wanted.motion, atol=1e-3)
        np.testing.assert_array_equal(clip.viseme, wanted.viseme)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.array_record", "a.parquet"]


def test_motion_of_earlier_versions_is_named_with_what_to_do(tmp_path):
    np.savez(tmp_path / "a.npz", length=np.zeros(1))
    with pytest.raises(UserError, match="make it again with python -m vasa_jax.prepare.shards"):
        MotionCorpus((str(tmp_path),))


def test_what_is_no_whole_shard_is_named(tmp_path):
    path = tmp_path / "a.array_record"
    write_shard(path, clips_of("anna", "bert"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="its shard is damaged"):
        read_shard(path)
    path.with_suffix(".parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="a.parquet is no whole manifest"):
        Shard(path)


def test_workers_get_an_index_and_no_copy_of_the_clips(tmp_path):
    write_shard(tmp_path / "a.array_record", clips_of(*"abcdefgh"))
    corpus = MotionCorpus((str(tmp_path),))
    train, held = corpus.split(0.2)
    sent = pickle.dumps((corpus, train, held))
    assert len(sent) < 0.1 * (tmp_path / "a.array_record").stat().st_size
    for ours, theirs in zip((corpus, train, held), pickle.loads(sent), strict=True):
        for one, other in zip(ours.clips, theirs.clips, strict=True):
            np.testing.assert_array_equal(one.samples, other.samples)
    assert corpus.clips.samples(3).tobytes() == corpus.clips[3].samples.tobytes()


def test_statistics_are_those_of_the_clips_weighted_by_their_shares(tmp_path):
    kinds = {"a": clips_of("", "", seed=1), "b": clips_of("", seed=2)}
    for name, clips in kinds.items():
        write_shard(tmp_path / name / "s.array_record", clips)
    corpus = MotionCorpus([str(tmp_path / name) for name in kinds], (0.25, 0.75))
    groups = [np.concatenate([c.motion for c in clips]) for clips in kinds.values()]
    mean = 0.25 * groups[0].mean(0) + 0.75 * groups[1].mean(0)
    square = 0.25 * np.square(groups[0]).mean(0) + 0.75 * np.square(groups[1]).mean(0)
    found = corpus.stats()
    np.testing.assert_allclose(found.mean, mean, atol=1e-3)
    np.testing.assert_allclose(
        found.std, np.maximum(np.sqrt(square - mean**2), 0.02), rtol=0.01, atol=1e-3
    )
    assert corpus.frames == 90
    with pytest.raises(UserError, match="1 numbers for 2"):
        MotionCorpus([str(tmp_path / name) for name in kinds], (1.0,))


def people(corpus):
    return {c.person for c in corpus.clips}


def test_nobody_is_held_out_and_trained_on():
    names = [name for name in "abcdefghij" for _ in range(4)]
    train, held = MotionCorpus.of(clips_of(*names)).split(0.1)
    assert people(held) == {"j"} and people(train) == set("abcdefghi")
    # More than was asked for rather than a part of somebody; then who has the fewest.
    names = ["a"] * 8 + ["b"] * 3 + ["c"] * 9
    train, held = MotionCorpus.of(clips_of(*names)).split(0.05)
    assert people(held) == {"b"} and people(train) == {"a", "c"}


def test_who_is_held_out_of_one_folder_is_held_out_of_all(tmp_path):
    write_shard(tmp_path / "a" / "s.array_record", clips_of(*"abcdabcd", seed=1))
    write_shard(tmp_path / "b" / "s.array_record", clips_of(*"ddefefgg", seed=2))
    train, held = MotionCorpus([str(tmp_path / n) for n in "ab"]).split(0.25)
    assert not people(train) & people(held)
    assert people(held) == {"d", "g"} and (train.sizes, held.sizes) == ([6, 4], [2, 4])


def test_of_a_folder_with_one_person_the_last_clips_are_held_out(tmp_path):
    write_shard(tmp_path / "a" / "s.array_record", clips_of(*["anna"] * 10, seed=1))
    write_shard(tmp_path / "b" / "s.array_record", clips_of(*"bcde", "anna", seed=2))
    train, held = MotionCorpus([str(tmp_path / n) for n in "ab"]).split(0.2)
    assert (train.sizes, held.sizes) == ([8, 4], [2, 1])
    assert "e" in people(held)  # not Anna, whose clips are needed
