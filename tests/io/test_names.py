"""Any name that a disk takes is a name: none is an option, a home, a pattern or an address."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vasa_jax.io.audio import read_original
from vasa_jax.io.image import read_image, write_image
from vasa_jax.io.video import VideoWriter, read_video, read_video_audio
from vasa_jax.provenance.examine import examine_file
from vasa_jax.provenance.manifest import read_manifest

NAMES = ("12:30", "~draft", "http:x", "concat:a|b", "pipe:1", "-dash", "a[1]*", "b%03d", "x?y#z",
         "line\nbreak", os.fsdecode(b"\xff"), "é" * 122)  # fmt: skip
PICTURE = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def m4a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound that only FFmpeg reads."""
    import av

    path = tmp_path_factory.mktemp("sound") / "sound.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name(
    name: str, m4a: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sound = np.zeros((4_000, 1), np.float32), 16_000
    with VideoWriter(f"{name}.mp4", size=(32, 32), audio=sound) as writer:
        for _ in range(5):
            writer.write(PICTURE)
    assert len(list(read_video(f"{name}.mp4"))) == 5
    assert read_video_audio(f"{name}.mp4")[1] == 32_000
    assert read_manifest(f"{name}.mp4").state == "absent"
    assert not examine_file(f"{name}.mp4", progress=lambda done, total: None).found
    write_image(f"{name}.png", PICTURE)
    np.testing.assert_array_equal(read_image(f"{name}.png"), PICTURE)
    shutil.copy(m4a, f"./{name}.m4a")
    assert len(read_original(f"{name}.m4a")[0]) > 15_000
    assert sorted(os.listdir(".")) == sorted(f"{name}{x}" for x in (".mp4", ".png", ".m4a"))
