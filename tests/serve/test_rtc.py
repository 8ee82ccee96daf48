"""Sessions by WebRTC, with aiortc itself as the browser."""

import asyncio
import fractions

import numpy as np
import pytest

from tests.serve.serving import emptied, serving
from vasa_jax.serve import protocol, rtc
from vasa_jax.serve.protocol import Refused

aiortc = pytest.importorskip("aiortc")
pytestmark = pytest.mark.usefixtures("broadcasting")


class Microphone(aiortc.MediaStreamTrack):
    """Noise from ``begin`` s on, silence before, 20 ms at a time as 48 kHz stereo."""

    kind = "audio"

    def __init__(self, begin):
        super().__init__()
        self._n, self._begin, self._at = 0, begin, None

    async def recv(self):
        from av import AudioFrame

        loop = asyncio.get_running_loop()
        self._at = loop.time() if self._at is None else self._at
        await asyncio.sleep(max(0.0, self._at + self._n / 50 - loop.time()))
        loud = 6000 if self._n / 50 >= self._begin else 0
        noise = np.random.default_rng(self._n).normal(0, 1, 960) * loud
        frame = AudioFrame.from_ndarray(
            np.repeat(noise.clip(-32000, 32000).astype(np.int16), 2)[None], "s16", "stereo"
        )
        frame.sample_rate, frame.pts = 48_000, self._n * 960
        frame.time_base = fractions.Fraction(1, 48_000)
        self._n += 1
        return frame


async def connected(session, microphone):
    """A peer that has the answer, and queues of what it receives by kind."""
    peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    got = {"video": [], "audio": []}
    readers = []

    async def read(track):
        while True:
            got[track.kind].append(await track.recv())

    peer.on("track", lambda track: readers.append(asyncio.ensure_future(read(track))))
    peer.addTransceiver("video", direction="recvonly")
    peer.addTrack(microphone)
    await peer.setLocalDescription(await peer.createOffer())
    await session._socket.send_json({"type": "offer", "sdp": peer.localDescription.sdp})
    return peer, got, readers


def test_a_conversation_by_webrtc(release):
    async def run():
        async with serving(release) as (server, client, _):
            assert "webrtc" in (await client.health())["outputs"]
            headers = []
            async with client.session(output="webrtc", frame="crop") as session:
                assert "video_mime" not in session.ready
                peer, got, readers = await connected(session, Microphone(1.5))
                async for message in session:
                    if message.type == "answer":
                        answer = aiortc.RTCSessionDescription(message.header["sdp"], "answer")
                        await peer.setRemoteDescription(answer)
                    if message.type == "frame":
                        headers.append(message.header)
                    heard = any(np.abs(s.to_ndarray()).mean() > 1000 for s in got["audio"][-5:])
                    if len(got["video"]) >= 75 and heard:  # as late as a busy machine makes it
                        break
                for reader in readers:
                    reader.cancel()
                await peer.close()
            assert await emptied(server)
        return session.ready, headers, got

    ready, headers, got = asyncio.run(asyncio.wait_for(run(), 120))
    # Sound came by the track; how much silence was put in before depends on who connects first.
    assert any(header["speaking"] for header in headers[-25:])
    assert {"motion", "render", "total"} <= set(headers[-1]["ms"])
    pictures, sound = got["video"], got["audio"]
    assert {(p.width, p.height) for p in pictures} == {(ready["width"], ready["height"])}
    steps = np.diff([p.pts * p.time_base for p in pictures]).astype(float)
    assert np.median(steps) == pytest.approx(1 / 25)  # on the frames' clock
    loud = [np.abs(s.to_ndarray()).mean() for s in sound]
    assert max(loud) > 20 * (np.mean(loud[:10]) + 1)  # the noise came back with the pictures


def test_sound_by_the_track_has_the_limits_of_the_websocket(release, monkeypatch):
    monkeypatch.setattr("vasa_jax.serve.session.BURST_S", 0.0)
    monkeypatch.setattr("vasa_jax.serve.session.PACE", 0.0)

    async def run():
        async with serving(release) as (server, client, _):
            with pytest.raises(Exception, match="too_fast"):
                async with client.session(output="webrtc") as session:
                    peer, _, readers = await connected(session, Microphone(0.0))
                    async for message in session:
                        if message.type == "answer":
                            answer = aiortc.RTCSessionDescription(message.header["sdp"], "answer")
                            await peer.setRemoteDescription(answer)
            for reader in readers:
                reader.cancel()
            await peer.close()
            assert await emptied(server)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_is_no_offer_is_answered_and_harms_nobody(release):
    async def run():
        async with serving(release) as (server, client, _):
            async with client.session(output="webrtc") as session:
                for sdp in ("nonsense", 7, "v=0\r\nm=video 9 X 1\r\n"):
                    await session._socket.send_json({"type": "offer", "sdp": sdp})
                errors = []
                async for message in session:
                    if message.type == "error":
                        errors.append(message.header["code"])
                    if len(errors) == 3:
                        break
            async with client.session() as session:  # mp4 has no use for an offer
                await session._socket.send_json({"type": "offer", "sdp": ""})
                async for message in session:
                    if message.type == "error":
                        errors.append(message.header["code"])
                        break
            assert await emptied(server)
            return errors

    assert asyncio.run(asyncio.wait_for(run(), 60)) == ["bad_request"] * 4


@pytest.mark.parametrize("sdp", [
    "", "v=0\r\n", "v=0\r\nm=application 9 X 1\r\n", "v=0\r\n" + "m=audio 9 X 1\r\n" * 4,
    "v=0\r\nm=audio 9 X 1\r\n" + "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n" * 65,
])  # fmt: skip
def test_an_offer_of_too_much_is_refused(sdp):
    async def run():
        peer = rtc.Peer(lambda samples: None, 16_000)
        with pytest.raises(Refused, match="offer"):
            await peer.answer(sdp)
        await peer.close()

    asyncio.run(run())


def test_without_aiortc_a_session_is_refused_in_one_line(release, monkeypatch):
    monkeypatch.setattr(rtc, "installed", lambda: False)

    async def run():
        async with serving(release) as (server, client, _):
            assert (await client.health())["outputs"] == ["mp4", "jpeg"]
            with pytest.raises(Exception, match="pip install"):
                async with client.session(output="webrtc"):
                    pass
            assert await emptied(server)

    asyncio.run(run())
    with pytest.raises(Refused, match="pip install"):
        rtc.Peer(lambda samples: None, 16_000)
    assert protocol.OUTPUTS == ("mp4", "jpeg", "webrtc")
