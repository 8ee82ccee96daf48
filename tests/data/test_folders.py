"""Folders of strangers' recordings: what is found, what is told apart, what is left out."""

import numpy as np
import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.data import folders
from vasa_jax.data.folders import LeftOut, data_folder, finished_files, made_from, media_files


def test_recordings_are_found_whatever_the_case_of_their_endings_and_at_any_depth(tmp_path):
    for name in ("b.MOV", "a.webm", "anna/x.Mp4", "anna/2020/y.mkv", "note.txt", ".c.1.part.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    found = media_files(tmp_path, folders.VIDEO_ENDINGS, "videos")
    names = [str(p.relative_to(tmp_path)) for p in found]
    assert names == ["a.webm", "anna/2020/y.mkv", "anna/x.Mp4", "b.MOV"]
    people = [folders.person_of(p, tmp_path) for p in found]
    assert people == ["", "anna", "anna", ""]


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_without_recordings_is_told(there, tmp_path):
    folder = tmp_path / "in"
    if there:
        folder.mkdir()
    with pytest.raises(UserError, match="holds no videos" if there else "no such folder"):
        media_files(folder, folders.VIDEO_ENDINGS, "videos")


def test_two_recordings_of_one_stem_become_two_files(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    names = ["x.mp4", "x.mov", "anna/x.mp4", "bert/x.mp4"]
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).touch()
    assert len({made_from(raw / name, raw, out) for name in names}) == len(names)
    # Files of earlier versions had the stem alone: of use where one source can be meant.
    for name in ("x.npz", "anna/x.npz"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    made = [str(made_from(raw / name, raw, out).relative_to(out)) for name in names]
    assert made == ["x.mp4.npz", "x.mov.npz", "anna/x.npz", "bert/x.mp4.npz"]


def test_unfinished_files_are_no_training_data(tmp_path):
    for name in ("a.npz", "anna/b.npz", ".a.12.part.npz", "a.npz.tmp.npz", "head.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in finished_files(tmp_path, below=True)] == ["a.npz", "b.npz"]
    assert [p.name for p in finished_files(tmp_path)] == ["a.npz"]


def test_a_name_with_variables_is_filled_or_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VASA_TEST", str(tmp_path))
    assert data_folder("$VASA_TEST/a", "data.folders") == tmp_path / "a"
    monkeypatch.delenv("VASA_TEST")
    with pytest.raises(UserError, match=r"data.folders is \$VASA_TEST/a, but VASA_TEST is not set"):
        data_folder("$VASA_TEST/a", "data.folders")


def test_what_is_left_out_is_listed_and_nothing_at_all_is_an_error(tmp_path, capsys):
    left_out = LeftOut()
    left_out.add(tmp_path / "a.mp4", "damaged\nor cut off")
    left_out.tell(2)
    said = capsys.readouterr().out
    assert said.count("a.mp4: damaged or cut off") == 2 and "left out 1 of 2" in said
    with pytest.raises(UserError, match="none of 1 files"):
        left_out.tell(1)


def test_users_errors_of_a_maker_are_one_line(capsys):
    def main():
        raise UserError("no such folder: x")

    with pytest.raises(SystemExit) as ended:
        folders.one_line_errors(main)()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no such folder: x\n"


@pytest.fixture
def strangers(tmp_path):
    """A damaged clip, one without sound, .MOV, .webm, and two of one stem, 12 frames each."""
    from vasa_jax.io.video import VideoWriter

    folder = tmp_path / "raw"
    (folder / "anna").mkdir(parents=True)
    tone = 0.1 * np.sin(np.arange(16000) / 10).astype(np.float32)

    def clip(name, audio, shade):
        part = tmp_path / "part.mp4"
        with VideoWriter(part, size=(64, 64), audio=audio) as video:
            for _ in range(12):
                video.write(np.full((64, 64, 3), shade, np.uint8))
        part.rename(folder / name)

    clip("x.mp4", (tone, 16000), 60)
    clip("x.MOV", (tone, 16000), 120)  # told by their content, not by their names
    clip("anna/x.webm", (tone, 16000), 180)
    clip("silent.mp4", None, 200)
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


def test_videos_of_strangers_become_clips_of_the_right_people(
    strangers, tmp_path, monkeypatch, capsys
):
    from vasa_jax.data.shards import read_shard
    from vasa_jax.prepare import videos

    class Tracker:
        """Finds a face at the height that the frame's brightness says."""

        def track(self, frame):
            landmarks = np.full((478, 3), float(frame.mean()))
            return type("Face", (), {"landmarks": landmarks})

    def landmark_clip(landmarks, samples, reader):
        motion = np.full((len(landmarks), 54), landmarks[0, 0, 0] / 255, np.float32)
        return videos.real_clip(samples, motion)

    monkeypatch.setattr(videos, "FaceTracker", Tracker)
    monkeypatch.setattr(videos, "landmark_clip", landmark_clip)
    kept = tmp_path / "landmarks"
    for out in ("one", "two"):  # the second time landmarks are known already
        videos.make_video_shards(tmp_path / out, strangers, reader=None, kept=kept)
        clips = read_shard(tmp_path / out / "video_00000.array_record")
        assert [c.person for c in clips] == ["anna", "", ""]
        shades = [c.motion[0, 20] * 255 for c in clips]
        np.testing.assert_allclose(shades, [180, 120, 60], atol=4)
        said = capsys.readouterr().out
        assert "left out 2 of 5 files" in said
        assert "broken.mp4" in said.split("left out 2")[1] and "silent.mp4" in said
    assert len(list(kept.rglob("*.npz"))) == 3


def test_photographs_and_clips_of_strangers_become_face_files(
    strangers, tmp_path, monkeypatch, capsys
):
    from vasa_jax.data import faces

    def from_video(head, frames, out, *, size):
        if frames[0].mean() > 190:
            return False
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(out, images=np.stack(frames), target=np.ones(len(frames), bool))
        return True

    monkeypatch.setattr(faces, "from_video", from_video)
    left_out = LeftOut()
    assert faces.make_videos(tmp_path / "out", strangers, head=None, left_out=left_out) == 5
    made = {
        str(p.relative_to(tmp_path / "out")): p
        for p in finished_files(tmp_path / "out", below=True)
    }
    assert sorted(made) == ["video/anna/x.webm.npz", "video/x.MOV.npz", "video/x.mp4.npz"]
    shade = np.load(made["video/x.MOV.npz"])["images"].mean()
    assert abs(shade - 120) < 4
    assert sorted(name.rsplit("/", 1)[1] for name in left_out.reasons) == [
        "broken.mp4",
        "silent.mp4",
    ]
    with pytest.raises(UserError, match="no photographs"):
        faces.make_portraits(tmp_path / "out", strangers, head=None, left_out=left_out)
