// The live page: picks a portrait and a voice, speaks the protocol (PROTOCOL.md), shows figures.

import { Peer } from "./peer.js";
import { Player, playable } from "./player.js";
import { beside, reasonOf, reasonOfServer, sentence, socketBeside, tokenOf } from "./words.js";

const $ = (id) => document.getElementById(id);
const VERSION = 2, FILE_RATE = 16000, FILE_AHEAD_S = 2.0;
const HERE = location.href.split(/[?#]/)[0];
const token = tokenOf(location.hash);
const SLIDERS = [
  ["gaze_yaw", "Gaze across", -30, 30, 1, 0, "°"],
  ["gaze_pitch", "Gaze up", -20, 20, 1, 0, "°"],
  ["distance", "Distance", 0.7, 1.4, 0.01, 1, "×"],
  ["yaw", "Head turn", -20, 20, 1, 0, "°"],
  ["pitch", "Head nod", -15, 15, 1, 0, "°"],
  ["roll", "Head tilt", -15, 15, 1, 0, "°"],
  ["strength", "Strength", 0, 1, 0.05, 0, ""],
];
const EMOTIONS = ["happy", "sad", "angry", "surprised", "fearful", "disgusted", "contempt"];

let portrait = "example";
let session = null; // what runs now

// The reason why something did not work: nothing on the page is larger.
function say(text) {
  $("reason").textContent = text;
  if (text) $("reason").scrollIntoView({ block: "nearest" });
}
function state(text) { $("state").textContent = text; }

async function post(path, body, headers = {}) {
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(beside(HERE, path), { method: "POST", body, headers });
}

async function health() {
  return (await fetch(beside(HERE, "healthz"))).json();
}

// -- controls ------------------------------------------------------------------------------------

const values = Object.fromEntries(SLIDERS.map(([name, , , , , start]) => [name, start]));
const touched = new Set();
let emotion = "happy", due = 0;

function buildSliders() {
  for (const [name, label, low, high, step, start, unit] of SLIDERS) {
    const row = document.createElement("label");
    row.className = "slider";
    const words = document.createElement("span"), out = document.createElement("output");
    const input = Object.assign(document.createElement("input"),
      { type: "range", id: name, min: low, max: high, step, value: start });
    const show = () => { out.textContent = `${Math.round(values[name] * 100) / 100}${unit}`; };
    input.addEventListener("input", () => {
      values[name] = Number(input.value);
      touched.add(name);
      show();
      steer();
    });
    row.reset = () => { input.value = start; values[name] = start; show(); };
    words.textContent = label;
    show();
    row.append(words, input, out);
    if (name === "strength") {
      const pick = document.createElement("label");
      pick.className = "slider";
      const title = document.createElement("span"), select = document.createElement("select");
      title.textContent = "Emotion";
      select.id = "emotion";
      select.append(...EMOTIONS.map((e) => new Option(e, e)));
      select.addEventListener("change", () => { emotion = select.value; steer(); });
      pick.append(title, select);
      $("sliders").append(pick);
    }
    $("sliders").append(row);
  }
  $("reset").addEventListener("click", () => {
    touched.clear();
    document.querySelectorAll(".slider").forEach((row) => row.reset?.());
    steer();
  });
}

function controls() {
  const gaze = touched.has("gaze_yaw") || touched.has("gaze_pitch");
  return {
    gaze: gaze ? [values.gaze_yaw, values.gaze_pitch] : null,
    distance: touched.has("distance") ? values.distance : null,
    emotion: values.strength > 0 ? { [emotion]: values.strength } : null,
    pose: [values.yaw, values.pitch, values.roll],
  };
}

// A slider that is drawn along gives many events; one message in 60 ms is enough.
function steer() {
  if (due) return;
  due = setTimeout(() => {
    due = 0;
    session?.send({ type: "controls", ...controls() });
  }, 60);
}

// -- a session -----------------------------------------------------------------------------------

class Session {
  constructor(source) {
    this.source = source; // {rate, kind, begin(send), stop()} and a microphone's stream
    this.output = $("webrtc").checked ? "webrtc" : "mp4";
    this.ms = {};
    this.rtt = 0;
    this.said = ""; // the server's last complaint
    this.socket = new WebSocket(socketBeside(HERE, "v2/session"));
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.send({
      type: "start", version: VERSION, token, portrait, rate: source.rate, format: "s16",
      source: source.kind, output: this.output, frame: "full", controls: controls(),
      seed: Math.floor(Math.random() * 2 ** 32),
    });
    this.socket.onmessage = (event) => this.#receive(event.data);
    this.socket.onclose = () => this.#lost();
    this.timer = setInterval(() => this.send({ type: "ping", t: performance.now() }), 1000);
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  async #lost() {
    if (this.over) return;
    if (!this.ready && !this.said) this.said = await reasonOfServer(() => post("v2/session"));
    this.close("disconnected");
  }

  sound(samples) {
    if (this.socket.readyState !== WebSocket.OPEN || !this.ready) return;
    const pcm = new Int16Array(samples.length);
    for (let i = 0; i < samples.length; i++) {
      pcm[i] = Math.max(-1, Math.min(1, samples[i])) * 32767;
    }
    this.socket.send(pcm.buffer);
  }

  #receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "ready") this.#begin(message);
      else if (message.type === "pong") this.rtt = performance.now() - message.t;
      else if (message.type === "stats") this.#figures(message);
      else if (message.type === "answer") this.player.answer(message.sdp);
      else if (message.type === "interrupted") {
        this.source.interrupt?.();
        this.player.toEdge();
        $("stage").dataset.interrupted = message.index;
      } else if (message.type === "error") {
        if (!this.ready || message.code !== "bad_request") this.said = message.message;
        say(sentence(message.message));
      } else if (message.type === "bye") this.close(message.reason);
      return;
    }
    const size = new DataView(data).getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
    const kind = header.type.split("_")[0];
    if (header.ms) this.ms = header.ms;
    if (header.type === "video" || header.type === "frame") {
      $("stage").classList.add("live");
      state(header.speaking ? "speaking" : "listening");
    }
    this.player.add(kind, new Uint8Array(data, 4 + size));
  }

  #begin(ready) {
    const speak = () => this.source.begin(
      (samples) => this.sound(samples), () => this.send({ type: "end_utterance" }));
    if (this.output === "webrtc") {
      this.ready = ready;
      this.player = new Peer($("video"), (message) => this.send(message), this.source.stream);
      if (!this.source.stream) speak(); // a microphone goes by a track of its own
      return;
    }
    if (!playable || !Player.supports(ready.video_mime, ready.audio_mime)) {
      this.said = "This browser can't play the stream (no H.264 in Media Source Extensions).";
      this.close("no player");
      return;
    }
    this.ready = ready;
    this.player = new Player($("video"), ready.video_mime, ready.audio_mime);
    speak();
  }

  #figures(stats) {
    const lag = this.player.lag * 1e3, way = this.rtt / 2, own = stats.latency_ms;
    const counts = stats.counts, off = counts.skipped + counts.lost;
    $("latency").textContent = `${Math.round(own.p50 + way + lag)} ms`;
    $("fps").textContent = stats.fps.toFixed(1);
    $("dropped").textContent = `${off} of ${counts.frames}`;
    const rows = [
      ["hop and look-ahead (declared)", `${own.declared} ms`],
      ["motion", `${this.ms.motion} ms`], ["render", `${this.ms.render} ms`],
      ["encode", this.output === "webrtc" ? "by WebRTC" : `${this.ms.encode} ms`],
      ["server, p50 / p95", `${Math.round(own.p50)} / ${Math.round(own.p95)} ms`],
      ["network, one way", `${way.toFixed(0)} ms`], ["player behind the edge", `${lag.toFixed(0)} ms`],
      ["data", `${stats.kbit_s} kbit/s`], ["sound waiting", `${stats.buffered_s} s`],
      ["sound dropped", `${(counts.dropped / 16).toFixed(0)} ms`],
      ["player jumps", this.player.jumps],
    ];
    $("timings").tBodies[0].replaceChildren(...rows.map(([name, value]) => {
      const row = document.createElement("tr");
      row.insertCell().textContent = name;
      row.insertCell().textContent = value;
      return row;
    }));
  }

  close(reason) {
    if (this.over) return;
    this.over = true;
    clearInterval(this.timer);
    this.send({ type: "stop" });
    this.source.stop();
    this.socket.close();
    this.player?.close();
    $("stage").classList.remove("live");
    if (session === this) session = null;
    buttons();
    const why = reason === "stopped" ? "" : reasonOf(reason, this.said);
    if (why) say(why);
    state(why ? "ended" : "ready");
  }
}

