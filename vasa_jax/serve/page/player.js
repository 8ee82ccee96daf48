// Plays two fragmented MP4 tracks as they come, near their live edge.

const Source = window.ManagedMediaSource || window.MediaSource;
const AIM = 0.08, FAR = 0.5, KEEP = 8; // seconds: wanted behind the edge, too far behind, kept

export const playable = Boolean(Source);

export class Player {
  constructor(video, videoMime, audioMime) {
    this.video = video;
    this.queues = { video: [], audio: [] };
    this.buffers = {};
    this.jumps = 0;
    this.source = new Source();
    video.disableRemotePlayback = true;
    video.src = URL.createObjectURL(this.source);
    this.source.addEventListener("sourceopen", () => {
      for (const [kind, mime] of [["video", videoMime], ["audio", audioMime]]) {
        const buffer = this.source.addSourceBuffer(mime);
        buffer.mode = "segments";
        buffer.addEventListener("updateend", () => this.#next(kind));
        this.buffers[kind] = buffer;
        this.#next(kind);
      }
    }, { once: true });
    this.timer = setInterval(() => this.#steer(), 100);
  }

  static supports(...mimes) {
    return mimes.every((mime) => Source.isTypeSupported(mime));
  }

  add(kind, bytes) {
    this.queues[kind].push(bytes);
    this.#next(kind);
  }

  #next(kind) {
    const buffer = this.buffers[kind], queue = this.queues[kind];
    if (!buffer || buffer.updating || this.source.readyState !== "open") return;
    try {
      const old = this.video.currentTime - KEEP;
      if (buffer.buffered.length && buffer.buffered.start(0) < old - KEEP) {
        buffer.remove(0, old);
      } else if (queue.length) {
        buffer.appendBuffer(queue.shift());
      }
    } catch (error) {
      if (error.name !== "InvalidStateError" && error.name !== "QuotaExceededError") throw error;
    }
  }

  get edge() {
    const ends = Object.values(this.buffers)
      .map((b) => (b.buffered.length ? b.buffered.end(b.buffered.length - 1) : 0));
    return ends.length ? Math.min(...ends) : 0;
  }

  get lag() {
    return Math.max(0, this.edge - this.video.currentTime);
  }

  toEdge() {
    if (this.edge > 0) this.video.currentTime = Math.max(0, this.edge - 0.02);
  }

  #steer() {
    const { video } = this, ranges = video.buffered;
    if (!ranges.length) return;
    const inside = [...Array(ranges.length).keys()].some((i) =>
      video.currentTime >= ranges.start(i) - 0.01 && video.currentTime <= ranges.end(i));
    if (this.lag > FAR || !inside) {
      video.currentTime = Math.max(ranges.start(ranges.length - 1), this.edge - AIM);
      this.jumps++;
    }
    const rate = this.lag > AIM + 0.12 ? 1.08 : this.lag > AIM + 0.04 ? 1.03 : 1.0;
    if (video.playbackRate !== rate) video.playbackRate = rate;
    if (video.paused) video.play().catch(() => {});
  }

  close() {
    clearInterval(this.timer);
    this.queues = { video: [], audio: [] };
    const url = this.video.src;
    this.video.removeAttribute("src");
    this.video.load();
    URL.revokeObjectURL(url);
  }
}
