"""Each stage against an answer that is known from outside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.data.records import Record, pack, unpack
from vasa_jax.io import clip_video
from vasa_jax.prepare import identity, shots, tracks
from vasa_jax.prepare.annotate import main_gaze
from vasa_jax.prepare.config import PrepareConfig, ShotConfig, TrackConfig
from vasa_jax.prepare.engine import DIED, HereEngine, LocalEngine
from vasa_jax.prepare.journal import Journal
from vasa_jax.prepare.quality import detail
from vasa_jax.prepare.sync import moved


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """(count, 64, 64, 3) smooth pictures that move."""
    rng = np.random.default_rng(seed)
    base = np.kron(rng.uniform(0, 255, (12, 12, 3)), np.ones((8, 8, 1)))
    return np.stack([np.roll(base, i, 1)[:64, :64] for i in range(count)]).astype(np.uint8)


def test_pictures_of_a_clip_by_number_are_those_of_the_whole() -> None:
    video = clip_video.encoded(pictures(31), key_frames=7)
    assert video.tobytes() == clip_video.encoded(pictures(31), key_frames=7).tobytes()
    whole = list(clip_video.decoded(video))
    assert len(whole) == 31
    wanted = [30, 0, 7, 6, 13]
    np.testing.assert_array_equal(clip_video.frames_at(video, wanted), [whole[i] for i in wanted])
    with pytest.raises(UserError, match="no picture 31"):
        clip_video.frames_at(video, [31])


def test_a_record_comes_back_as_it_was_and_always_as_the_same_bytes() -> None:
    record = Record("stills", {"id": "é/1", "person": "Zoë"}, {
        "motion": np.ones((2, 3), np.float16), "flag": np.array([True, False]),
        "b": np.arange(5, dtype=np.int16)[::2],
    })  # fmt: skip
    blob = pack(record)
    again = unpack(blob)
    assert again.meta == record.meta and again.kind == "stills" and pack(again) == blob
    for name, array in record.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    with pytest.raises(UserError, match="no record"):
        unpack(blob[:40])


def test_cuts_are_found_and_flashes_and_motion_are_none() -> None:
    """Two scenes of the same motion, cut after 40 frames, with a flash of one frame in each."""
    scenes = np.concatenate([pictures(40, 1), pictures(40, 2)]).astype(np.float32)
    scenes[20] = scenes[60] = 255.0
    small = [shots.small(x.astype(np.uint8)) for x in scenes]
    last = len(small) - 1
    before = [0, *range(last)]
    change = np.array([shots.change(small[b], x) for b, x in zip(before, small, strict=True)])
    after = [min(t + shots.FLASH, last) for t in range(last + 1)]
    across = np.array(
        [shots.change(small[b], small[a]) for b, a in zip(before, after, strict=True)]
    )
    assert shots.cuts(ShotConfig(), change, across) == [40]


def test_faces_are_linked_by_where_they_are() -> None:
    """Two faces that walk towards each other's side, one missing for a look."""
    cfg = TrackConfig(every=10)
    left = [(10.0 + i, 10.0, 50.0 + i, 60.0) for i in range(6)]
    right = [(200.0 - i, 10.0, 240.0 - i, 60.0) for i in range(6)]
    looks = [
        (10 * i, [r, b] if i != 3 else [b])
        for i, (b, r) in enumerate(zip(left, right, strict=True))
    ]
    found = tracks.link(cfg, looks)
    assert [t.boxes for t in found] == [left, [r for i, r in enumerate(right) if i != 3]]


def piece(faces: list, frames: int = 100) -> dict:
    still = [0.001] * frames
    return {"frames": frames, "change": still, "across": still, "faces": faces}


@pytest.mark.parametrize(
    "boxes, reason",
    [
        ([(100, 100, 200, 230)], ""),
        ([(100, 100, 120, 125)], "too small: its square is 48 px, not 90"),
        ([(100, 100, 200, 230), (210, 100, 300, 225)], "two people in one square"),
        ([(100, 100, 200, 230), (500, 100, 600, 225)], ""),
    ],
)
def test_a_clip_is_one_face_of_some_size(boxes: list, reason: str) -> None:
    cfg = PrepareConfig(size=128)
    seen = piece([[f, list(map(float, b)), 1.0] for f in range(0, 100, 10) for b in boxes])
    clips = tracks.clips(cfg, "s", [seen])
    assert len(clips) == len(boxes)
    assert [c.get("refused", "") for c in clips] == [reason] * len(boxes)
    assert all((c["start"], c["stop"]) == (0, 100) for c in clips)


