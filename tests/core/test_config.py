from __future__ import annotations

import dataclasses
import enum
import json
from pathlib import Path
from typing import Literal

import pytest

from vasa_jax.core.config import from_json, load_config, override, to_json
from vasa_jax.core.errors import UserError


class Kind(enum.Enum):
    SMALL = 1
    LARGE = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-3
    warmup_steps: int = 100
    clip: float | None = None
    schedule: Literal["cosine", "flat"] = "cosine"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    name: str = "run"
    optim: Optim = Optim()
    widths: tuple[int, ...] = (8, 16)
    range: tuple[float, float] = (0.0, 1.0)
    kind: Kind = Kind.SMALL
    debug: bool = False
    weights: dict[str, float] = dataclasses.field(default_factory=lambda: {"pixel": 1.0})
    folder: Path | None = None
    extra: Optim | None = None

    def __post_init__(self) -> None:
        if self.range[0] > self.range[1]:
            raise ValueError("range must rise")


def test_text_is_read_as_the_annotation_says() -> None:
    cfg = override(Run(), [
        "optim.lr=1e-4", "optim.warmup_steps=2_000", "optim.clip=3", "optim.schedule=flat",
        "widths=4,8,16", "range=[-1, 1]", "kind=LARGE", "debug=true", "name=12",
        "weights.pixel=0.5", "weights.edge=2", "folder=some/where", 'extra={"lr": 2}',
    ])  # fmt: skip
    assert cfg.optim == Optim(lr=1e-4, warmup_steps=2000, clip=3.0, schedule="flat")
    assert cfg.widths == (4, 8, 16) and cfg.range == (-1.0, 1.0) and cfg.kind is Kind.LARGE
    assert cfg.debug is True and cfg.name == "12" and cfg.folder == Path("some/where")
    assert cfg.weights == {"pixel": 0.5, "edge": 2} and cfg.extra == Optim(lr=2.0)
    assert isinstance(cfg.optim.clip, float)
    assert override(cfg, ["optim.clip=none"]).optim.clip is None
    assert override(cfg, ["widths=5"]).widths == (5,)


@pytest.mark.parametrize("setting, part", [
    ("optim.lrr=1", "did you mean 'lr'"),
    ("optm.lr=1", "did you mean 'optim'"),
    ("optim.warmup_steps=1.5", "expected int"),
    ("optim.schedule=cosin", "optim.schedule"),
    ("debug=maybe", "expected bool"),
    ("range=1,2,3", "range"),
    ("range=2,1", "range must rise"),
    ("optim.lr.x=1", "plain value"),
    ("optim.lr", "NAME=VALUE"),
])  # fmt: skip
def test_a_wrong_setting_is_answered_with_what_would_be_right(setting: str, part: str) -> None:
    with pytest.raises(UserError, match=part.replace("(", r"\(")):
        override(Run(), [setting])


def test_json_comes_back_as_the_same_configuration() -> None:
    cfg = override(Run(), ["kind=LARGE", "widths=1,2,3", "folder=a/b", 'extra={"lr": 2}'])
    assert from_json(Run, json.loads(json.dumps(to_json(cfg)))) == cfg


def test_json_with_an_unknown_or_mistyped_entry_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'optim'"):
        from_json(Run, {"optimm": {}})
    with pytest.raises(UserError, match="Run.optim.lr: expected float"):
        from_json(Run, {"optim": {"lr": "fast"}})


def test_a_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError):
        to_json({"f": print})


CONFIG = """
import dataclasses
@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
    steps: int = 10
VARIANTS = ("base", "smoke")
def get_config(variant="base"):
    return {"base": Thing(), "smoke": Thing(steps=1)}[variant]
"""


def test_a_config_file_gives_the_variant_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "thing_lite.py"
    path.write_text(CONFIG)
    assert load_config(str(path)).steps == 10
    assert load_config(f"{path}:smoke").steps == 1
    with pytest.raises(UserError, match="it has base, smoke"):
        load_config(f"{path}:smok")
    with pytest.raises(UserError, match="did you mean 'thing_lite.py'"):
        load_config(str(tmp_path / "thing_lit.py"))
