// Shows a session by WebRTC, as it comes; the same face as player.js.

export class Peer {
  constructor(video, send, microphone) {
    this.video = video;
    this.lag = 0; // seconds that a picture waits for others, from the browser's own statistics
    this.jumps = 0;
    this.connection = new RTCPeerConnection();
    const shown = new MediaStream();
    video.srcObject = shown;
    this.connection.ontrack = ({ track, receiver }) => {
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      shown.addTrack(track);
      video.play().catch(() => {});
    };
    this.connection.addTransceiver("video", { direction: "recvonly" });
    if (microphone) {
      microphone.getAudioTracks().forEach((track) => this.connection.addTrack(track, microphone));
    } else {
      this.connection.addTransceiver("audio", { direction: "recvonly" });
    }
    this.#offer(send);
    this.timer = setInterval(() => this.#measure(), 500);
  }

  // The server does not trickle addresses, so the offer waits until it has all of ours.
  async #offer(send) {
    const connection = this.connection;
    await connection.setLocalDescription();
    while (connection.iceGatheringState !== "complete") {
      await new Promise((done) =>
        connection.addEventListener("icegatheringstatechange", done, { once: true }));
    }
    send({ type: "offer", sdp: connection.localDescription.sdp });
  }

  answer(sdp) {
    return this.connection.setRemoteDescription({ type: "answer", sdp });
  }

  async #measure() {
    for (const report of (await this.connection.getStats()).values()) {
      if (report.type !== "inbound-rtp" || report.kind !== "video") continue;
      const { jitterBufferDelay: delay = 0, jitterBufferEmittedCount: count = 0 } = report;
      const before = this.before || { delay: 0, count: 0 };
      if (count > before.count) this.lag = (delay - before.delay) / (count - before.count);
      this.before = { delay, count };
    }
  }

  add() {} // nothing of it comes by the WebSocket

  toEdge() {} // there is no buffer to leave

  close() {
    clearInterval(this.timer);
    this.connection.close();
    this.video.srcObject = null;
  }
}