def test_long_tracks_are_cut_and_short_ones_refused() -> None:
    cfg = PrepareConfig(size=128)
    box = [100.0, 100.0, 200.0, 230.0]
    long = tracks.clips(cfg, "s", [piece([[f, box, 1.0] for f in range(0, 600, 10)], 600)])
    assert [(c["start"], c["stop"]) for c in long] == [(0, 200), (200, 400), (400, 600)]
    (short,) = tracks.clips(cfg, "s", [piece([[f, box, 1.0] for f in range(0, 40, 10)], 40)])
    assert short["refused"] == "too short: 1.6 of 2.0 s"


def test_main_gaze_is_the_mode_and_not_the_mean() -> None:
    looks = np.radians([[10.0, 0.0]] * 6 + [[-40.0, 20.0]] * 4 + [[60.0, 60.0]] * 9)
    lids = np.r_[np.zeros(10), np.ones(9)]  # a blink says nothing
    np.testing.assert_allclose(np.degrees(main_gaze(looks, lids)), [10.0, 0.0], atol=1e-6)


def test_sound_is_moved_by_whole_frames() -> None:
    samples = np.arange(1, 1281, dtype=np.int16)
    np.testing.assert_array_equal(moved(samples, 1), np.r_[np.zeros(640), samples[:640]])
    np.testing.assert_array_equal(moved(samples, -1), np.r_[samples[640:], np.zeros(640)])


def test_enlarged_pictures_have_no_detail() -> None:
    from PIL import Image

    from vasa_jax.data.faces import EXAMPLE_PORTRAIT
    from vasa_jax.prepare.quality import QualityConfig

    portrait = Image.open(EXAMPLE_PORTRAIT).convert("RGB").resize((256, 256), Image.Resampling.BOX)
    least = QualityConfig().detail
    assert detail(np.asarray(portrait)) > least
    for times in (2, 3):
        small = portrait.resize((256 // times, 256 // times), Image.Resampling.BOX)
        large = small.resize((256, 256), Image.Resampling.BICUBIC)
        assert detail(np.asarray(large)) < least


def test_people_of_a_source_are_told_apart_in_any_order() -> None:
    rng = np.random.default_rng(0)
    people = rng.normal(size=(3, 64))
    codes = {
        f"{clip:02d}": people[who] + 0.3 * rng.normal(size=64)
        for clip, who in enumerate([0, 1, 0, 2, 1, 0])
    }
    wanted = {"00": 0, "01": 1, "02": 0, "03": 2, "04": 1, "05": 0}
    assert identity.grouped(codes) == wanted
    assert identity.grouped(dict(reversed(codes.items()))) == wanted


def test_names_come_from_a_table_folders_or_one_for_all(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("path,person\nanna/*.mp4,Anna\nb*.mov, Bert \n")
    given = identity.Identities(table=table)
    assert [given.given(n) for n in ("anna/1.mp4", "b.mov", "c.mov")] == ["Anna", "Bert", ""]
    assert identity.Identities("folders").given("id07/x/1.mp4") == "id07"
    assert identity.Identities(everybody="me").given("c.mov") == "me"
    table.write_text("anna/*.mp4\n")
    with pytest.raises(UserError, match="line 1 has no path and person"):
        identity.Identities(table=table)


def test_a_torn_line_of_a_journal_is_written_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "crop")
    journal.add("a", {"result": {"x": 1}})
    journal.add("b", {"error": "later"})
    path = tmp_path / "crop.jsonl"
    path.write_bytes(path.read_bytes() + b'{"key": "c", "resu')
    again = Journal(tmp_path, "crop")
    assert again.missing(["a", "b", "c"]) == ["b", "c"]
    again.add("c", {"refused": "soft"})
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    other = Journal(tmp_path, "crop", "1-of-2")  # another process reads all and writes its own
    assert other.missing(["a", "b", "c", "d"]) == ["b", "d"]
    other.add("d", {"result": {}})
    assert (tmp_path / "crop.1-of-2.jsonl").exists()


def work(row: dict) -> dict:
    import os
    import signal

    if row["number"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"result": row["number"] ** 2}


def test_a_row_that_kills_its_worker_is_told_and_the_rest_is_done() -> None:
    rows = [{"number": i} for i in range(5)]
    engine = LocalEngine(2)
    try:
        made = {row["number"]: found for row, found in engine.map(work, rows)}
    finally:
        engine.close()
    assert made.pop(2) == {"error": DIED}
    assert made == {i: {"result": i * i} for i in (0, 1, 3, 4)}
    assert list(HereEngine().map(work, rows[:2])) == [(r, work(r)) for r in rows[:2]]
