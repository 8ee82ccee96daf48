"""Weights that a fresh run starts from: another run's average, or a part of a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vasa_jax.checkpoint import train_state
from vasa_jax.checkpoint.release import load_release
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import differences


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
