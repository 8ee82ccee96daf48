"""What was said and when, from sound alone: phoneme spans by the recogniser ``hama``.

``hama`` (Apache-2.0, package extra ``evaluate``) needs no transcript and writes IPA for many
languages, one symbol or blank per 20 ms. It hears at most 30 s at a time, so longer sound is cut
into overlapping pieces and each piece contributes its middle.
"""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from typing import Any

import numpy as np

from vasa_jax.core.errors import UserError
from vasa_jax.core.types import FPS, SAMPLE_RATE_HZ

FRAME_SECONDS = 0.02  # one recogniser frame
PIECE_SECONDS = 20.0
OVERLAP_SECONDS = 1.0  # on each side; dropped from the answer


@dataclasses.dataclass(frozen=True)
class Phoneme:
    """One phoneme as IPA without length or tone marks, from ``start`` to ``end`` in seconds.

    ``start`` is where the recogniser is sure of it, close to the middle of a vowel or the release
    of a stop; ``end`` is the start of the next symbol.
    """

    symbol: str
    start: float
    end: float


# How far the lips are apart, 0 closed, 1 wide open, and how strongly a sound insists on it (its
# dominance). Labials and open vowels have no choice; t, d, n, k, ... are made inside the mouth and
# take the opening of their neighbours. Vowels go by height on the IPA chart, lower when rounded;
# diphthongs take their more open end.
APERTURE_CLASSES: tuple[tuple[float, float, str], ...] = (
    (0.00, 4.0, "p b m pʰ p͈ ɓ ʙ ɸ β"),  # both lips shut
    (0.05, 4.0, "f v ɱ ʋ"),  # lower lip on the teeth
    (0.15, 2.0, "w ɥ ʍ"),  # closely rounded
    (0.20, 1.0, "u ʊ y ʉ ʏ"),
    (0.25, 1.0, "s z s͈ ʃ ʒ ɕ ʑ ʂ ʐ ts dz"),  # teeth together
    (0.25, 0.4, "θ ð"),
    (0.30, 1.0, "ə ɝ ɚ ɜ ø ɵ ɘ o oʊ jo ɔ ɪə ᵊ ɯ ɯi wi"),
    (0.35, 0.4, "t d n l r ɹ j tʰ t͈ ɫ ɾ ɻ ʈ ɖ ɽ c ɟ ɲ ç ʝ ʎ ɮ"),
    (0.40, 1.0, "i ɪ ɨ ju"),
    (0.40, 0.4, "k g ɡ ŋ kʰ k͈ x χ ɣ ħ ɦ ʔ ɴ ʀ ʁ"),
    (0.40, 1.0, "t͡ʃ d͡ʒ t͡ɕ t͡ɕʰ t͡ɕ͈"),
    (0.55, 0.4, "h"),
    (0.55, 2.0, "ɛ ʌ ɑ e œ ɤ je we eə jʌ wʌ ɔɪ"),
    (0.65, 2.0, "eɪ aʊ ɒ ɐ"),
    (0.75, 2.0, "a æ aɪ ja wa"),
)
APERTURE = {s: (v, w) for v, w, symbols in APERTURE_CLASSES for s in symbols.split()}
OTHER_SOUND = (0.35, 0.5)
BILABIAL = frozenset("p b m pʰ p͈ ɓ".split())
_LABIAL = BILABIAL | frozenset("f v ɱ ʋ w ɥ ʍ".split())
REST = (0.15, 0.05)  # aperture and dominance of no sound at all
SPREAD_SECONDS = 0.05  # deviation of the Gaussian by which a sound's influence fades
# The recogniser reports a sound when it is sure of it, which is after the lips have done their
# part. These leads put the median lag of real people (20 interviews, 42 GRID sentences) at zero.
LEAD_SECONDS = 0.03
LABIAL_LEAD_SECONDS = 0.05


