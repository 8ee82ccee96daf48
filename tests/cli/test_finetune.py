"""``vasa-jax finetune``: one person's clips, the runs they make, and the consent that is kept."""

from __future__ import annotations

import numpy as np
import pytest

from tests.generate.tiny_release import tiny_release
from tests.prepare.test_encode import clip
from vasa_jax.checkpoint.release import load_release
from vasa_jax.cli.main import main
from vasa_jax.core.config import load_config
from vasa_jax.core.tree import flatten
from vasa_jax.data.records import pack, write_about, write_shard
from vasa_jax.prepare.run import keep_head
from vasa_jax.train.finetune import LOSS

pytest.importorskip("hama")
pytestmark = pytest.mark.usefixtures("broadcasting", "quickly_compiled")
CONSENT = "it is a drawing that moves"


def clips_of(folder, people):
    keep_head(None, folder)
    write_about(folder, {"kind": "clip", "size": 64})
    made = [clip(i, 64) for i in range(len(people))]
    for record, who in zip(made, people, strict=True):
        record.meta["person"] = who
    write_shard(folder / "clips-00000.array_record", [pack(record) for record in made])
    return folder


def test_a_release_learns_to_move_and_keeps_the_consent(tmp_path, capsys):
    base = load_release(tiny_release(tmp_path / "base"))
    clips, out = clips_of(tmp_path / "clips", ["anna"] * 4), tmp_path / "anna"
    words = ["finetune", str(clips), "-o", str(out), "--base", str(base.path)]
    words += ["--consent", CONSENT, "--face-steps", "0", "--motion-steps", "2"]
    assert main(words) == 0
    made = load_release(out)
    assert CONSENT in made.card and "'anna'" in made.card
    moved = flatten(made.params["motion"])
    assert any(np.abs(moved[k] - v).max() > 0 for k, v in flatten(base.params["motion"]).items())
    for name, leaf in flatten(made.params["face"]).items():  # left out: as it was
        np.testing.assert_allclose(leaf, flatten(base.params["face"])[name], atol=1e-3)
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0  # nothing is trained again
    assert load_release(out).sha256 == made.sha256


@pytest.mark.parametrize(
    "people, consent, told",
    [
        (["anna", "bert"], CONSENT, "the clips show 2 people"),
        (["anna"], "-", "is no answer"),
        ([], CONSENT, "holds no clips"),
    ],
)
def test_bad_input_is_one_line(people, consent, told, tmp_path, capsys):
    clips = clips_of(tmp_path / "clips", people)
    words = ["finetune", str(clips), "-o", str(tmp_path / "x"), "--consent", consent]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_the_loss_is_that_of_the_bundled_releases_training():
    assert load_config("configs/motion_lite.py").loss == LOSS
