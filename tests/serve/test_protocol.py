"""Messages that are refused, and a client that needs no JAX."""

import asyncio
import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.io.heic import heic
from vasa_jax.core.errors import UserError
from vasa_jax.serve import protocol
from vasa_jax.serve.decoding import decode_portrait
from vasa_jax.serve.figures import Figures
from vasa_jax.serve.protocol import Refused

GOOD = {"type": "start", "version": 2}


def test_a_start_message_has_defaults():
    start = protocol.read_start(GOOD | {"rate": 48000, "source": "file"})
    assert (start.portrait, start.rate, start.output) == ("example", 48000, "mp4")
    assert "secret" not in repr(protocol.read_start(GOOD | {"token": "secret"}))


@pytest.mark.parametrize("change, words", [
    ({"type": "go"}, "first message"),
    ({"version": 1}, "version 2"),
    ({"rate": 96000}, "rate"),
    ({"rate": True}, "rate"),
    ({"rate": "16000"}, "rate"),
    ({"seed": -1}, "seed"),
    ({"format": "mp3"}, "format"),
    ({"output": ["mp4"]}, "output"),
    ({"portrait": "x" * 300}, "portrait"),
    ({"controls": []}, "controls"),
    ({"colour": 1}, "no entry 'colour'"),
])  # fmt: skip
def test_bad_starts_are_refused_by_name(change, words):
    with pytest.raises(Refused, match=words):
        protocol.read_start(GOOD | change)


@pytest.mark.parametrize("text", [
    "", "{", "[]", "3", '{"type": 3}', '{"a": 1}', "[" * 5000, '{"type": "x", "v": NaN}',
    "x" * 9000,
])  # fmt: skip
def test_what_is_no_message_is_refused(text):
    with pytest.raises(Refused):
        protocol.read_text(text)


def test_controls():
    steer = protocol.read_controls({"type": "controls", "gaze": [10, -5], "emotion": {"sad": 1}})
    assert steer.controls == {"gaze": [10.0, -5.0], "emotion": {"sad": 1.0}} and steer.pose is None
    assert protocol.read_controls({"pose": [1, 2, 3]}).controls is None
    assert protocol.read_controls({"gaze": None}).controls == {}
    for bad in ({"gaze": [1]}, {"gaze": [[0, 1, 2]]}, {"distance": "near"}, {"pose": [1, 2]},
                {"pose": [1, 2, float("inf")]}, {"emotion": ["sad"]}, {"zoom": 1},
                {"distance": True}, {"distance": 10**400}):  # fmt: skip
        with pytest.raises(Refused):
            protocol.read_controls(bad)


def test_samples_and_binary_messages_come_back():
    samples = np.array([0, 16384, -32768], "<i2")
    np.testing.assert_allclose(protocol.read_samples(samples.tobytes(), "s16"), [0, 0.5, -1])
    for data in (b"", b"x"):
        with pytest.raises(Refused):
            protocol.read_samples(data, "s16")
    assert protocol.unpack(protocol.pack({"type": "video"}, b"abc")) == ({"type": "video"}, b"abc")
    with pytest.raises(UserError):
        protocol.unpack(b"\0\0")


def test_the_client_needs_no_jax():
    code = "import sys, vasa_jax.serve.client; assert not {'jax', 'flax', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def picture(size=(40, 30), kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", size, (200, 10, 30)).save(out, kind)
    return out.getvalue()


def test_pictures_are_decoded_in_a_process_with_bounds():
    async def run():
        image = await decode_portrait(picture((100, 50)), max_side=64)
        assert image.shape == (32, 64, 3) and image[5, 5, 0] == 200
        turned = heic(np.full((64, 96, 3), 200, np.uint8), turn=1)  # as a phone held upright
        assert (await decode_portrait(turned, max_side=64)).shape == (64, 43, 3)
        bomb = bytearray(picture())
        bomb[16:24] = (30_000).to_bytes(4, "big") * 2  # the header says 900 million pixels
        # ... and is right about its checksum
        bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
        large = "the picture is too large: 30000x30000 pixels, at most 50 million"
        for data, words in ((bytes(bomb), large), (picture((8000, 7000)), "too large: 8000x7000"),
                            (picture()[:60], "damaged"), (picture(kind="GIF"), "JPEG, PNG, WebP"),
                            (b"", "JPEG")):  # fmt: skip
            with pytest.raises(UserError, match=words):
                await decode_portrait(data, max_side=64)

    asyncio.run(run())


def test_figures_are_prometheus_text():
    figures = Figures()
    figures.add("sessions_refused_total", reason="busy")
    for ms in (100.0, 5000.0):
        figures.latency(ms)
    text = figures.text({"sessions": 2})
    assert 'vasa_sessions_refused_total{reason="busy"} 1\n' in text
    assert 'vasa_latency_ms_bucket{le="120"} 1\n' in text and "vasa_sessions 2\n" in text
    assert 'vasa_latency_ms_bucket{le="+Inf"} 2\n' in text and "vasa_latency_ms_sum 5100\n" in text
    with pytest.raises(KeyError):
        figures.add("unknown")
