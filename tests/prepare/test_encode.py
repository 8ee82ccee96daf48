"""Clips as stage-2 records: the code of a face's own encoder, poses beside the usual one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.generate.tiny_release import tiny_release
from vasa_jax.checkpoint.release import load_release
from vasa_jax.cli.main import main
from vasa_jax.core.types import POSE
from vasa_jax.data.records import KEY_FRAMES, Record, pack, write_about, write_shard
from vasa_jax.data.shards import read_shard
from vasa_jax.face.head.pose import relative_pose
from vasa_jax.io import clip_video
from vasa_jax.prepare.encode import with_usual_pose_zero
from vasa_jax.prepare.run import keep_head

pytestmark = pytest.mark.usefixtures("broadcasting", "quickly_compiled")
FRAMES = 11


def clip(number: int, size: int) -> Record:
    """Pictures of nothing, and a head that is said to move in them."""
    rng = np.random.default_rng(number)
    pictures = rng.integers(0, 255, (FRAMES, 4, 4, 3)).repeat(size // 4, 1).repeat(size // 4, 2)
    motion = np.zeros((FRAMES, 54), np.float16)
    motion[:, :3] = 0.2 * rng.normal(size=(FRAMES, 3))
    motion[:, 9:] = rng.uniform(0, 0.3, (FRAMES, 45))
    placement = np.array([0.0, 0.0, 0.07]) * np.exp(0.1 * rng.normal(size=(FRAMES, 1)))
    return Record(
        "clip",
        {"id": f"source-{number}", "person": "anna", "size": size, "speech": True,
         "gaze": [0.1, -0.2]},
        {"video": clip_video.encoded(pictures.astype(np.uint8), key_frames=KEY_FRAMES),
         "samples": rng.integers(-900, 900, FRAMES * 640).astype(np.int16), "motion": motion,
         "placement": placement.astype(np.float32), "identity": np.zeros(3, np.float32),
         "landmarks": np.zeros((FRAMES, 478, 3), np.int16)},
    )  # fmt: skip


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    keep_head(None, folder)
    write_about(folder, {"kind": "clip", "size": 64})
    write_shard(folder / "clips-00000.array_record", [pack(clip(i, 64)) for i in range(4)])
    return folder


def test_poses_are_relative_to_the_usual_one() -> None:
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 0.2, (9, 7)).astype(np.float32)
    anchor, usual = poses[3], np.median(poses, axis=0)
    given = np.stack([relative_pose(anchor, p) for p in poses])
    # A median of shifts is that of places, since all are divided by the anchor's size.
    wanted = np.stack([relative_pose(usual, p) for p in poses])
    np.testing.assert_allclose(with_usual_pose_zero(given), wanted, atol=1e-5)


def test_a_full_face_encodes_its_own_code_and_says_whose_it_is(clips, tmp_path, capsys) -> None:
    release = load_release(tiny_release(tmp_path / "tiny", kind="volume"))
    out = tmp_path / "latents"
    words = ["encode", str(release.path), str(clips), "-o", str(out)]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["clips"], report["frames"]) == (4, 4 * FRAMES)
    space = json.loads((out / "about.json").read_text())["space"]
    assert space["kind"] == "latent" and len(space["origin"]) == 64
    made = read_shard(out / "latents-00000.array_record")
    assert [c.motion.shape for c in made] == [(FRAMES, 7 + space["dynamics"])] * 4
    for one in made:
        np.testing.assert_allclose(np.median(one.motion[:, POSE], axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(one.controls.gaze[0], [0.1, -0.2], atol=1e-3)
        assert one.person == "anna" and one.controls.emotion_on.max() == 0
    assert len(json.loads((out / "readout.json").read_text())["r2"]) == 5
    before = (out / "latents-00000.array_record").read_bytes()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips"] == 0
    assert (out / "latents-00000.array_record").read_bytes() == before
    assert main(["encode", "lite", str(clips), "-o", str(out)]) == 2  # another space
    assert "choose another folder" in capsys.readouterr().err


def test_bad_input_is_one_line(clips, tmp_path, capsys) -> None:
    empty = tmp_path / "empty"
    keep_head(None, empty)
    for words, told in (
        (["lite", str(empty), "-o", str(tmp_path / "x")], "holds no clips"),
        (["nothing", str(clips), "-o", str(tmp_path / "x")], "nothing"),
    ):
        assert main(["encode", *words]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
