"""What a release is made of: runs of the right kind, their head, a card that says where they are
from. Refused here is what no verb could open afterwards.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vasa_jax.checkpoint.release import load_release
from vasa_jax.checkpoint.train_state import read_params
from vasa_jax.core.config import from_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.tree import differences, unflatten
from vasa_jax.data.folders import data_folder
from vasa_jax.face.faces import FACES, build_face, space_of_face
from vasa_jax.face.head.head import Head, head_from_arrays, load_head
from vasa_jax.face.head.reader import MotionEncoderConfig
from vasa_jax.face.volume.autoencoder import VolumetricConfig
from vasa_jax.face.warp.autoencoder import FaceConfig
from vasa_jax.generate.offline import GenerateDefaults
from vasa_jax.metrics.sync_net import SyncNetConfig
from vasa_jax.motion.latents import MotionStats
from vasa_jax.motion.model import MotionModelConfig, init_params

# Models that runs train, by the configuration of their nets.
KINDS = {
    "the lite face (configs/face_256_lite.py)": FaceConfig,
    "the full face (configs/face_256.py, face_512.py)": VolumetricConfig,
    "the motion model (configs/motion_lite.py, motion_base.py)": MotionModelConfig,
    "the motion encoder (configs/motion_encoder.py)": MotionEncoderConfig,
    "the sync judge (configs/sync_net.py)": SyncNetConfig,
}
WANTED: dict[str, tuple[type, ...]] = {
    "face": tuple(FACES.values()), "motion": (MotionModelConfig,), "student": (MotionModelConfig,),
}  # fmt: skip


def read_run(workdir: Path, part: str) -> tuple[int, Any, dict[str, Any], dict[str, Any] | None]:
    """Step, averaged weights, config and statistics (None without) of a run for ``--part``.

    Raises UserError when the folder is no run, or its model is not the one that is wanted.
    """
    step, params = read_params(workdir)
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} has no config.json; it is not a finished run folder")
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    wanted = WANTED[part]
    kind = model_kind(config.get("model"))
    if kind not in wanted:
        names = {cls: name for name, cls in KINDS.items()}
        found = f"of {names[kind]}" if kind else "of no model that is known here"
        raise UserError(
            f"{workdir} is a run {found}, but --{part} wants "
            f"{' or '.join(names[cls] for cls in wanted)}: no verb could open such a release"
        )
    if part == "face":
        config["kind"] = next(name for name, cls in FACES.items() if cls is kind)
    table = workdir / "stats.json"
    stats = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else None
    return step, params, config, stats


def model_kind(table: Any) -> type | None:
    """The class of nets that a run's ``config["model"]`` describes; None where none fits."""
    for kind in KINDS.values():
        try:
            if isinstance(table, Mapping) and table and from_json(kind, table):
                return kind
        except UserError:
            continue
    return None


def check_parts(params: Mapping[str, Any], config: Mapping[str, Any], stats: Any) -> None:
    """UserError unless weights, configurations and statistics fit each other."""
    import jax

    key = jax.random.key(0)
    head = _head(params["head"], "the head")
    motion = from_json(MotionModelConfig, _model(config, "motion"))
    space = space_of_face(config["face"], params["face"])
    space.require(motion.space, "the motion model")
    face = build_face(config["face"], head, space=space)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        shapes = {"face": jax.eval_shape(face.init, key)}
    shapes["motion"] = jax.eval_shape(lambda k: init_params(motion, k), key)
    if "student" in params:
        shapes["student"] = shapes["motion"]
        student = config["student"]
        if "model" in student:
            space.require(from_json(MotionModelConfig, student["model"]).space, "the student")
        GenerateDefaults.of(student["generate"], space)
    for part, tree in shapes.items():
        # Releases may leave out what only training needs (--drop).
        wrong = [x for x in differences(tree, params[part]) if ": missing" not in x]
        if wrong:
            raise UserError(f"the {part} weights do not fit their config: {'; '.join(wrong[:3])}")
    table = stats
    while isinstance(table, Mapping) and "names" not in table:
        table = table.get("motion")
    if table is None:
        raise UserError("the motion run has no statistics (stats.json): train it again")
    MotionStats.from_json(table, motion.motion_space)


def _model(config: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    return config[part].get("model", config[part])


def read_head(path: Path) -> dict[str, Any]:
    """All arrays of a reduced head, as ``tools/make_head.py`` writes it.

    Raises UserError when it is something else (ICT-FaceKit's whole head among it).
    """
    load_head(path)  # says what is wrong with it
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = unflatten({name: data[name] for name in data.files})
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read the head {path}: {error}") from error
    _head(arrays, str(path))
    return arrays


def _head(arrays: dict[str, Any], name: str) -> Head:
    try:
        head = head_from_arrays(arrays)
    except KeyError as error:
        raise UserError(f"{name} has no {error}: make one with tools/make_head.py") from error
    if not np.any(head.landmark_trust):
        raise UserError(f"{name} knows no landmarks: tools/make_head.py --stills STILLS")
    return head


def head_of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The head that a face run was trained with, from where its configuration says it is.

    Raises UserError when it is not there; ``--head`` is the other way.
    """
    folder = config.get("data", {}).get("folder", "example")
    if not config.get("head") and folder == "example":
        return dict(load_release("lite").params["head"])
    try:
        path = Path(config["head"] or data_folder(folder, "data.folder") / "head.npz")
        return read_head(path)
    except UserError as error:
        raise UserError(f"the head of the face run was not found; name it with --head: {error}") \
            from error  # fmt: skip


def card_of_runs(name: str, config: Mapping[str, Any], runs: Mapping[str, Path]) -> str:
    """A card that says what is known of a release, and what somebody has to fill in."""
    rows = []
    for part in ("face", "motion", "student"):
        if part not in config:
            continue
        steps = config.get("steps", {}).get(part, "?")
        source = f"run {runs[part].name}" if part in runs else "the base release"
        rows.append(f"| {part} | {source} | {steps} | {_data(config[part])} |")
    table = "\n".join(rows)
    return f"""\
# {name}

Made by `vasa-jax release build` from the configurations of its runs (`config.json`). Nobody has
looked at it yet: fill in the rest before you give it to others.

## Trained on

| part | from | steps | data |
|---|---|---|---|
{table}

Sources and licences of these data: not said.

## Measured

Nothing yet. `vasa-jax evaluate talk DIR --portraits DIR --speech DIR` measures it.

## Intended use

Not said. Animate only portraits you have the right to animate, and say that the result is
synthetic.
"""


def _data(config: Mapping[str, Any]) -> str:
    """Where a run's data came from, in words."""
    data = config.get("data", {})
    if data.get("folders"):
        shares = data.get("shares") or [None] * len(data["folders"])
        parts = zip(data["folders"], shares, strict=False)
        return ", ".join(f"{f}" + (f" ({s:g})" if s is not None else "") for f, s in parts)
    if data.get("folder") == "example":
        return "the bundled portrait alone (a smoke run)"
    if data.get("folder"):
        shares = ", ".join(f"{name} ({share:g})" for name, share in data.get("shares", ()))
        return f"{data['folder']}: {shares}"
    return "stand-in data (a smoke run)"
