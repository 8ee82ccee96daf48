"""Which frames and which pictures become face files, and what is refused of them."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION
from vasa_jax.core.config import load_config, override
from vasa_jax.core.errors import UserError
from vasa_jax.data import face_files, faces
from vasa_jax.data.faces import FacePairs, FacePairsConfig
from vasa_jax.data.records import HELD_OUT, Record, pack, write_about, write_shard
from vasa_jax.face.head.fit import LID_PAIRS

pytestmark = pytest.mark.usefixtures("broadcasting")


def clip(lids_T):
    """Landmarks (T, 478, 2) of eyes that are so far open, in shares."""
    points = np.full((len(lids_T), 478, 2), 0.5)
    for upper, lower in (pair for eye in LID_PAIRS for pair in eye):
        points[:, upper, 1] -= 0.01 * lids_T
        points[:, lower, 1] += 0.01 * lids_T
    return points


def test_frames_with_shut_eyes_are_found_once_per_blink_narrowest_first():
    lids = np.ones(75)
    lids[[10, 11, 12]] = 0.5, 0.3, 0.5  # a blink
    lids[[40, 41]] = 0.55, 0.2  # another
    lids[60] = 0.7  # a squint
    assert face_files._shut_eyes(clip(lids)).tolist() == [41, 11]
    many = np.where(np.arange(75) % 10 == 5, 0.3, 1.0)
    assert len(face_files._shut_eyes(clip(many))) == face_files.BLINKS_KEPT


def test_stills_are_cut_like_portraits_and_keep_their_geometry(tmp_path):
    """A still is a photograph of the known head: its landmarks must fall onto the cut picture."""
    import jax.numpy as jnp

    from vasa_jax.face.find.align import HEIGHTS_PER_CROP
    from vasa_jax.face.head import head as heads

    head = faces.example_head()
    side, count = 400, len(head.base)
    motion = np.zeros((3, 54), np.float32)
    motion[:, 0] = 0.0, 0.3, -0.2
    motion[1, EXPRESSION.start :] = 0.1
    true = np.array([0.1, 0.05, 1 / 28], np.float32)  # the head fills a third of the picture
    placed = [
        heads.place_fit(head, jnp.zeros(50), jnp.asarray(m), jnp.asarray(true)) for m in motion
    ]
    screen = np.stack([(np.asarray(p)[:, :2] + 1) / 2 for p in placed])
    images = np.zeros((3, side, side, 3), np.uint8)
    for image, p in zip(images, placed, strict=True):  # a dot on the tip of the nose
        x, y = ((np.asarray(heads.landmarks(head, p))[1, :2] + 1) / 2 * side).astype(int)
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    source, out = tmp_path / "still.npz", tmp_path / "made" / "face.npz"
    np.savez(source, images=images, motion=motion, screen=screen, identity=np.zeros(50))
    cut = face_files.from_stills(head, np.arange(count), source, out, size=128)
    assert 0.4 * side < cut < 0.8 * side  # so pictures twice as large are wanted (configs' heads)
    with np.load(out) as z:
        made = {k: z[k] for k in z.files}
    for image, m, where in zip(made["images"], made["motion"], made["placement"], strict=True):
        p = heads.place_fit(head, jnp.zeros(50), jnp.asarray(m), jnp.asarray(where))
        marks = (np.asarray(heads.landmarks(head, p))[:, :2] + 1) / 2 * 128
        ys, xs = np.nonzero(image[..., 0] > 100)
        np.testing.assert_allclose((xs.mean() + 0.5, ys.mean() + 0.5), marks[1], atol=1.0)
    height = np.ptp(marks[:468, 1])
    assert 128 / height == pytest.approx(HEIGHTS_PER_CROP, rel=0.15)


def test_face_files_of_an_older_format_are_refused(tmp_path):
    (tmp_path / "portraits").mkdir()
    face_files.write_face_file(
        tmp_path / "portraits" / "old.npz", images=np.zeros((1, 256, 256, 3), np.uint8),
        motion=np.zeros((1, 54), np.float32), placement=np.zeros((1, 3), np.float32),
        identity=np.zeros(50, np.float32), target=np.ones(1, bool),
    )  # fmt: skip
    pairs = FacePairs(FacePairsConfig(folder=str(tmp_path), shares=(("portraits", 1.0),)))
    with pytest.raises(UserError, match="make them again"):
        next(pairs.batches(0, 0, 1))


SYNTHETIC, BOTH = (("synthetic", 1.0),), (("synthetic", 0.6), ("video", 0.4))


def faces_of(tmp_path, source, count, person=""):
    folder = tmp_path / source / person
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i:02}.npz").touch()


def test_neighbours_in_a_batch_are_different_people(tmp_path):
    """Losses across identities compare each pair with the next one, the last with the first."""
    faces_of(tmp_path, "synthetic", 2)
    faces_of(tmp_path, "video", 1)
    pairs = FacePairs(FacePairsConfig(folder=str(tmp_path), held_out=0, shares=BOTH))
    for seed in range(50):
        drawn = pairs.people(np.random.default_rng(seed), 5)
        assert all(a != b for a, b in zip(drawn, drawn[1:] + drawn[:1], strict=True))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_clips_of_one_person_are_never_neighbours_in_any_microbatch(parts, tmp_path):
    """Nine of ten clips are Anna's; the one of the other source is hers, too."""
    faces_of(tmp_path, "synthetic", 40, "anna")
    for name in ("bert", "cleo"):
        faces_of(tmp_path, "synthetic", 2, name)
    faces_of(tmp_path, "video", 1, "anna/talk")
    pairs = FacePairs(FacePairsConfig(folder=str(tmp_path), held_out=0, shares=BOTH))
    assert len(set(pairs.person.values())) == 3
    for seed in range(50):
        drawn = pairs.people(np.random.default_rng(seed), 12, parts)
        assert len(drawn) == 12
        for i in range(parts):
            ring = [path.relative_to(tmp_path).parts[1] for path in drawn[i::parts]]
            assert all(a != b for a, b in zip(ring, ring[1:] + ring[:1], strict=True))


