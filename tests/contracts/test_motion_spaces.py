"""What a motion vector means is asked of its space: named weights stay where they belong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vasa_jax.core.arkit import EXPRESSION_NAMES, MOTION_DIM

PACKAGE = Path(__file__).parents[2] / "vasa_jax"
SIDES = ("_L", "_R")
WEIGHTS = {*EXPRESSION_NAMES, *(n[:-2] for n in EXPRESSION_NAMES if n.endswith(SIDES))}
# The table, and what works on named weights by its nature.
MADE_FOR_IT = (
    "core/arkit.py",  # the table
    "core/space.py",  # the space that it is
    "motion/arkit/",  # what weights mean
    "motion/readout.py",  # lips, lids and gaze by their names, or by a probe
    "losses/closures.py",  # lips that must be shut
    "generate/finish/arkit.py",
    "generate/finish/blinks.py",
    "face/head/",  # the morphable head, whose blend shapes they are; fits are in its terms
    "face/warp/",  # the lite face
    "synth/",  # people that we make
    "prepare/",  # videos read by the head's terms
    "data/face_files.py", "data/faces.py",  # clips with the head's motion as truth
    "train/encoder.py",  # learns to read a head's motion
    "train/volumetric.py",  # which expressions differ, by the head's fits
    "evaluate/faces.py", "evaluate/swaps.py",  # stage 1 beside rendered people
    "face/volume/face.py",  # the fit that a portrait is anchored by
    "face/swap.py",
    "bench/models.py",  # shapes of a fit
)  # fmt: skip


def named(tree: ast.Module) -> set[str]:
    """Weights, the module of their names, and their number, where code (no prose) uses them."""
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in prose:
            if node.value in WEIGHTS or node.value == MOTION_DIM and type(node.value) is int:
                found.add(str(node.value))
        elif isinstance(node, ast.ImportFrom):
            whole = {node.module or "", *(f"{node.module}.{a.name}" for a in node.names)}
            found |= whole & {"vasa_jax.core.arkit", "vasa_jax.motion.arkit"}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names} & {"vasa_jax.core.arkit"}
    return found


def test_it_sees_names_numbers_and_imports_and_no_prose() -> None:
    code = '"jawOpen, 54"\nfrom vasa_jax.core import arkit\nx = 54, "jawOpen", 54.0, "mouthSmile"'
    assert named(ast.parse(code)) == {"vasa_jax.core.arkit", "54", "jawOpen", "mouthSmile"}
    assert not named(ast.parse("x = 0.54, 540, 'jaw opens'"))


@pytest.mark.parametrize("folder", sorted(p.name for p in PACKAGE.iterdir() if p.is_dir()))
def test_nothing_else_names_a_weight_or_their_number(folder: str) -> None:
    wrong = {}
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith(MADE_FOR_IT):
            continue
        # MediaPipe's mesh has landmarks of that number.
        found = named(ast.parse(path.read_text(encoding="utf-8")))
        if place == "metrics/motion.py":
            found -= {"54"}
        if found:
            wrong[place] = found
    assert not wrong


def test_what_is_made_for_it_is_there() -> None:
    for place in MADE_FOR_IT:
        assert (PACKAGE / place).exists(), place
