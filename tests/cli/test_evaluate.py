"""The evaluate command's own logic; no nets."""

from __future__ import annotations

import argparse

import pytest

from vasa_jax.cli import evaluate
from vasa_jax.core.errors import UserError
from vasa_jax.metrics import sync


def _parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args(words)


def test_pairs_are_different_and_use_everybody():
    portraits, speeches = list("abcd"), list("xy")
    pairs = evaluate._pairs(portraits, speeches, 8)
    assert len(set(pairs)) == 8
    assert {p for p, _ in pairs[:4]} == set(portraits)
    assert len(evaluate._pairs(portraits, speeches, 100)) == 8


def test_an_unknown_judge_is_refused():
    args = _parse("video", "a.mp4", "--judges", "mobileface,arcface")
    with pytest.raises(UserError, match="arcface"):
        evaluate.run(args)


def test_a_folder_without_pictures_says_so(tmp_path):
    with pytest.raises(UserError, match="holds no image file"):
        evaluate._files(str(tmp_path), evaluate.IMAGES, "image")
    with pytest.raises(UserError, match="no such folder"):
        evaluate._files(str(tmp_path / "none"), evaluate.IMAGES, "image")


def test_a_clip_without_speech_is_reported_too(capsys):
    clip = dict.fromkeys(sync.SYNC_KEYS, float("nan")) | {"num_closures": 0, "frames": 200}
    evaluate._say(0, 3, "silence", clip, 0.0)
    assert capsys.readouterr().out.startswith("[1/3] silence: sync nan at +nan, 200 frames")
