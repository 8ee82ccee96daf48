"""A folder made nasty on purpose, from clips of one talking person: what videos in the wild are.

python nasty.py CLIPS OUT [--hour]
"""

import argparse
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vasa_jax.io.video import read_video, read_video_audio

RATE = 16_000


def person(paths):
    """Frames (T, Y, X, 3) at 25 per second and mono sound of clips one after the other."""
    frames, sounds = [], []
    for path in paths:
        shown = np.stack(list(read_video(path)))
        samples, rate = read_video_audio(path)
        mono = samples.mean(1)
        at = np.arange(len(shown) * RATE // 25) * rate / RATE
        frames.append(shown)
        sounds.append(np.interp(at, np.arange(len(mono)), mono).astype(np.float32))
    return np.concatenate(frames), np.concatenate(sounds)


def write(
    path, frames, sound=None, *, rate=Fraction(25), stamps=None, codec="libx264",
    pix_fmt="yuv420p", rotation=0, crf=16,
):  # fmt: skip
    """A video of ``frames`` (an iterable) with sound at 16 kHz; ``stamps`` in ms make it VFR."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = iter(frames)
    first = next(frames)
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=rate)
        video.height, video.width = first.shape[:2]
        video.pix_fmt = pix_fmt
        video.options = {"crf": str(crf)}
        if stamps is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        audio = None if sound is None else out.add_stream("aac", rate=RATE, layout="mono")
        number = 0
        while first is not None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(first), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = int(stamps[number]), Fraction(1, 1000)
            out.mux(video.encode(frame))
            first, number = next(frames, None), number + 1
        out.mux(video.encode(None))
        if audio is not None:
            for start in range(0, len(sound), 1024):
                block = np.ascontiguousarray(sound[None, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = RATE, start
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))


def at_rate(frames, rate):
    """The same seconds at another rate: the picture that is on screen."""
    count = int(len(frames) * rate / 25)
    return (frames[min(int(i * 25 / rate), len(frames) - 1)] for i in range(count))


def make(clips: list[Path], out: Path, *, hour: bool) -> None:
    frames, sound = person(clips[:3])  # nine seconds
    other, _ = person(clips[3:6])
    short = min(len(frames), len(other))
    write(out / "plain.mp4", frames, sound)
    shutil.copy(out / "plain.mp4", out / "the same again.mp4")
    write(out / "23.976.mp4", at_rate(frames, 23.976), sound, rate=Fraction(24000, 1001))
    write(out / "59.94.mkv", at_rate(frames, 59.94), sound, rate=Fraction(60000, 1001))
    steps = np.random.default_rng(0).choice([20, 40, 60], len(frames))
    stamps = np.cumsum(steps * 40 / steps.mean()).astype(int)
    stamps = (stamps - stamps[0]) * (len(frames) - 1) * 40 // (stamps[-1] - stamps[0])
    picked = frames[np.minimum(stamps * 25 // 1000, len(frames) - 1)]
    write(out / "vfr.mp4", picked, sound, stamps=stamps)
    write(out / "rotated.mov", (np.rot90(f, -1) for f in frames), sound, rotation=90)
    write(out / "10bit.mp4", frames, sound, codec="libx265", pix_fmt="yuv420p10le")
    write(out / "silent.mp4", frames)
    write(out / "late.mp4", frames, np.concatenate([np.zeros(RATE // 5, np.float32), sound]))
    write(out / "dubbed.mp4", frames, person(clips[6:9])[1])
    beside = np.concatenate([frames[:short], other[:short, :, ::-1]], 2)
    write(out / "two people.mp4", beside, sound)
    step = 60  # frames of a shot; half of them mirrored, so that cuts are cuts
    shots = [x[a : a + step] for a in range(0, short, step) for x in (frames, other[:, :, ::-1])]
    write(out / "cuts.mp4", np.concatenate(shots), None)
    small = frames[:, ::4, ::4]
    write(out / "far.mp4", (np.pad(f, ((108, 108), (108, 108), (0, 0))) for f in small), sound)
    write(out / "Zoë spricht 日本語 – ça va.mp4", frames[::-1], None)
    whole = (out / "plain.mp4").read_bytes()
    write(out / "whole.mkv", frames, sound)
    (out / "broken tail.mkv").write_bytes((out / "whole.mkv").read_bytes()[: len(whole) * 2 // 3])
    (out / "whole.mkv").unlink()
    (out / "cut off.mp4").write_bytes(whole[: len(whole) // 2])
    (out / "empty.mp4").write_bytes(b"")
    (out / "no video.mp4").write_text("this is no video\n")
    grey = np.full((75, 288, 288, 3), 90, np.uint8)
    write(out / "nobody.mp4", grey, sound[: RATE * 3])
    if hour:
        noise = np.random.default_rng(1).integers(60, 110, (25, 288, 288, 3)).astype(np.uint8)
        speech, heard = person(clips[10:30])

        def long():
            for second in range(3600):
                talk = speech[25 * second % len(speech) :][:25] if second % 60 < 6 else noise
                yield from talk

        write(out / "hour.mp4", long(), np.resize(heard, 3600 * RATE), crf=23)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hour", action="store_true")
    args = parser.parse_args()
    make(sorted(args.clips.glob("*.mp4")), args.out, hour=args.hour)
