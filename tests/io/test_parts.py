from __future__ import annotations

import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.io.parts import Parts


def test_parts_are_made_once_and_removed_at_the_end(tmp_path):
    result, made = tmp_path / "result.json", []

    def make():
        made.append(1)
        return {"x": [1.5, float("nan")]}

    first = Parts(result, {"seed": 1}).part("a", make)
    again = Parts(result, {"seed": 1})
    assert str(again.part("a", make)) == str(first) and len(made) == 1
    assert again.has("a.json") and not again.has("b.json")
    again.finished()
    assert not list(tmp_path.iterdir())


def test_other_settings_do_not_mix(tmp_path):
    Parts(tmp_path / "r.json", {"seed": 1, "judges": ("a",)})
    Parts(tmp_path / "r.json", {"seed": 1, "judges": ("a",)})
    with pytest.raises(UserError, match="other settings"):
        Parts(tmp_path / "r.json", {"seed": 2, "judges": ("a",)})


def test_a_failure_keeps_nothing_of_its_part(tmp_path):
    parts = Parts(tmp_path / "r.json", {})
    with pytest.raises(ZeroDivisionError):
        parts.part("a", lambda: 1 / 0)
    assert parts.part("a", lambda: 3) == 3


def test_without_a_result_nothing_is_kept():
    parts = Parts(None, {})
    assert parts.part("a", lambda: 1) == 1
    assert parts.part("a", lambda: 2) == 2