def test_a_list_of_one_source_leaves_the_last_of_another_held_out(tmp_path):
    faces_of(tmp_path, "synthetic", 3)
    folder = tmp_path / "video"
    write_about(folder, {"kind": "clip", "size": 64})
    write_shard(
        folder / "clips-00000.array_record",
        [
            pack(Record("clip", {"id": n, "person": n}, {"motion": np.zeros((2, 54))}))
            for n in "xyz"
        ],
    )
    (folder / HELD_OUT).write_text('{"people": ["y"]}')
    cfg = FacePairsConfig(folder=str(tmp_path), held_out=1, shares=BOTH)
    kept, judged = (set(FacePairs(cfg, held_out=h).person.values()) for h in (False, True))
    rendered = {f"synthetic/{i:02d}.npz" for i in range(3)}
    assert judged == {"synthetic/02.npz", "y"} and kept == rendered - judged | {"x", "z"}


def test_nobody_is_held_out_and_trained_on(tmp_path):
    for source, names in (("synthetic", "abcd"), ("video", "bcde")):
        for name in names:
            faces_of(tmp_path, source, 3, name)
    cfg = FacePairsConfig(folder=str(tmp_path), held_out=1, shares=BOTH)
    kept, judged = (set(FacePairs(cfg, held_out=h).person.values()) for h in (False, True))
    assert judged == {"d", "e"} and kept == {"a", "b", "c"}
    # Fewer people than are to be held out: half of them, not all for both.
    cfg = dataclasses.replace(cfg, held_out=12)
    kept, judged = (set(FacePairs(cfg, held_out=h).person.values()) for h in (False, True))
    assert kept == {"a", "b"} and judged == {"c", "d", "e"}


def test_no_source_loses_all_its_people_to_another(tmp_path):
    for name in "abcd":
        faces_of(tmp_path, "synthetic", 1, name)
    faces_of(tmp_path, "video", 1, "d")
    cfg = FacePairsConfig(folder=str(tmp_path), held_out=1, shares=BOTH)
    assert len(FacePairs(cfg).sources) == 2
    assert set(FacePairs(cfg, held_out=True).person.values()) == {"c"}  # not whom the video needs
    faces_of(tmp_path, "video", 1, "c")
    with pytest.raises(UserError, match="lower data.held_out"):
        FacePairs(dataclasses.replace(cfg, held_out=2))


def test_a_source_without_files_is_told_and_does_not_change_the_shares(tmp_path):
    faces_of(tmp_path, "synthetic", 2)
    with pytest.raises(UserError, match=r"video, of which data.shares wants 0.4.*--set"):
        FacePairs(FacePairsConfig(folder=str(tmp_path), shares=BOTH))
    cfg = FacePairsConfig(folder=str(tmp_path), shares=(*SYNTHETIC, ("video", 0.0)))
    assert [share for share, _ in FacePairs(cfg).sources] == [1.0]
    # What the message says can be said so.
    told = override(cfg, ['shares=[["synthetic", 1.0]]'])
    assert told.shares == SYNTHETIC


