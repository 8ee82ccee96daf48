"""`vasa-jax prepare` as people use it: what becomes of each video, and of runs that are killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vasa_jax.cli.main import main
from vasa_jax.data.faces import EXAMPLE_PORTRAIT
from vasa_jax.data.records import Records, pack, shards

SETTINGS = ["--set", "size=64", "--set", "piece_s=1"]


def write(path: Path, frames, rate: Fraction = Fraction(25), *, rotation: int = 0) -> None:
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=rate)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "yuv420p"
        if rotation:
            video.set_display_rotation(rotation)
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            out.mux(video.encode(picture))
        out.mux(video.encode(None))


def head(count: int = 55, *, flip: bool = False, side: int = 192) -> list[np.ndarray]:
    """The bundled portrait, seen by a camera that moves a little."""
    portrait = Image.open(EXAMPLE_PORTRAIT).convert("RGB")
    width = portrait.width
    frames = []
    for i in range(count):
        shift = 0.01 * width * np.sin(i / 5)
        box = (shift, 0, shift + width, portrait.height)
        view = portrait.transform((side, side), Image.Transform.EXTENT, box)
        frames.append(np.asarray(view)[:, :: -1 if flip else 1])
    return frames


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write(folder / "plain.mp4", head())
    write(folder / "Zoë – 日本.mkv", head(60, flip=True))
    (folder / "the same.mp4").write_bytes((folder / "plain.mp4").read_bytes())
    write(folder / "59.94.mov", [f for f in head(60) for _ in (0, 1)], Fraction(60000, 1001))
    write(folder / "turned.mp4", [np.rot90(f, -1) for f in head(58)], rotation=90)
    write(folder / "short.mp4", head(30))
    write(folder / "far.mp4", [np.pad(f[::6, ::6], ((80, 80), (80, 80), (0, 0))) for f in head()])
    write(folder / "nobody.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 60)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    return folder


def prepare(raw: Path, out: Path, *more: str) -> int:
    return main(["prepare", str(raw), "-o", str(out), *SETTINGS, "--workers", "0", *more])


@pytest.fixture(scope="module")
def clips(raw: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "clips"
    assert prepare(raw, out, "--person", "nobody real") == 0
    return out


def test_what_becomes_of_each_video(clips: Path, capsys) -> None:
    found = Records(shards(clips))
    used = dict(zip(found.sources.tolist(), found.frames.tolist(), strict=True))
    assert used == {"plain.mp4": 55, "Zoë – 日本.mkv": 60, "59.94.mov": 50, "turned.mp4": 58}
    assert set(found.people) == {"nobody real"} and not found.speech.any()
    assert main(["prepare", "report", str(clips), "--json"]) == 0
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert {reason: row["count"] for reason, row in refused.items()} == {
        "too short": 1, "too small": 1, "no face was found": 1, "the same file as": 1,
        next(r for r in refused if "empty" in r): 1, next(r for r in refused if "text.mp4" in r): 1,
    }  # fmt: skip
    turned, plain = (found[found.sources.tolist().index(n)] for n in ("turned.mp4", "plain.mp4"))
    for name in ("motion", "placement"):  # upright, so fitted alike
        np.testing.assert_allclose(
            turned.arrays[name][0].astype(float), plain.arrays[name][0].astype(float), atol=0.08
        )


def test_a_second_run_does_nothing_and_a_new_video_moves_nothing(
    raw: Path, clips: Path, capsys
) -> None:
    before = {p.name: p.read_bytes() for p in clips.glob("clips-*")}
    assert prepare(raw, clips, "--person", "nobody real", "--json") == 0
    assert json.loads(capsys.readouterr().out)["new"] == 0
    write(raw / "later.mp4", head(52, flip=True))
    try:
        assert prepare(raw, clips, "--person", "somebody else", "--json") == 0
    finally:
        (raw / "later.mp4").unlink()
    assert json.loads(capsys.readouterr().out)["new"] == 1
    assert {name: (clips / name).read_bytes() for name in before} == before
    assert prepare(raw, clips, "--set", "crop.crf=30") == 2
    assert "was made with crop.crf 14, not 30" in capsys.readouterr().err


def test_held_out_people_are_told_and_kept_from_training(clips: Path, capsys) -> None:
    from vasa_jax.data.faces import FacePairs, FacePairsConfig

    assert main(["prepare", "split", str(clips), "--held-out", "1"]) == 0
    cfg = FacePairsConfig(
        folder=str(clips.parent), size=64, shares=((clips.name, 1.0),), held_out=0
    )
    kept, judged = (set(FacePairs(cfg, held_out=h).person.values()) for h in (False, True))
    assert judged == set(json.loads((clips / "held_out.json").read_text())["people"])
    assert kept | judged == {"nobody real", "somebody else"} and len(kept) == 1
    batch = next(FacePairs(cfg).batches(0, 3, 2))
    again = next(FacePairs(cfg).batches(0, 3, 2))  # drawn by seed and step, read from the disk
    assert batch["source"].shape == (2, 64, 64, 3)
    for name, array in batch.items():
        np.testing.assert_array_equal(array, again[name])
    assert main(["prepare", "split", str(clips), "--held-out", "2"]) == 2
    assert "nobody to learn from" in capsys.readouterr().err


def test_a_page_with_pictures(clips: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["prepare", "report", str(clips), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "data:image/jpeg" in text and "<svg" in text and "too short" in text


@pytest.mark.parametrize(
    "words, told",
    [
        (["prepare", "NOWHERE", "-o", "x"], "no such file or folder: NOWHERE"),
        (["prepare", "."], "-o CLIPS"),
        (["prepare", ".", "-o", "x", "--shard", "8/8"], "--shard 8/8"),
        (["prepare", ".", "-o", "x", "--address", "auto"], "--engine ray"),
        (["prepare", ".", "-o", "x"], "no videos in ."),
        (["prepare", "report", "NOWHERE"], "no such folder: NOWHERE"),
    ],
)
def test_bad_input_is_one_line(words: list[str], told: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_killed_runs_lose_nothing_that_was_done(raw: Path, clips: Path, tmp_path: Path) -> None:
    """SIGKILL of all its processes at random moments, then to the end: the same records."""
    some, out = tmp_path / "raw", tmp_path / "clips"
    some.mkdir()
    for name in ("plain.mp4", "59.94.mov"):
        (some / name).write_bytes((raw / name).read_bytes())
    command = [
        sys.executable, "-m", "vasa_jax", "prepare", str(some), "-o", str(out), *SETTINGS,
        "--person", "nobody real", "--workers", "1",
    ]  # fmt: skip
    waits = random.Random(0)
    for _ in range(3):
        run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(waits.uniform(3.0, 8.0))
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    subprocess.run(command, check=True, capture_output=True)
    whole, made = (Records(shards(folder)) for folder in (clips, out))
    blobs = {record.meta["id"]: pack(record) for record in whole}
    assert {r.meta["id"]: pack(r) for r in made} == {i: blobs[i] for i in made.ids.tolist()}
    assert set(made.sources) == {"plain.mp4", "59.94.mov"}
    assert not list(out.rglob("*.part*")) and not (out / "work").exists()