// -- voices --------------------------------------------------------------------------------------

async function microphone() {
  if (!navigator.mediaDevices) throw new Error("A microphone needs localhost or https.");
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  });
  const context = new AudioContext({ latencyHint: "interactive" });
  await context.audioWorklet.addModule(beside(HERE, "page/recorder.js"));
  return {
    kind: "microphone",
    rate: context.sampleRate,
    stream,
    begin(send) {
      const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
      node.port.onmessage = (event) => send(event.data);
      context.createMediaStreamSource(stream).connect(node);
      context.resume();
    },
    stop() {
      stream.getTracks().forEach((track) => track.stop());
      context.close();
    },
  };
}

async function soundFile(file) {
  const context = new OfflineAudioContext(1, FILE_RATE, FILE_RATE);
  const decoded = await context.decodeAudioData(await file.arrayBuffer());
  const mixer = new OfflineAudioContext(1, Math.ceil(decoded.duration * FILE_RATE), FILE_RATE);
  const node = new AudioBufferSourceNode(mixer, { buffer: decoded });
  node.connect(mixer.destination);
  node.start();
  const samples = (await mixer.startRendering()).getChannelData(0);
  let timer = 0, at = 0;
  return {
    kind: "file",
    rate: FILE_RATE,
    begin(send, end) {
      const began = performance.now();
      timer = setInterval(() => {
        const until = ((performance.now() - began) / 1e3 + FILE_AHEAD_S) * FILE_RATE;
        while (at < samples.length && at < until) {
          send(samples.subarray(at, at + 1600));
          at += 1600;
        }
        if (at >= samples.length) {
          clearInterval(timer);
          end();
        }
      }, 50);
    },
    interrupt() { clearInterval(timer); },
    stop() { clearInterval(timer); },
  };
}

