"""The arithmetic of ``tools/browser_latency.py`` on a session whose answer is known."""

import pytest

from tools.browser_latency import summary


def session(frames=200, rate=48_000, put_in=0):
    """A microphone from time 1000 ms on; each frame is 120 + 30 + 5 + 45 ms after its sample."""
    spoken = [1000.0 + 40.0 * (n - put_in / 640) for n in range(frames)]
    ms = {"sound": 120.0, "total": 150.0, "motion": 10.0, "render": 15.0, "encode": 5.0}
    return {
        "rate": rate, "priming": 0.02, "stats": [[0.0, {"filled": put_in, "dropped": 0}]],
        # A piece of 20 ms is sent when its last sample is there.
        "sent": [[1000.0 + 20.0 * (k + 1), rate // 50] for k in range(frames * 2 + 20)],
        "came": [[n, at + 155.0, ms] for n, at in enumerate(spoken)],
        "shown": [[0.02 + n / 25, at + 200.0] for n, at in enumerate(spoken)],
    }  # fmt: skip


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("put_in", [0, 3200])
def test_parts_are_told_apart(rate, put_in):
    found = summary(session(rate=rate, put_in=put_in))
    assert found["frames"] == 200 - 75
    expected = {
        "total": 200,
        "sound": 120,
        "compute": 30,
        "encode": 5,
        "transport": 5,
        "player": 45,
    }
    for name, value in expected.items():
        assert found["ms"][name]["p50"] == pytest.approx(value), name
        assert found["ms"][name]["p95"] == pytest.approx(value), name


def test_frames_of_silence_that_nobody_said_are_left_out():
    assert summary(session(frames=200, put_in=640 * 100))["frames"] == 100
    assert summary(session() | {"shown": []}) == {"frames": 0, "ms": {}}
