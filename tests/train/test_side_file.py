"""Files beside a run, on a disk that is full for a while."""

import pytest

from tests.full_disk import files_up_to
from vasa_jax.train.log import RunLog, read_log
from vasa_jax.train.side_file import SideFile


def test_what_does_not_fit_follows_when_it_does(tmp_path):
    file = SideFile(tmp_path / "new" / "log")
    file.append(b"first\n")
    with files_up_to(10):
        file.append(b"second\n")
        assert "log cannot be written" in file.trouble
        file.append(b"third\n")
        assert file.path.read_bytes() == b"first\nseco"
    file.append(b"fourth\n")
    assert not file.trouble and file.close() == 0
    assert file.path.read_bytes() == b"first\nsecond\nthird\nfourth\n"


def test_what_is_lost_at_the_end_is_counted(tmp_path):
    file = SideFile(tmp_path / "log")
    with files_up_to(3):
        file.append(b"abcde")
        assert file.close() == 2


def test_a_file_that_cannot_be_opened_stops_nobody(tmp_path):
    (tmp_path / "log").mkdir()
    file = SideFile(tmp_path / "log")
    file.append(b"line\n")
    assert "directory" in file.trouble and file.close() == 5


def test_the_log_tells_once_of_a_full_disk_and_is_whole_in_the_end(tmp_path):
    pytest.importorskip("tensorboardX")
    said = []
    with RunLog(tmp_path, tensorboard=True, say=said.append) as log:
        log.write("train", 1, loss=4.0)
        with files_up_to(20):
            for step in range(2, 40):  # many more than the queue of TensorBoard's own writer holds
                log.write("train", step, loss=1.0)
        log.write("train", 40, loss=0.5)
    assert [line["step"] for line in read_log(tmp_path)] == list(range(1, 41))
    assert len(said) == 2 and "training goes on" in said[0] and "whole" in said[1]


def test_lines_that_never_fit_are_told_at_the_end(tmp_path):
    said = []
    with files_up_to(0), RunLog(tmp_path, say=said.append) as log:
        log.write("train", 1, loss=4.0)
        log.write("train", 2, loss=4.0)
        log.close()
    assert len(said) == 2 and "are lost" in said[1]
