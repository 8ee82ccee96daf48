"""Flite's statistical voices: American, Scottish and a woman's, with the end of every phoneme.

Flite (Black and Lenzo 2001; BSD-like licence) is a system package (``apt-get install flite``). Its
voices are made from recordings of people, so their spectra are nearer to real speech than those
of a rule-based synthesiser. Only ``flite -psdur`` is used, as a program.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from vasa_jax.core.errors import UserError

VOICES = ("slt", "rms", "awb")  # a woman, two men
# The American phoneme set of CMU's lexicon in IPA.
# fmt: off
IPA = {
    "aa": "ɑː", "ae": "æ", "ah": "ʌ", "ao": "ɔː", "aw": "aʊ", "ax": "ə", "ay": "aɪ", "b": "b",
    "ch": "tʃ", "d": "d", "dh": "ð", "eh": "ɛ", "er": "ɚ", "ey": "eɪ", "f": "f", "g": "ɡ",
    "hh": "h", "ih": "ɪ", "iy": "iː", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n",
    "ng": "ŋ", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t",
    "th": "θ", "uh": "ʊ", "uw": "uː", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}
# fmt: on


def available() -> bool:
    """Whether the program is installed."""
    return shutil.which("flite") is not None


def speak(text: str, name: str, *, pace: float = 1.0) -> tuple[np.ndarray, int, list]:
    """Samples (float32), rate in Hz and ``(IPA symbol or "", start_s, end_s)`` of each phoneme.

    ``pace`` 1.2 speaks a fifth slower. An empty symbol is silence. UserError without the program.
    """
    import soundfile

    if not available():
        raise UserError("the voice needs the program flite: install it (apt-get install flite)")
    with tempfile.TemporaryDirectory() as folder:
        wave = Path(folder) / "said.wav"
        done = subprocess.run(
            ["flite", "-voice", name, "--setf", f"duration_stretch={pace:.3f}", "-psdur",
             "-t", text, "-o", str(wave)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not wave.exists():
            raise UserError(f"flite could not say '{text[:40]}': {done.stderr.strip()[:80]}")
        samples, rate_hz = soundfile.read(wave, dtype="float32")
    return samples, rate_hz, spans(done.stdout)


def spans(printed: str) -> list[tuple[str, float, float]]:
    """The phonemes of ``flite -psdur``: ``"pau:0.19 p:0.25 iy:0.35"``, ends in seconds."""
    ends = re.findall(r"([a-z]+):([0-9.]+)", printed)
    times = [0.0, *(float(end) for _, end in ends)]
    return [(IPA.get(s, ""), times[i], times[i + 1]) for i, (s, _) in enumerate(ends)]
