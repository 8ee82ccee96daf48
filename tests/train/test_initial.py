"""What a run takes over from the run or release that it starts from."""

import json

import numpy as np
import pytest

from vasa_jax.checkpoint.release import load_release
from vasa_jax.data.corpus import MotionCorpus
from vasa_jax.synth.acted import toy_clips
from vasa_jax.train.motion import MotionTrainConfig, motion_tables


@pytest.fixture(scope="module")
def corpus():
    return MotionCorpus.of(toy_clips())


def test_weights_bring_the_statistics_they_were_trained_with(corpus):
    theirs = load_release("lite").stats["motion"]["motion"]
    taken = motion_tables(MotionTrainConfig(initial="lite"), corpus)
    assert taken == {"motion": theirs}
    own = motion_tables(MotionTrainConfig(), corpus)["motion"]
    np.testing.assert_allclose(own["mean"], corpus.stats().mean)
    assert own != theirs


def test_statistics_that_are_named_come_before_those_of_the_weights(corpus, tmp_path):
    table = {"motion": corpus.stats().to_json()}
    path = tmp_path / "stats.json"
    path.write_text(json.dumps(table))
    kept = motion_tables(MotionTrainConfig(initial="lite", stats=str(path)), corpus)
    assert kept == table
