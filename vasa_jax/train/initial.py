"""Weights that a fresh run starts from or learns from: another run's average, or a release's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax

from vasa_jax.checkpoint import train_state
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core import config as configs
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import differences
from vasa_jax.motion.model import MotionModelConfig, init_params


def initial_weights(source: str, part: str, params: Any) -> Any:
    """Parameters like ``params`` from ``source``: a run folder, or a release's ``part``.

    An empty source gives ``params`` back. UserError when the found tree does not fit.
    """
    if not source:
        return params
    if (Path(source) / train_state.FOLDER).is_dir():
        _, found = train_state.read_params(source, item="ema")
    else:
        found = load_release(source).params.get(part, {})
    wrong = differences(params, found)
    if wrong:
        raise UserError(f"the weights in {source} do not fit this config: {'; '.join(wrong[:3])}")
    return found


def initial_tables(source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """``config.json`` and ``stats.json`` of a motion run, or those of a release's motion part."""
    folder = Path(source)
    if (folder / train_state.FOLDER).is_dir():
        config, stats = (
            json.loads((folder / name).read_text()) for name in ("config.json", "stats.json")
        )
        return config, stats
    release = load_release(source)
    return release.config["motion"], release.stats["motion"]


def load_teacher(source: str, model: MotionModelConfig) -> tuple[Any, dict[str, Any]]:
    """Motion weights and the ``stats.json`` table of a run folder or release.

    UserError when there is no source, or its model is not ``model`` (precision aside).
    """
    if not source:
        raise UserError("no teacher; name a motion run or release, as in --set teacher=lite")
    config, stats = initial_tables(source)
    theirs = configs.to_json(configs.from_json(MotionModelConfig, config["model"]))
    ours = configs.to_json(model)
    wrong = [f"{name} is {theirs[name]}" for name in ours if ours[name] != theirs[name]]
    wrong = [text for text in wrong if not text.startswith("precision ")]
    if wrong:
        raise UserError(f"the teacher {source} has another model: {'; '.join(wrong)}")
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = jax.tree.map(jax.numpy.asarray, initial_weights(source, "motion", shapes))
    return params, stats