def test_an_unset_variable_is_what_is_told(monkeypatch):
    monkeypatch.delenv("VASA_FACES", raising=False)
    with pytest.raises(UserError, match="VASA_FACES is not set"):
        FacePairs(FacePairsConfig(folder="$VASA_FACES"))
    monkeypatch.setenv("VASA_FACES", "/nowhere")
    with pytest.raises(UserError, match="/nowhere/synthetic"):
        FacePairs(FacePairsConfig(folder="${VASA_FACES}"))


def test_what_a_killed_maker_left_is_not_read(tmp_path):
    faces_of(tmp_path, "synthetic", 2)
    for name in ("a.npz.tmp.npz", ".a.4711.part.npz"):
        (tmp_path / "synthetic" / name).write_bytes(b"PK half")
    cfg = FacePairsConfig(folder=str(tmp_path), held_out=0, shares=SYNTHETIC)
    assert [p.name for p in FacePairs(cfg).sources[0][1]] == ["00.npz", "01.npz"]


def test_a_face_file_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    def killed(path, **arrays):
        Path(path).write_bytes(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(face_files.np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        face_files.write_face_file(tmp_path / "a.npz", images=np.zeros(1))
    assert not list(tmp_path.iterdir())


def test_a_damaged_face_file_is_named(tmp_path):
    faces_of(tmp_path, "synthetic", 1)
    cfg = FacePairsConfig(folder=str(tmp_path), held_out=0, shares=SYNTHETIC)
    with pytest.raises(UserError, match=r"00.npz is no whole face file"):
        next(FacePairs(cfg).batches(0, 0, 1))


def test_two_people_alternate_and_one_is_all_there_is(tmp_path):
    faces_of(tmp_path, "synthetic", 4)
    for people in (1, 2):
        cfg = FacePairsConfig(folder=str(tmp_path), held_out=0, people=people, shares=SYNTHETIC)
        drawn = FacePairs(cfg).people(np.random.default_rng(0), 5)
        assert len(set(drawn)) == people
        assert drawn[::2] == drawn[:1] * 3 and drawn[1::2] == drawn[1:2] * 2


def test_without_held_out_people_those_of_training_are_judged(tmp_path):
    faces_of(tmp_path, "synthetic", 3)
    cfg = FacePairsConfig(folder=str(tmp_path), held_out=0, shares=SYNTHETIC)
    assert FacePairs(cfg, held_out=True).sources == FacePairs(cfg).sources
    cfg = dataclasses.replace(cfg, held_out=1)
    kept, judged = (FacePairs(cfg, held_out=h).sources[0][1] for h in (False, True))
    assert len(kept) == 2 and len(judged) == 1 and not set(kept) & set(judged)


def test_head_goes_with_the_faces_that_were_made_with_it(tmp_path):
    one, other, folder = tmp_path / "one.npz", tmp_path / "other.npz", tmp_path / "faces"
    one.write_bytes(b"one")
    other.write_bytes(b"other")
    for _ in range(2):  # a second call adds files, made with the same head
        faces.keep_head(one, folder)
    with pytest.raises(UserError, match="another head"):
        faces.keep_head(other, folder)
    assert [p.name for p in folder.iterdir()] == ["head.npz"]
    assert (folder / "head.npz").read_bytes() == b"one"


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_what_is_no_head_is_refused_in_one_line(content, tmp_path):
    from vasa_jax.face.head.head import load_head

    path = tmp_path / "head.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="make_head"):
        load_head(path)


def test_stills_are_rendered_twice_as_large_as_the_pictures_that_are_cut_from_them():
    """What the heads of configs say, and the help of ``data.faces`` ("twice that")."""
    for name in ("face_256_lite", "face_512"):
        text = Path(f"configs/{name}.py").read_text().split('"""')[1]
        cfg = load_config(f"configs/{name}.py")
        sizes = {int(size) for size in re.findall(r"--size (\d+)", text)}
        assert max(sizes) == 2 * cfg.data.size, name


@pytest.mark.parametrize("name", ["face_256", "face_512"])
def test_the_full_model_sees_no_pictures_of_the_lite_one(name):
    """Sources of portraits were moved by the lite model's flow: it would learn to undo that."""
    shares = load_config(f"configs/{name}.py").data.shares
    assert {"synthetic", "video"} == {source for source, share in shares if share > 0}
