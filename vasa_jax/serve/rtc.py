"""WebRTC as a session's way out, and in for a microphone; needs ``aiortc`` (extra ``webrtc``).

The WebSocket stays: it carries ``start``, controls and timings, and one more exchange, the
browser's offer and the answer to it. Pictures and sound then go as two RTP tracks, encoded by
aiortc (VP8 or H.264, Opus) and encrypted (DTLS-SRTP); their time stamps count from the same frame.
A player shows them as they come, without the buffer that a file would want.

No server of others is asked for addresses (no STUN or TURN): both sides must be able to reach each
other, as on one machine or in one network.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import importlib.util
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ
from vasa_jax.generate.live.stream import LiveFrame
from vasa_jax.serve.protocol import Refused, read_samples

WAITING = 4  # pictures, or pieces of sound, that wait for a slow network; older ones are dropped
PIECE = SAMPLE_RATE_HZ // 50  # samples of a piece of sound: 20 ms, one packet of Opus
MEDIA, CANDIDATES = 3, 64  # of an offer, at most
MISSING = "this server has no WebRTC; pip install 'vasa-jax[webrtc]' brings it"


def installed() -> bool:
    """Whether sessions can ask for it."""
    return importlib.util.find_spec("aiortc") is not None


class Peer:
    """The other side of one session: shows it frames, hears its microphone.

    ``hear`` is given mono float32 samples at ``rate`` Hz while ``listen`` runs. Raises Refused
    without aiortc.
    """

    def __init__(self, hear: Callable[[np.ndarray], None], rate: int):
        if not installed():
            raise Refused("bad_request", MISSING)
        from aiortc import RTCConfiguration, RTCPeerConnection

        self._hear, self._rate = hear, rate
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._microphone: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._connection.on("track", self._meet)
        self._video, self._audio = _track("video"), _track("audio")
        self._answered = False

    async def answer(self, offer: Any) -> str:
        """The session description (SDP) that answers an offered one. Raises Refused."""
        from aiortc import RTCSessionDescription

        if self._answered:
            raise Refused("bad_request", "offer: this session has its answer; start another")
        _check(offer)
        self._answered = True
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            self._connection.addTrack(self._video)
            self._connection.addTrack(self._audio)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:  # whatever a parser of untrusted text may raise
            raise Refused("bad_request", f"offer: {str(error)[:80] or 'not SDP'}") from None
        return self._connection.localDescription.sdp

    def show(self, frame: LiveFrame) -> None:
        """Sends a frame and its sound; before the answer there is nobody to see it."""
        from av import AudioFrame, VideoFrame

        if not self._answered:
            return
        picture = VideoFrame.from_ndarray(frame.picture, format="rgb24")
        picture.pts, picture.time_base = frame.index, fractions.Fraction(1, FPS)
        self._video.put(picture)
        pcm = np.round(np.clip(frame.sound, -1.0, 1.0) * 32767).astype(np.int16)
        for start in range(0, len(pcm), PIECE):
            piece = AudioFrame.from_ndarray(pcm[None, start : start + PIECE], "s16", "mono")
            piece.sample_rate = SAMPLE_RATE_HZ
            piece.pts = frame.index * len(pcm) + start
            piece.time_base = fractions.Fraction(1, SAMPLE_RATE_HZ)
            self._audio.put(piece)

    async def listen(self) -> NoReturn:
        """Hears the microphone for as long as there is one; raises what ``hear`` raises."""
        from aiortc.mediastreams import MediaStreamError
        from av import AudioResampler

        resampler = AudioResampler("s16", "mono", self._rate)
        track = await self._microphone
        with contextlib.suppress(MediaStreamError):
            while True:
                for piece in resampler.resample(await track.recv()):
                    self._hear(read_samples(piece.to_ndarray().tobytes(), "s16"))
        while True:  # a microphone that is gone ends nothing
            await asyncio.sleep(3600.0)

    async def close(self) -> None:
        """Ends both tracks and frees the ports."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5.0):
                await self._connection.close()

    def _meet(self, track: Any) -> None:
        if track.kind == "audio" and not self._microphone.done():
            self._microphone.set_result(track)


def _check(offer: Any) -> None:
    """Refuses what would cost more than one session's pictures, sound and microphone."""
    if not isinstance(offer, str):
        raise Refused("bad_request", "offer: sdp is a text")
    media = [line[2:].split(" ", 1)[0] for line in offer.splitlines() if line.startswith("m=")]
    if not media or len(media) > MEDIA or set(media) - {"audio", "video"}:
        raise Refused("bad_request", f"offer: one to {MEDIA} media, audio or video")
    if offer.count("a=candidate:") > CANDIDATES:
        raise Refused("bad_request", f"offer: at most {CANDIDATES} candidates")


def _track(kind: str) -> Any:
    """A track that sends what is put into it; aiortc is imported when there is one."""
    from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

    class Live(MediaStreamTrack):
        def __init__(self) -> None:
            super().__init__()
            self.kind = kind
            self._frames: asyncio.Queue[Any] = asyncio.Queue(WAITING)

        def put(self, frame: Any) -> None:
            if self._frames.full():
                self._frames.get_nowait()
            self._frames.put_nowait(frame)

        async def recv(self) -> Any:
            if self.readyState != "live":
                raise MediaStreamError
            return await self._frames.get()

    return Live()
