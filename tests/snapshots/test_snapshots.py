"""Every configuration's resolved values and every model's parameter tree, kept as files.

A change of a default, a width or a parameter's name shows here as a difference to be read and
agreed to: ``VASA_UPDATE_SNAPSHOTS=1 pytest tests/snapshots`` writes the files anew.
"""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest

from vasa_jax.bench.models import MODELS, model_of
from vasa_jax.core.config import load_config, to_json
from vasa_jax.core.tree import flatten

pytestmark = pytest.mark.usefixtures("broadcasting")

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


def variants(path: Path) -> tuple[str, ...]:
    """The variants that a configuration file says it has."""
    return tuple(runpy.run_path(str(path))["VARIANTS"])


def compare(path: Path, text: str) -> None:
    """Equal to the kept file; written instead where the environment asks for it."""
    if os.environ.get("VASA_UPDATE_SNAPSHOTS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no snapshot {path.name}; VASA_UPDATE_SNAPSHOTS=1 writes it"
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_resolved_configuration(path: Path) -> None:
    resolved = {name: to_json(load_config(f"{path}:{name}")) for name in variants(path)}
    compare(HERE / "configs" / f"{path.stem}.json", json.dumps(resolved, indent=1) + "\n")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_parameter_tree(path: Path) -> None:
    cfg = load_config(str(path))
    if type(getattr(cfg, "model", None)).__name__ not in MODELS:
        pytest.skip("trains no model of its own kind")
    params = model_of(cfg, path.name).parameters(cfg.model)
    lines = [f"{name} {leaf.dtype}{list(leaf.shape)}" for name, leaf in flatten(params).items()]
    compare(HERE / "parameters" / f"{path.stem}.txt", "\n".join(lines) + "\n")


def test_no_snapshot_is_left_over() -> None:
    kept = {path.stem for folder in ("configs", "parameters") for path in (HERE / folder).iterdir()}
    assert kept <= {path.stem for path in CONFIGS}