// -- buttons -------------------------------------------------------------------------------------

function chosen() { return document.querySelector("input[name=source]:checked").value; }

function buttons() {
  $("start").textContent = session ? "Stop" : "Start";
  $("start").classList.toggle("stop", Boolean(session));
  $("interrupt").disabled = !session;
}

function mute(muted) {
  $("video").muted = muted;
  $("mute").textContent = muted ? "Sound off" : "Sound on";
  $("mute").setAttribute("aria-pressed", String(muted));
}

async function start() {
  if (session) { session.close("stopped"); return; }
  say("");
  state("starting");
  $("start").disabled = true;
  try {
    let voice;
    if (chosen() === "microphone") {
      mute(true); // loudspeakers would be heard by the microphone
      voice = await microphone();
    } else {
      if (!$("sound").files.length) { $("sound").click(); state("choose a sound file"); return; }
      mute(false);
      $("video").play().catch(() => {}); // allowed to sound because of the click
      voice = await soundFile($("sound").files[0]);
    }
    session = new Session(voice);
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The microphone was not allowed." : error.message);
    state("ready");
  } finally {
    $("start").disabled = false;
    buttons();
  }
}

// Who allowed the portrait, in words; null when the question was not answered.
async function askConsent() {
  const { consent_needed: needed } = await health().catch(() => ({}));
  if (needed === false) return "";
  const dialog = $("consent"), answer = $("answer");
  answer.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "yes" && answer.value.trim() ? answer.value.trim() : null;
}

async function upload(file) {
  if (!file) return;
  say("");
  const consent = await askConsent();
  $("portrait").value = ""; // the same file may be chosen again
  if (consent === null) return;
  state("preparing the portrait");
  const headers = { Consent: encodeURIComponent(consent) };
  const response = await post("v2/portraits", file, headers).catch(() => null);
  const answer = response ? await response.json().catch(() => ({})) : {};
  if (!response?.ok) {
    const status = response ? ` (status ${response.status})` : "";
    say(answer.message ? sentence(answer.message) : `The portrait could not be sent${status}.`);
    state("ready");
    return;
  }
  session?.close("stopped");
  portrait = answer.portrait;
  const lines = (answer.warnings || []).map((warning) => {
    const line = document.createElement("li");
    line.textContent = warning.message;
    return line;
  });
  $("warnings").replaceChildren(...lines);
  $("warnings").hidden = !lines.length;
  const old = $("still").src;
  // Some browsers can't show a HEIC; the video shows it.
  $("still").onerror = () => say("This browser can't show the picture before it speaks.");
  $("still").src = URL.createObjectURL(file);
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  state("ready");
}

buildSliders();
buttons();
health().then(({ outputs, token_needed: wanted }) => {
  $("transport").hidden = !outputs.includes("webrtc") || !window.RTCPeerConnection;
  if (wanted && !token) {
    say("This server wants a token: open this page with #token=TOKEN at the end of its address.");
  }
}).catch(() => {});
addEventListener("hashchange", () => location.reload()); // a token was added
$("webrtc").addEventListener("change", () => session?.close("stopped"));
$("video").muted = true;
$("start").addEventListener("click", start);
$("interrupt").addEventListener("click", () => session?.send({ type: "interrupt" }));
$("mute").addEventListener("click", () => mute(!$("video").muted));
$("choose").addEventListener("click", () => $("portrait").click());
$("portrait").addEventListener("change", (event) => upload(event.target.files[0]));
$("sound").addEventListener("change", () => { if (!session) start(); });
document.querySelectorAll("input[name=source]").forEach((input) =>
  input.addEventListener("change", () => {
    if (session) session.close("stopped");
    if (input.value === "file" && input.checked) $("sound").click();
  }));
const stage = $("stage");
stage.addEventListener("dragover", (event) => { event.preventDefault(); stage.classList.add("over"); });
stage.addEventListener("dragleave", () => stage.classList.remove("over"));
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  upload(event.dataTransfer.files[0]);
});
addEventListener("pagehide", () => session?.close("stopped"));
