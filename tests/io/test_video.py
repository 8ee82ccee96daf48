from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.io.video import VideoWriter, read_video, read_video_audio

ROOT = Path(__file__).parents[2]


def frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """(T, Y, X, 3): grey that rises by 3 per frame, with one coloured corner."""
    video = np.repeat(np.arange(count, dtype=np.uint8)[:, None] * 3 + 20, height * width * 3, 1)
    video = video.reshape(count, height, width, 3).copy()
    video[:, :16, :16] = (200, 60, 30)
    return video


def tone(seconds: float, rate: int, channels: int) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return np.repeat((0.4 * np.sin(2 * np.pi * 440 * t))[:, None], channels, 1).astype(np.float32)


def write(path: Path, video: np.ndarray, audio: tuple[np.ndarray, int] | None = None) -> None:
    with VideoWriter(path, size=(video.shape[2], video.shape[1]), audio=audio) as writer:
        for frame in video:
            writer.write(frame)


def test_frames_come_back_in_order_with_their_colours(tmp_path: Path) -> None:
    video = frames(30)
    write(tmp_path / "a.mp4", video)
    back = np.stack(list(read_video(tmp_path / "a.mp4")))
    assert back.shape == video.shape and back.dtype == np.uint8
    np.testing.assert_allclose(back[:, 30, 40, 0], video[:, 30, 40, 0], atol=3)
    np.testing.assert_allclose(back[:, 6, 6], np.tile((200, 60, 30), (30, 1)), atol=8)


def test_stereo_is_kept_and_surround_is_mixed_to_it(tmp_path: Path) -> None:
    rate, sound = 48000, tone(0.8, 48000, 1)
    silent = np.zeros_like(sound)
    left = np.concatenate([sound, silent], 1)
    centre = np.concatenate([silent, silent, sound, *[silent] * 5], 1)  # of 7.1
    for name, given, sides in (("a", left, (1.0, 0.0)), ("b", centre, (0.707, 0.707))):
        write(tmp_path / f"{name}.mp4", frames(20), (given, rate))
        back, _ = read_video_audio(tmp_path / f"{name}.mp4")
        heard = np.sqrt(np.square(back).mean(axis=0) / np.square(sound).mean())
        np.testing.assert_allclose(heard, sides, atol=0.02)