def _plain(symbol: str) -> str:
    """A symbol without nasal, length, tone and other marks; its base letter decides."""
    if symbol in APERTURE:
        return symbol
    plain = unicodedata.normalize("NFD", symbol)
    return "".join(c for c in plain if unicodedata.category(c) in ("Ll", "Lo"))


@functools.cache
def _recogniser() -> Any:
    try:
        import hama
    except ImportError as error:
        raise UserError("lip sync needs phonemes: pip install 'vasa-jax[evaluate]'") from error
    return hama.ASRModel()


def _pieces(num_frames: int) -> list[tuple[int, int, int, int]]:
    """(from, to, keep_from, keep_to) in recogniser frames; the kept parts tile the sound."""
    size, margin = round(PIECE_SECONDS / FRAME_SECONDS), round(OVERLAP_SECONDS / FRAME_SECONDS)
    if num_frames <= size:
        return [(0, num_frames, 0, num_frames)]
    pieces, start = [], 0
    while True:
        end = min(start + size, num_frames)
        last = end == num_frames
        pieces.append((start, end, start + margin if start else 0, end if last else end - margin))
        if last:
            return pieces
        start = end - 2 * margin


def recognise(speech_S: np.ndarray) -> list[Phoneme]:
    """Phonemes of mono 16 kHz speech (S,) of any length, in order.

    Raises:
        UserError: ``hama`` is not installed.
    """
    model = _recogniser()
    samples = round(FRAME_SECONDS * SAMPLE_RATE_HZ)
    speech = np.ascontiguousarray(speech_S, np.float32)
    num_frames = len(speech) // samples
    tokens: list[int] = []
    for start, end, keep_from, keep_to in _pieces(num_frames):
        piece = speech[start * samples : end * samples]
        if len(piece) < 10 * samples:  # too short for the net to hear anything
            tokens.extend([model.blank_id] * (keep_to - keep_from))
            continue
        heard = model.transcribe_waveform(piece, SAMPLE_RATE_HZ).frame_token_ids
        heard = (list(heard) + [model.blank_id] * (end - start))[: end - start]
        tokens.extend(heard[keep_from - start : keep_to - start])
    return spans(tokens, model.decoder_tokens, blank=model.blank_id)


def spans(tokens: list[int], names: list[str], *, blank: int) -> list[Phoneme]:
    """Greedy CTC symbols per frame -> phonemes; marks, word ends and blanks only end a span."""
    events: list[tuple[int, str]] = []
    previous = blank
    for frame, token in enumerate(tokens):
        if token != previous and token != blank:
            events.append((frame, names[token]))
        previous = token
    found = []
    for i, (frame, name) in enumerate(events):
        symbol = _plain(name) if not name.startswith("<") else ""
        if not symbol:
            continue
        end = events[i + 1][0] if i + 1 < len(events) else len(tokens)
        found.append(Phoneme(symbol, frame * FRAME_SECONDS, end * FRAME_SECONDS))
    return found


def lip_time(phoneme: Phoneme) -> float:
    """Second at which the lips are expected to show a phoneme."""
    lead = LABIAL_LEAD_SECONDS if phoneme.symbol in _LABIAL else LEAD_SECONDS
    return phoneme.start - lead


def expected_aperture(phonemes: list[Phoneme], num_frames: int, *, fps: float = FPS) -> np.ndarray:
    """(T,) in [0, 1]: how open the lips should be in the middle of each video frame.

    Co-articulation by dominance functions (Cohen & Massaro 1993): every sound asks for its
    aperture with a strength that fades as a Gaussian around ``lip_time``; the curve is the weighted
    mean of all demands, ``REST`` being always there.
    """
    middle = (np.arange(num_frames) + 0.5) / fps
    total = np.full(num_frames, REST[0] * REST[1])
    weight = np.full(num_frames, REST[1])
    for p in phonemes:
        aperture, dominance = APERTURE.get(p.symbol, OTHER_SOUND)
        pull = dominance * np.exp(-0.5 * ((middle - lip_time(p)) / SPREAD_SECONDS) ** 2)
        total += pull * aperture
        weight += pull
    return (total / weight).astype(np.float32)
