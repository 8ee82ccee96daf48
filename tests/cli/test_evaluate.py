"""What evaluate does around its nets."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from vasa_jax.cli import evaluate, files
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS
from vasa_jax.evaluate import clips, obedience
from vasa_jax.metrics import sync


def _parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args(words)


def test_pairs_are_different_and_use_everybody():
    portraits, speeches = list("abcd"), list("xy")
    pairs = clips.pairs(portraits, speeches, 8)
    assert len(set(pairs)) == 8
    assert {p for p, _ in pairs[:4]} == set(portraits)
    assert len(clips.pairs(portraits, speeches, 100)) == 8


def test_an_unknown_judge_is_refused():
    args = _parse("video", "a.mp4", "--judges", "mobileface,arcface")
    with pytest.raises(UserError, match="arcface"):
        evaluate.run(args)


def test_a_folder_without_pictures_says_so(tmp_path):
    with pytest.raises(UserError, match="holds no image file"):
        files.files_of(str(tmp_path), files.IMAGES, "image")
    with pytest.raises(UserError, match="no such folder"):
        files.files_of(str(tmp_path / "none"), files.IMAGES, "image")


def test_a_clip_without_speech_is_reported_too(capsys):
    silent = dict.fromkeys(sync.SYNC_KEYS, float("nan")) | {"num_closures": 0, "frames": 200}
    evaluate._Timed()(0, 3, "silence", silent)
    assert capsys.readouterr().out.startswith("[1/3] silence: sync nan at +nan, 200 frames")


def test_everything_is_asked_for_beside_a_neutral_clip():
    neutral = obedience.tracks_of("neutral", None).rows(2)
    assert neutral.gaze_on.all() and not neutral.gaze.any() and (neutral.distance == 1).all()
    assert (neutral.emotion[0, EMOTIONS.index("neutral")], neutral.emotion.sum()) == (1, 2)
    asked = [(kind, v) for kind in obedience.KINDS for v in obedience.VALUES[kind]]
    assert len(asked) == 6 + 4 + 7 and evaluate.KINDS == obedience.KINDS
    for kind, value in asked:
        rows = obedience.tracks_of(kind, value).rows(1)
        if kind == "gaze":
            np.testing.assert_allclose(np.degrees(rows.gaze[0]), value, atol=1e-5)
        elif kind == "distance":
            assert rows.distance[0] == np.float32(value)
        else:
            assert rows.emotion[0, EMOTIONS.index(value)] == 1 and not rows.gaze_on[0]
