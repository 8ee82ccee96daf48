"""``generate`` killed, and out of room, at twenty random moments: whole files or none, no parts."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import tiny_release
from vasa_jax.io.image import write_image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for its processes"),
    pytest.mark.usefixtures("broadcasting"),
]
KILLS, FULL = 14, 6


class Place:
    """A folder with what generate needs, its cache, and the folder it writes to."""

    def __init__(self, folder: Path):
        import soundfile

        self.folder, self.out = folder, folder / "out"
        self.out.mkdir()
        tiny_release(folder / "tiny")
        write_image(folder / "face.png", drawn_face(240))
        noise = np.random.default_rng(0).normal(0, 0.1, 32_000)
        soundfile.write(folder / "speech.wav", noise, 16_000)

    def begin(self, limit: int | None = None) -> subprocess.Popen:
        """Starts generate; no file of it may grow beyond ``limit`` bytes."""

        def limited() -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        command = [
            sys.executable, "-m", "vasa_jax", "generate", "face.png", "speech.wav", "--release",
            "tiny", "--steps", "2", "-o", "out/k.mp4", "--sheet", "out/k.png", "--json",
        ]  # fmt: skip
        env = os.environ | {
            "VASA_CACHE": str(self.folder / "cache"), "VASA_IDENTITY": str(self.folder / "me"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        return subprocess.Popen(
            command, cwd=self.folder, env=env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limited,
        )  # fmt: skip

    def whole(self) -> None:
        """What lies under its name is whole."""
        import av

        if (self.out / "k.mp4").exists():
            with av.open(str(self.out / "k.mp4")) as video:
                assert video.streams.video[0].frames == 50
        if (self.out / "k.png").exists():
            from PIL import Image

            Image.open(self.out / "k.png").load()

    def hidden(self) -> list[str]:
        """Parts in the output's folder, and in those of programs and identity."""
        folders = (self.out, self.folder / "cache" / "programs", self.folder / "me")
        return [n for f in folders if f.exists() for n in os.listdir(f) if ".part" in n]


def running(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(path.parent.name))
    return found


def test_twenty_random_moments(tmp_path: Path) -> None:
    place = Place(tmp_path)
    length = 0.0  # of a run that finds its programs
    for _ in range(2):
        began = time.monotonic()
        first = place.begin()
        _, err = first.communicate()
        assert first.returncode == 0, err
        length = time.monotonic() - began
    random.seed(20)
    moments = [("kill", random.uniform(0.1, 0.9)) for _ in range(KILLS)]
    moments += [("full", random.uniform(0.0, 1.0)) for _ in range(FULL)]
    random.shuffle(moments)
    size = (place.out / "k.mp4").stat().st_size
    for what, moment in moments:
        shutil.rmtree(place.out)
        place.out.mkdir()
        if random.random() < 0.3:
            shutil.rmtree(place.folder / "cache", ignore_errors=True)
        if what == "full":
            process = place.begin(limit=int(moment * size))
            _, err = process.communicate()
            assert process.returncode == 2, err
            assert err.splitlines()[-1].startswith("vasa-jax: error: can't write"), err
            assert not place.hidden() and not list(place.out.glob(".*"))
        else:
            process = place.begin()
            time.sleep(moment * length)
            process.kill()
            process.communicate()
        place.whole()
        assert not running(process.pid)
    last = place.begin()
    out, err = last.communicate()
    assert last.returncode == 0, err
    assert json.loads(out)["frames"] == 50
    place.whole()
    assert sorted(os.listdir(place.out)) == ["k.mp4", "k.png"] and not place.hidden()
