"""What we mux by hand, read by FFmpeg."""

import io

import av
import numpy as np
import pytest

from vasa_jax.serve import fmp4


def decode(data):
    with av.open(io.BytesIO(data)) as container:
        return list(container.decode(container.streams[0]))


@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_pictures_come_back_at_their_time(size):
    track, data = fmp4.VideoTrack(size), b""
    data += track.init
    greys = [10 + 5 * i for i in range(40)]
    for i, grey in enumerate(greys):
        data += track.add(np.full((size[1], size[0], 3), grey, np.uint8), i)
    frames = decode(data)
    assert [f.pts for f in frames] == [i * 1920 + fmp4.PRIMING for i in range(40)]
    assert frames[0].time_base.denominator == fmp4.TIMESCALE
    means = [f.to_ndarray(format="rgb24").mean() for f in frames]
    np.testing.assert_allclose(means, greys, atol=4)
    assert (frames[0].width, frames[0].height) == (64, 48)
    assert [i for i, f in enumerate(frames) if f.key_frame] == [0, 25]  # one a second
    assert track.mime.startswith('video/mp4; codecs="avc1.4d')


def test_sound_is_as_late_as_the_pictures_are_moved():
    track, sound = fmp4.AudioTrack(), 0.4 * np.random.default_rng(0).normal(size=640 * 50)
    smooth = np.convolve(sound, np.ones(8) / 8, "same").astype(np.float32)
    data = track.init + b"".join(track.add(part) for part in smooth.reshape(50, 640))
    frames = decode(data)
    assert [f.pts for f in frames][:3] == [0, 1024, 2048]
    heard = np.concatenate([f.to_ndarray()[0] for f in frames])
    sent = np.interp(np.arange(40_000) / 3, np.arange(len(smooth)), smooth)
    fits = [heard[k : k + 40_000] @ sent for k in range(fmp4.PRIMING - 300, fmp4.PRIMING + 300)]
    assert abs(int(np.argmax(fits)) - 300) <= 2
    assert len(frames) * 1024 > 50 * 1920 - 4 * 1024  # no more than this waits inside


def test_every_picture_and_no_later_is_a_segment_of_its_own():
    track = fmp4.VideoTrack((32, 32))
    for i in range(5):
        segment = track.add(np.full((32, 32, 3), 40 * i, np.uint8), i)
        assert segment[4:8] == b"moof" and segment.count(b"mdat") == 1
