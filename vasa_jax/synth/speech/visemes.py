"""Phonemes to mouth movement: visemes, co-articulation, true closures.

Every phoneme asks for a mouth posture (a *viseme*, ARKit-like weights). Postures blend by
dominance (Cohen and Massaro 1993): each segment pulls towards its target with a strength that falls
off exponentially outside its own time, separately for jaw, lip height and lip shape, so that
rounding spreads far ahead ("stew"), while tongue consonants hardly move the jaw. What must be
reached whatever the neighbours want is applied afterwards: lips shut for p, b, m, lower lip at the
upper teeth for f, v (``seal``).

Curves are computed at 200 Hz and sampled at the middle of each video frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vasa_jax.core.arkit import EXPRESSION_NAMES
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ
from vasa_jax.motion.arkit.emotions import INDEX, weights
from vasa_jax.motion.arkit.lips import LIP_GAP_CM
from vasa_jax.synth.speech.voice import SILENCE, Phoneme

RATE_HZ = 200
E = len(EXPRESSION_NAMES)


class Viseme(NamedTuple):
    """Target weights and how strongly jaw, lip height and lip shape insist on them."""

    target: np.ndarray
    jaw: float
    height: float
    shape: float


def _v(jaw: float, height: float, shape: float, /, **named: float) -> Viseme:
    return Viseme(weights(**named), jaw, height, shape)


# fmt: off
VISEMES: dict[str, Viseme] = {
    "sil": _v(1.0, 1.0, 0.8),
    "PP": _v(1.2, 1.5, 0.3, jawOpen=.02, mouthPress=.34, mouthRollLower=.14, mouthRollUpper=.10),
    "FF": _v(1.0, 1.5, 0.3, jawOpen=.045, mouthRollLower=.34, mouthUpperUp=.16,
             mouthShrugUpper=.05),
    "BB": _v(0.8, 1.0, 0.3, jawOpen=.06, mouthPress=.15, mouthRollLower=.06),  # Spanish beta
    "TH": _v(0.7, 0.8, 0.3, jawOpen=.12, mouthLowerDown=.26, mouthUpperUp=.08, mouthStretch=.05),
    "DD": _v(0.7, 0.6, 0.2, jawOpen=.08, mouthLowerDown=.22, mouthUpperUp=.08, mouthStretch=.06),
    "nn": _v(0.5, 0.5, 0.2, jawOpen=.10, mouthLowerDown=.20, mouthUpperUp=.07),
    "kk": _v(0.4, 0.4, 0.15, jawOpen=.15, mouthLowerDown=.18, mouthUpperUp=.08),
    "CH": _v(1.0, 0.9, 1.2, jawOpen=.055, mouthFunnel=.42, mouthPucker=.22, mouthLowerDown=.16,
             mouthUpperUp=.10),
    "SS": _v(1.1, 0.9, 0.5, jawOpen=.03, mouthStretch=.18, mouthLowerDown=.28, mouthUpperUp=.14,
             mouthSmile=.08),
    "RR": _v(0.6, 0.6, 0.8, jawOpen=.10, mouthFunnel=.26, mouthPucker=.20, mouthLowerDown=.10),
    "WW": _v(1.0, 1.0, 1.5, jawOpen=.05, mouthPucker=.72, mouthFunnel=.14),
    "hh": _v(0.1, 0.1, 0.05, jawOpen=.15, mouthLowerDown=.1),
    "aa": _v(1.3, 1.0, 0.6, jawOpen=.42, mouthLowerDown=.22, mouthUpperUp=.12, mouthStretch=.04),
    "AE": _v(1.3, 1.0, 0.8, jawOpen=.36, mouthLowerDown=.28, mouthUpperUp=.16, mouthStretch=.18,
             mouthSmile=.08),
    "EH": _v(1.1, 1.0, 0.8, jawOpen=.26, mouthLowerDown=.25, mouthUpperUp=.12, mouthStretch=.16,
             mouthSmile=.08),
    "IH": _v(1.0, 1.0, 1.0, jawOpen=.13, mouthLowerDown=.24, mouthUpperUp=.12, mouthStretch=.24,
             mouthSmile=.18),
    "AX": _v(0.7, 0.6, 0.3, jawOpen=.19, mouthLowerDown=.16, mouthUpperUp=.07),
    "OH": _v(1.1, 1.0, 1.2, jawOpen=.29, mouthFunnel=.38, mouthPucker=.22),
    "UW": _v(1.0, 1.0, 1.4, jawOpen=.10, mouthPucker=.62, mouthFunnel=.22),
    "OE": _v(1.0, 1.0, 1.3, jawOpen=.15, mouthPucker=.45, mouthFunnel=.32, mouthUpperUp=.04),
}
# fmt: on
VISEME_NAMES = tuple(VISEMES)

_BY_SYMBOL = {
    "PP": "pbmɓʙ", "FF": "fvʋɱⱱ", "BB": "βɸ", "TH": "θð", "DD": "tdʈɖɗ", "nn": "nlɾɫɲʎɳɭɬɽ",
    "kk": "kgɡŋxχɣçʁqcɟɴħʕʀɰ", "CH": "ʃʒʂʐ", "SS": "szɕʑʦʣ", "RR": "rɹɻɚɝɜɺ", "WW": "wɥʍ",
    "hh": "hɦʔ", "aa": "aɑɐʌɶ", "AE": "æ", "EH": "ɛeɘ", "IH": "iɪɨj", "AX": "əɤ", "OH": "ɔoɒɵ",
    "UW": "uʊɯʉ", "OE": "yʏøœ",
}  # fmt: skip
_VISEME_OF = {symbol: name for name, symbols in _BY_SYMBOL.items() for symbol in symbols}
VOWELS = frozenset("AE EH IH AX OH UW OE aa".split()) | {"RR"}

_OPENERS = weights(
    jawOpen=1, mouthFunnel=0.85, mouthLowerDown=1, mouthUpperUp=1, noseSneer=0.5, jawForward=1,
    mouthShrugUpper=0.8, mouthStretch=0.4, mouthClose=1, mouthRollLower=1, mouthRollUpper=1,
    mouthPress=1,
)  # fmt: skip
_LABIAL = weights(
    jawOpen=1, mouthFunnel=0.8, mouthLowerDown=1, mouthUpperUp=0.6, mouthPucker=0.7, mouthPress=1,
    mouthShrugUpper=0.5, mouthShrugLower=1, mouthRollLower=1, mouthRollUpper=1, mouthClose=1,
)  # fmt: skip
_JAW = weights(jawOpen=1, jawForward=1, jawLeft=1, jawRight=1) > 0
_HEIGHT = (
    weights(
        mouthLowerDown=1, mouthUpperUp=1, mouthPress=1, mouthRollLower=1, mouthRollUpper=1,
        mouthShrugUpper=1, mouthShrugLower=1, mouthClose=1,
    )
    > 0
)  # fmt: skip
_SHAPE = ~(_JAW | _HEIGHT)
# (group of weights, field of Viseme, seconds of anticipation, seconds of carry-over)
_CHANNELS = ((_JAW, 1, 0.055, 0.060), (_HEIGHT, 2, 0.050, 0.050), (_SHAPE, 3, 0.095, 0.070))


class Segment(NamedTuple):
    """A span that asks for one viseme; a diphthong makes two."""

    viseme: str
    start_s: float
    end_s: float
    stress: float  # 1 primary, 0.6 secondary, 0.25 none


def classify(symbol: str) -> list[str]:
    """Visemes of one IPA symbol (stress, length and other marks are ignored)."""
    if symbol == SILENCE:
        return ["sil"]
    out: list[str] = []
    for ch in symbol.replace("ts", "s").replace("dz", "z").replace("tʃ", "ʃ").replace("dʒ", "ʒ"):
        name = _VISEME_OF.get(ch)
        if name is None or (out and (name == out[-1] or name == "hh")):
            continue
        out.append(name)
    return out or ["hh"]


def segments(phonemes: Iterable[Phoneme]) -> list[Segment]:
    """Spans of visemes for spans of phonemes."""
    out = []
    for p in phonemes:
        names = classify(p.symbol)
        stress = 1.0 if "ˈ" in p.symbol else 0.6 if "ˌ" in p.symbol else 0.25
        # a vowel keeps more of its time than the glide or consonant that espeak-ng glues to it
        share = np.array([1.3 if n in VOWELS else 1.0 for n in names])
        edges = p.start_s + (p.end_s - p.start_s) * np.r_[0, np.cumsum(share / share.sum())]
        out += [Segment(n, a, b, stress) for n, a, b in zip(names, edges, edges[1:], strict=False)]
    return out


@dataclass(frozen=True)
class MouthCurves:
    """What speech asks of the mouth, one row per video frame."""

    expression: np.ndarray  # (T, 45)
    closure: np.ndarray  # (T,) 1 where the lips must be shut (p, b, m)
    labiodental: np.ndarray  # (T,) 1 where the lower lip must be at the teeth (f, v)
    viseme: np.ndarray  # (T,) int, index into VISEME_NAMES, of the frame's middle
    speaking: np.ndarray  # (T,) 0..1, 0 in pauses


def mouth_curves(
    phonemes: list[Phoneme],
    samples: np.ndarray,
    *,
    amplitude: float = 1.0,
    precision: float = 1.0,
) -> MouthCurves:
    """The mouth for a recording.

    Args:
      phonemes: contiguous, from ``voice.speak``.
      samples: (S,) float32 at 16 kHz; loud passages open the mouth wider.
      amplitude: 0.7 mumbles, 1.25 declaims.
      precision: sharpness of articulation; 0.7 blends more.

    Returns:
      Curves of T = ceil(S / 640) frames.
    """
    spans = segments(phonemes)
    frames = -(-len(samples) // (SAMPLE_RATE_HZ // FPS))
    n = frames * RATE_HZ // FPS + RATE_HZ // 2
    t = (np.arange(n) + 0.5) / RATE_HZ
    loud = _loudness(samples, n)
    numerator = np.zeros((n, E), np.float32)
    denominator = np.zeros((n, 3), np.float32)
    viseme = np.zeros(n, np.int64)
    closure = np.zeros(n, np.float32)
    labiodental = np.zeros(n, np.float32)
    speaking = np.zeros(n, np.float32)
    centres: list[tuple[str, float]] = []
    for s in spans:
        v = VISEMES[s.viseme]
        length = s.end_s - s.start_s
        inside = slice(int(s.start_s * RATE_HZ), max(int(s.end_s * RATE_HZ), 1))
        viseme[inside] = VISEME_NAMES.index(s.viseme)
        if s.viseme != "sil" or length < 0.18:
            speaking[inside] = 1.0
        insist = min(1.0, length / 0.3) ** 1.5 if s.viseme == "sil" else 1.0
        reach = (0.8 + 0.32 * s.stress) if s.viseme in VOWELS else 1.0
        # after a pause the mouth opens late and closes slowly; elsewhere it leads the sound
        lead = 0.0 if s.viseme == "sil" else 0.02
        lo, hi = max(int((s.start_s - 0.6) * RATE_HZ), 0), min(int((s.end_s + 0.6) * RATE_HZ), n)
        before = np.maximum(s.start_s - lead - t[lo:hi], 0)
        after = np.maximum(t[lo:hi] - (s.end_s - lead - 0.25 * min(length, 0.12)), 0)
        for c, (columns, strength, ahead_s, carry_s) in enumerate(_CHANNELS):
            pull = v[strength] * insist * np.exp(-precision * (before / ahead_s + after / carry_s))
            if s.viseme == "sil":  # the end of a pause is opened by the next sound, not before
                pull = v[strength] * insist * np.exp(-before / 0.03 - after / 0.03)
            target = v.target[columns] * (reach if c < 2 else 1.0)
            numerator[lo:hi, columns] += (pull[:, None] * target).astype(np.float32)
            denominator[lo:hi, c] += pull
        if s.viseme == "PP":
            closure = np.maximum(closure, _plateau(t, s.start_s, s.end_s - 0.012, 0.045, 0.04))
        if s.viseme == "FF":
            labiodental = np.maximum(
                labiodental, _plateau(t, s.start_s, s.end_s - 0.01, 0.05, 0.05)
            )
        if s.viseme in ("PP", "FF"):
            centres.append((s.viseme, (s.start_s + s.end_s) / 2))
    curves = np.zeros((n, E), np.float32)
    for c, (columns, *_rest) in enumerate(_CHANNELS):
        curves[:, columns] = numerator[:, columns] / (denominator[:, c : c + 1] + 0.02)
    openers = weights(jawOpen=1, mouthLowerDown=0.6, mouthUpperUp=0.6)
    curves *= 1 + openers * ((amplitude * (0.72 + 0.36 * loud))[:, None] - 1)
    curves = smooth(curves, 0.016 * RATE_HZ)
    middle = np.minimum((np.arange(frames) * RATE_HZ // FPS) + RATE_HZ // (2 * FPS), n - 1)
    closure, labiodental = closure[middle], labiodental[middle]
    # A closure shorter than a frame still happens: the frame nearest to it shows it.
    for name, centre in centres:
        i = int(np.clip(centre * FPS, 0, frames - 1))
        (closure if name == "PP" else labiodental)[i] = 1.0
    return MouthCurves(
        expression=np.clip(curves[middle], 0, 1),
        closure=closure,
        labiodental=labiodental * (1 - closure),
        viseme=viseme[middle],
        speaking=smooth(speaking[:, None], 0.04 * RATE_HZ)[middle, 0],
    )


def seal(expression_TE: np.ndarray, closure_T: np.ndarray, labiodental_T: np.ndarray) -> np.ndarray:
    """Shuts the lips where they must be shut, whatever emotion or neighbours ask.

    Openers fade with the closure, the lips press, and ``mouthClose`` takes back the opening that is
    left by the linear table ``LIP_GAP_CM``. For f, v the lower lip goes under the upper teeth.
    """
    f = labiodental_T[:, None]
    x = expression_TE * (1 - f * _LABIAL) + f * _LABIAL * VISEMES["FF"].target
    c = closure_T[:, None]
    x = x * (1 - c * _OPENERS) + c * (_OPENERS > 0) * VISEMES["PP"].target
    over = np.maximum(x @ LIP_GAP_CM + 0.03, 0) * closure_T**2
    x[:, INDEX["mouthClose"]] += over / -LIP_GAP_CM[INDEX["mouthClose"]]
    return np.clip(x, 0, 1).astype(np.float32)


def smooth(x_TC: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian along time; ``sigma`` in rows; the ends are held."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(x_TC, sigma, axis=0, mode="nearest").astype(np.float32)


def _plateau(t: np.ndarray, start: float, end: float, attack: float, release: float) -> np.ndarray:
    """1 between start and end, raised-cosine flanks outside."""
    end = max(end, start + 0.01)
    x = np.clip(np.minimum((t - start + attack) / attack, (end + release - t) / release), 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * x)).astype(np.float32)


def _loudness(samples: np.ndarray, n: int) -> np.ndarray:
    """Level (n,) at 200 Hz, 1 at the recording's own loud passages, about 0..1.4."""
    hop = SAMPLE_RATE_HZ // RATE_HZ
    m = len(samples) // hop
    power = (samples[: m * hop].reshape(m, hop).astype(np.float64) ** 2).mean(1)
    level = np.sqrt(smooth(power[:, None], 0.03 * RATE_HZ)[:, 0])
    top = np.percentile(level[level > 1e-4], 85) if (level > 1e-4).any() else 1.0
    out = np.zeros(n)
    out[: min(m, n)] = np.clip(level / top, 0, 1.4)[:n]
    return out
