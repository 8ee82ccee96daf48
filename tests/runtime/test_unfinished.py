"""What killed writers leave is removed by whoever writes the same next, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vasa_jax.io.atomic import partial_path, replacing
from vasa_jax.runtime import unfinished


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"half")


def test_what_dead_processes_left_of_the_same_file_goes(tmp_path: Path, dead: int) -> None:
    here = unfinished._machine()
    gone = [f".talk.{dead}.part.mp4", f".talk.{dead}.signed.mp4", f".talk.{dead}.{here}-3.part.mp4"]
    stays = [
        f".talk.{os.getpid()}.part.mp4",  # alive
        f".talk.{os.getppid()}.{here}-0.part.mp4",
        f".other.{dead}.part.mp4",  # of another file
        f".talk.{dead}.part.png",
        f".talk.{dead}.00000000-0.part.mp4",  # perhaps alive on another machine
        f".talk.{dead}.mp4", "talk.mp4", ".talk.part.mp4",
    ]  # fmt: skip
    left(tmp_path, *gone, *stays)
    with replacing(tmp_path / "talk.mp4") as part:
        assert part.suffix == ".mp4" and part.name.startswith(f".talk.{os.getpid()}.")
        part.write_bytes(b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted(stays)
    assert (tmp_path / "talk.mp4").read_bytes() == b"whole"


def test_what_another_machine_left_goes_after_a_day(tmp_path: Path, monkeypatch) -> None:
    name = ".talk.1.00000000-0.part.mp4"
    left(tmp_path, name)
    unfinished.sweep(tmp_path / "talk.mp4")
    assert os.listdir(tmp_path) == [name]
    now = time.time()
    monkeypatch.setattr(unfinished.time, "time", lambda: now + unfinished.ELSEWHERE_S + 60)
    unfinished.sweep(tmp_path / "talk.mp4")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux when processes began")
def test_the_number_of_a_dead_process_may_be_used_again(tmp_path: Path, monkeypatch) -> None:
    part = tmp_path / f".talk.{os.getpid()}.part.mp4"
    left(tmp_path, part.name)
    began = part.stat().st_ctime
    assert unfinished._is_running(os.getpid(), since=began)
    # As if this process had begun long after the file was last touched.
    assert not unfinished._is_running(os.getpid(), since=began - 1e6)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux who is dead")
def test_a_dead_process_that_nobody_has_asked_for_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.stdout.read()  # it has closed everything
    for _ in range(200):
        if not unfinished._is_running(process.pid, since=time.time()):
            break
        time.sleep(0.02)
    else:
        pytest.fail("a zombie is taken for a writer")
    process.wait()


@pytest.mark.parametrize(
    "name", ["a[1]*.mp4", "x.y.z.mp4", "no suffix", "é" * 120 + ".png", "~q.md"]
)
def test_any_name_can_be_written_and_swept(tmp_path: Path, name: str, dead: int) -> None:
    part = unfinished.name_for(tmp_path / name)
    old = part.with_name(part.name.replace(f".{os.getpid()}.", f".{dead}."))
    assert old != part
    old.mkdir()
    left(old, "inside")
    with replacing(tmp_path / name) as part:
        part.write_bytes(b"x")
    assert os.listdir(tmp_path) == [name]


def test_two_writers_of_one_file_do_not_share_a_name(tmp_path: Path) -> None:
    assert len({partial_path(tmp_path / "a.json") for _ in range(3)}) == 3


def test_an_end_in_a_hurry_removes_what_is_unfinished_and_ours(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        with replacing(tmp_path / "a.txt") as part:
            part.write_text("half")
            left(tmp_path, "b.txt")
            unfinished.remove_mine()
            assert os.listdir(tmp_path) == ["b.txt"]
            raise RuntimeError
    unfinished.remove_mine()


def test_a_killed_writer_leaves_nothing_after_the_next(tmp_path: Path) -> None:
    script = (
        "import sys, time; from vasa_jax.io.atomic import replacing\n"
        "with replacing(sys.argv[1]) as part:\n"
        "    part.write_text('half'); print(flush=True); time.sleep(60)\n"
    )
    target = tmp_path / "k.mp4"
    process = subprocess.Popen([sys.executable, "-c", script, target], stdout=subprocess.PIPE)
    process.stdout.readline()
    process.kill()
    process.wait()
    assert len(os.listdir(tmp_path)) == 1 and not target.exists()
    with replacing(target) as part:
        part.write_text("whole")
    assert os.listdir(tmp_path) == ["k.mp4"]