@pytest.mark.parametrize("rate, channels", [
    (8000, 1), (11025, 1), (16000, 1), (22050, 2), (37800, 1), (44100, 2), (48000, 2), (96000, 2),
    (48000, 6),
])  # fmt: skip
@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_sound_is_as_long_as_the_picture(
    tmp_path: Path, rate: int, channels: int, seconds: float
) -> None:
    write(tmp_path / "a.mp4", frames(33), (tone(seconds, rate, channels), rate))
    with av.open(str(tmp_path / "a.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264" and video.codec_context.pix_fmt == "yuv420p"
        assert audio.codec_context.name == "aac" and video.average_rate == 25
        assert audio.channels == min(channels, 2)
        assert float(video.duration * video.time_base) == pytest.approx(33 / 25)
        assert float(audio.duration * audio.time_base) == pytest.approx(33 / 25, abs=0.001)
    samples, written_rate = read_video_audio(tmp_path / "a.mp4")
    # What a player decodes, packets filled up and all, must be within one frame too.
    assert len(samples) / written_rate == pytest.approx(33 / 25, abs=1 / 25)
    assert written_rate in (32000, 44100, 48000)
    if rate in (32000, 44100, 48000):
        assert written_rate == rate


def test_sound_starts_with_the_picture(tmp_path: Path) -> None:
    click = np.zeros((48000, 1), np.float32)
    click[24000:24050] = 0.9
    write(tmp_path / "a.mp4", frames(25), (click, 48000))
    samples, rate = read_video_audio(tmp_path / "a.mp4")
    assert np.abs(samples[:, 0]).argmax() / rate == pytest.approx(0.5, abs=0.003)


@pytest.mark.parametrize("height, width", [(47, 63), (48, 63), (101, 64), (17, 19)])
def test_odd_sizes_are_made_even(tmp_path: Path, height: int, width: int) -> None:
    video = frames(5, height, width)
    write(tmp_path / "a.mp4", video)
    back = next(iter(read_video(tmp_path / "a.mp4")))
    assert back.shape == (height + height % 2, width + width % 2, 3)


def test_the_index_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", frames(10), (tone(1, 16000, 1), 16000))
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("fps, expected", [(12.5, 40), (25, 20), (50, 10), (30, 17)])
def test_other_rates_are_brought_to_25_per_second(
    tmp_path: Path, fps: float, expected: int
) -> None:
    from fractions import Fraction

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    back = np.stack(list(read_video(tmp_path / "a.mp4")))
    assert len(back) == expected
    shown = (back[:, 30, 40, 1].astype(float) - 20) / 3  # which source frame is on screen
    np.testing.assert_allclose(shown, np.arange(expected) * fps / 25, atol=1.2)


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with VideoWriter(tmp_path / "a.mp4", size=(64, 48)) as writer:
            writer.write(frames(1)[0])
            raise KeyboardInterrupt
    with pytest.raises(ValueError, match="no frame"):
        with VideoWriter(tmp_path / "a.mp4", size=(64, 48)):
            pass
    with pytest.raises(ValueError, match="expected a uint8 frame"):
        write(tmp_path / "a.mp4", frames(2).astype(np.float32))
    assert not list(tmp_path.iterdir())


def test_an_earlier_file_survives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("earlier")
    with pytest.raises(RuntimeError):
        with VideoWriter(tmp_path / "a.mp4", size=(64, 48)) as writer:
            writer.write(frames(1)[0])
            raise RuntimeError
    assert (tmp_path / "a.mp4").read_text() == "earlier"


FULL_DISK = """
import resource, sys, numpy as np
from vasa_jax.core.errors import UserError
from vasa_jax.io.video import VideoWriter
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # writes beyond fail, as on a full disk
noise = np.random.default_rng(0)
try:
    with VideoWriter(sys.argv[1], size=(128, 128), audio=(np.zeros((16000, 1), "f"), 16000)) as w:
        for _ in range(20):
            w.write(noise.integers(0, 255, (128, 128, 3), dtype=np.uint8))
except UserError as error:
    print("UserError:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limits")
@pytest.mark.parametrize("limit", [1000, 100_000])
def test_a_full_disk_is_a_user_error_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.mp4"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("UserError: can't write"), done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


def test_bad_targets_and_sources_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name it .mp4"):
        VideoWriter(tmp_path / "a.avi", size=(64, 48))
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="not a folder"):
        VideoWriter(tmp_path / "file" / "a.mp4", size=(64, 48))
    for name in ("file", "none.mp4"):
        with pytest.raises(UserError):
            list(read_video(tmp_path / name))
    write(tmp_path / "mute.mp4", frames(3))
    with pytest.raises(UserError, match="no sound"):
        read_video_audio(tmp_path / "mute.mp4")


@pytest.mark.slow
def test_memory_stays_flat_over_five_minutes(tmp_path: Path) -> None:
    code = (
        "import sys, resource, numpy as np\n"
        "from vasa_jax.io.video import VideoWriter\n"
        "noise = np.random.default_rng(0).integers(0, 255, (8, 128, 128, 3), dtype=np.uint8)\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sound = np.zeros((16000 * 300, 1), 'f')\n"
        "with VideoWriter(sys.argv[1], size=(128, 128), audio=(sound, 16000)) as w:\n"
        "    for i in range(7500):\n"
        "        w.write(noise[i % 8])\n"
        "        if i == 500: early = peak()\n"
        "print((peak() - early) / 1024)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert float(done.stdout) < 30, f"{done.stdout} MiB more at the end"
