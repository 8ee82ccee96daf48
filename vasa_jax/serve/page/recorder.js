// Microphone samples, handed to the page in pieces of 20 ms.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate / 50);
    this.piece = new Float32Array(this.size);
    this.filled = 0;
  }
  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (let i = 0; i < samples.length; i++) {
      this.piece[this.filled++] = samples[i];
      if (this.filled === this.size) {
        this.port.postMessage(this.piece.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}
registerProcessor("recorder", Recorder);
