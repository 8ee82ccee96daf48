from __future__ import annotations

import json

import numpy as np
import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS
from vasa_jax.generate import controls as asked


def test_nothing_asked_switches_nothing_on():
    c = asked.controls().rows(10)
    assert not c.gaze_on.any() and not c.distance_on.any() and not c.emotion_on.any()


def test_a_track_is_linear_between_points_and_constant_beyond():
    c = asked.controls(gaze=[[0.4, 0, 0], [0.8, 40, -20]]).rows(30)
    yaw, pitch = np.degrees(c.gaze).T
    np.testing.assert_allclose(yaw[:11], 0, atol=1e-4)  # until 0.4 s = frame 10
    assert yaw[15] == pytest.approx(20, abs=1e-3) and pitch[15] == pytest.approx(-10, abs=1e-3)
    np.testing.assert_allclose(yaw[20:], 40, atol=1e-4)
    assert (c.gaze_on == 1).all()


def test_constants_need_no_times():
    c = asked.controls(gaze=[10, 5], distance=0.8, emotion={"happiness": 0.5}).rows(3)
    np.testing.assert_allclose(np.degrees(c.gaze), [[10, 5]] * 3, atol=1e-4)
    np.testing.assert_allclose(c.distance, 0.8)
    np.testing.assert_allclose(c.emotion[:, EMOTIONS.index("happy")], 0.5)
    assert c.emotion.sum() == pytest.approx(1.5)


def test_a_file_means_the_same_as_the_numbers_in_it(tmp_path):
    entry = {"distance": [[0, 1], [1, 1.2]], "emotion": {"sad": [[0, 0], [2, 1]]}}
    (tmp_path / "c.json").write_text(json.dumps(entry))
    ours, theirs = asked.read_controls(tmp_path / "c.json"), asked.controls(**entry)
    for a, b in zip(ours.rows(40), theirs.rows(40), strict=True):
        np.testing.assert_array_equal(a, b)


def test_options_win_over_the_file():
    both = asked.controls(gaze=[10, 0]).over(asked.controls(gaze=[-5, 0], distance=0.9))
    c = both.rows(2)
    assert np.degrees(c.gaze[0, 0]) == pytest.approx(10) and c.distance[0] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"gaze": [90, 0]}, "90 is outside -45 to 45"),
        ({"gaze": [10, 40]}, "40 is outside -30 to 30"),
        ({"gaze": "left"}, "gaze"),
        ({"gaze": [[0, 1]]}, "expected"),
        ({"gaze": []}, "expected"),
        ({"distance": 3}, "3 is outside 0.6 to 1.6"),
        ({"distance": [[1, 1], [0, 1]]}, "rise"),
        ({"distance": [[0, float("nan")]]}, "finite"),
        ({"emotion": {"hapy": 1}}, "did you mean 'happy'"),
        ({"emotion": {"sad": 2}}, "2 is outside 0 to 1"),
    ],
)
def test_a_bad_entry_is_named(entry, says):
    with pytest.raises(UserError, match=says) as caught:
        asked.controls(**entry)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [("[1]", "expected an object"), ("{", "not JSON"), ('{"gase": 1}', "did you mean 'gaze'"),
     ('{"emotion": 1}', "emotion")],
)  # fmt: skip
def test_a_bad_file_is_named(tmp_path, text, says):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match=says) as caught:
        asked.read_controls(tmp_path / "c.json")
    assert "c.json" in str(caught.value)


def test_options_are_read_as_people_write_them():
    assert asked.parse_gaze("-20, 5") == [-20.0, 5.0]
    assert asked.parse_gaze("15") == [15.0, 0.0]
    assert asked.parse_emotions(["Happiness=0.8", "sad"]) == {"happy": 0.8, "sad": 1.0}
    assert asked.parse_guidance("audio=0.5,gaze=1") == {"audio": 0.5, "gaze": 1.0}
    for parse, text in (
        (asked.parse_gaze, "left"), (asked.parse_gaze, "1,2,3"), (asked.parse_guidance, "audio"),
        (asked.parse_guidance, "audi=1"), (asked.parse_guidance, "audio=-1"),
    ):  # fmt: skip
        with pytest.raises(UserError):
            parse(text)
    with pytest.raises(UserError, match="did you mean 'angry'"):
        asked.parse_emotions(["angri=1"])
