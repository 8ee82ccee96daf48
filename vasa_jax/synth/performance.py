"""A person who says something: speech to a motion track with everything a face does meanwhile.

The motion follows ``core/arkit.py``: pose relative to the portrait, gaze in the camera's frame,
mouth absolute, brows, lids and cheeks as offsets from the resting face.

Rates and shapes are those of the literature on conversation: 10-25 blinks a minute, more at phrase
ends and large gaze shifts; a blink closes in about 80 ms and opens in about 180 ms; saccades
within 40-60 ms; nods and brow raises of 0.2-0.5 s on accented syllables; head and pitch of voice
move together; posture changes at phrase boundaries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vasa_jax.core.arkit import EXPRESSION, MOTION_DIM
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS, FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Controls
from vasa_jax.motion.arkit.emotions import INDEX, feeling, rounding
from vasa_jax.synth.speech.visemes import MouthCurves, mouth_curves, seal, segments, smooth
from vasa_jax.synth.speech.voice import SILENCE, Phoneme, Speech

# Posture at strength 1 (yaw, pitch, roll in rad, log-scale) and how lively the head is.
_POSTURE = {
    "neutral": ((0, 0, 0, 0), 1.0),
    "happy": ((0, 0.02, 0.03, 0.01), 1.25),
    "sad": ((0.02, -0.09, 0.03, -0.015), 0.6),
    "angry": ((0, -0.05, 0, 0.035), 1.3),
    "surprised": ((0, 0.045, 0, -0.02), 1.1),
    "fearful": ((0.03, 0.01, 0.02, -0.045), 0.9),
    "disgusted": ((-0.07, 0.03, 0.02, -0.03), 0.9),
    "contempt": ((0.06, 0.05, 0.05, 0), 0.75),
}
_EMOTION_ODDS = (0.42, 0.18, 0.09, 0.09, 0.08, 0.05, 0.05, 0.04)


class Style(NamedTuple):
    """How this person moves; drawn from a seed, or given."""

    head: float = 1.0  # amplitude of head motion
    mouth: float = 1.0  # amplitude of the mouth
    precision: float = 1.0  # sharpness of articulation
    blinks_per_minute: float = 17.0
    nods: float = 0.5  # chance that an accent brings a nod
    brows: float = 0.4  # chance that an accent lifts the brows
    saccades: float = 1.0  # how restless the eyes are
    asymmetry: float = 0.0  # -1..1, which side of the mouth does more
    smile: float = 0.0  # resting smile


@dataclass(frozen=True)
class Performance:
    """A motion track with its truth, T frames at 25 per second."""

    motion: np.ndarray  # (T, 54) float32, see core/arkit.py
    controls: Controls  # labels: gaze without saccades, distance, emotion; all on
    viseme: np.ndarray  # (T,) int, index into visemes.VISEME_NAMES
    closure: np.ndarray  # (T,) 1 where lips are shut for p, b, m
    labiodental: np.ndarray  # (T,) 1 for f, v
    blink: np.ndarray  # (T,) 0..1
    speaking: np.ndarray  # (T,) 0..1
    phonemes: list[Phoneme]
    style: Style


def random_style(rng: np.random.Generator) -> Style:
    """Draw how a person moves."""
    return Style(
        head=float(np.exp(rng.normal(0, 0.35))),
        mouth=float(rng.uniform(0.78, 1.2)),
        precision=float(rng.uniform(0.8, 1.2)),
        blinks_per_minute=float(rng.uniform(10, 25)),
        nods=float(rng.uniform(0.15, 0.75)),
        brows=float(rng.uniform(0.1, 0.6)),
        saccades=float(np.exp(rng.normal(0, 0.4))),
        asymmetry=float(rng.normal(0, 0.35)),
        smile=float(max(rng.normal(0.03, 0.06), 0)),
    )


def perform(
    speech: Speech,
    *,
    seed: int,
    emotion: str | np.ndarray | None = None,
    strength: float | None = None,
    distance: float | np.ndarray | None = None,
    gaze: tuple[float, float] | np.ndarray | None = None,
    style: Style | None = None,
) -> Performance:
    """Acts out a recording.

    Args:
      speech: from ``voice.speak`` (or joined, or silence).
      seed: everything that is left to chance.
      emotion: a name of ``EMOTIONS``, strengths (8,) or a track (T, 8); None draws one (often
        neutral; long recordings change it).
      strength: of a named emotion, 0..1; drawn between 0.35 and 1 if None.
      distance: ratio to the portrait's distance, a number or a track (T,); drawn if None.
      gaze: main direction of gaze (yaw, pitch) in rad, or a track (T, 2); drawn if None.
      style: how the person moves; drawn if None.

    Returns:
      The performance; T = ceil(samples / 640).

    Raises:
      UserError: unknown emotion, or a track of the wrong length.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    style = random_style(rng) if style is None else style
    frames = -(-len(speech.samples) // SAMPLES_PER_FRAME)
    mouth = mouth_curves(
        speech.phonemes, speech.samples, amplitude=style.mouth, precision=style.precision
    )
    emotion_T8 = _emotion_track(emotion, strength, frames, rng)
    distance_T = _distance_track(distance, frames, rng)
    base_gaze_T2 = _gaze_track(gaze, frames, speech, rng)
    accents = _accents(speech, rng)
    gaze_T2, shifts = _saccades(base_gaze_T2, mouth.speaking, style, rng)
    blink_T = _blinks(frames, speech, shifts, style, rng)
    motion = np.zeros((frames, MOTION_DIM), np.float32)
    motion[:, 0:7] = _head(speech, mouth, emotion_T8, distance_T, base_gaze_T2, accents, style, rng)
    motion[:, 7:9] = gaze_T2
    motion[:, EXPRESSION] = _face(mouth, emotion_T8, blink_T, accents, style, rng)
    ones = np.ones(frames, np.float32)
    controls = Controls(
        gaze=base_gaze_T2.astype(np.float32),
        gaze_on=ones,
        distance=distance_T.astype(np.float32),
        distance_on=ones,
        emotion=emotion_T8.astype(np.float32),
        emotion_on=ones,
    )
    return Performance(
        motion=motion,
        controls=controls,
        viseme=mouth.viseme,
        closure=mouth.closure,
        labiodental=mouth.labiodental,
        blink=blink_T.astype(np.float32),
        speaking=mouth.speaking,
        phonemes=speech.phonemes,
        style=style,
    )


# ------------------------------------------------------------------------------------ labels


def _track(value: np.ndarray, frames: int, width: int, name: str) -> np.ndarray:
    value = np.asarray(value, np.float64)
    if value.ndim == 1 and width > 1:
        value = np.broadcast_to(value, (frames, width))
    if value.shape != ((frames, width) if width > 1 else (frames,)):
        raise UserError(f"{name} has shape {value.shape}; the recording has {frames} frames")
    return value


def _emotion_track(emotion, strength, frames: int, rng: np.random.Generator) -> np.ndarray:
    if emotion is not None and not isinstance(emotion, str):
        return np.clip(_track(emotion, frames, len(EMOTIONS), "emotion"), 0, 1)
    if isinstance(emotion, str) and emotion not in EMOTIONS:
        raise UserError(f"no emotion is called '{emotion}'; choose one of {', '.join(EMOTIONS)}")
    out = np.zeros((frames, len(EMOTIONS)))
    at = 0
    while at < frames:
        end = frames if emotion is not None else at + int(FPS * rng.uniform(5, 14))
        name = emotion or str(rng.choice(EMOTIONS, p=_EMOTION_ODDS))
        s = strength if strength is not None else float(rng.uniform(0.35, 1.0))
        out[at:end, EMOTIONS.index(name)] = s
        if emotion is None and name != "neutral" and rng.uniform() < 0.15:  # a blend of two
            out[at:end, rng.integers(1, len(EMOTIONS))] += 0.4 * s
        at = end
    return np.clip(smooth(out, 0.3 * FPS), 0, 1)


def _distance_track(distance, frames: int, rng: np.random.Generator) -> np.ndarray:
    if distance is not None:
        if np.ndim(distance) == 0:
            return np.full(frames, float(distance))
        return _track(distance, frames, 1, "distance")
    out = np.zeros(frames)
    at = 0
    while at < frames:
        end = at + int(FPS * rng.uniform(6, 18))
        out[at:end] = rng.normal(0, 0.13) if rng.uniform() < 0.75 else 0.0
        at = end
    return np.exp(np.clip(smooth(out[:, None], 0.8 * FPS)[:, 0], -0.35, 0.35))


def _gaze_track(gaze, frames: int, speech: Speech, rng: np.random.Generator) -> np.ndarray:
    if gaze is not None:
        return _track(gaze, frames, 2, "gaze")
    out = np.zeros((frames, 2))
    at = 0
    while at < frames:
        end = at + int(FPS * rng.uniform(2.5, 9))
        if rng.uniform() < 0.45:
            out[at:end] = rng.normal(0, 0.02, 2)
        else:
            out[at:end] = rng.normal(0, 1, 2) * (0.22, 0.11)
        at = end
    return np.clip(out, (-0.5, -0.3), (0.5, 0.3))


# ----------------------------------------------------------------------------------- prosody


class _Accents(NamedTuple):
    frame: np.ndarray  # (A,) float, middle of the accented vowel
    weight: np.ndarray  # (A,) 0..1
    pitch_T: np.ndarray  # (T,) relative pitch of the voice, about -2..2, 0 when unvoiced


def _accents(speech: Speech, rng: np.random.Generator) -> _Accents:
    """Stressed vowels weighted by loudness and rise of pitch, and the pitch contour."""
    pitch_T = voice_pitch(speech.samples)
    frames = len(pitch_T)
    at, weight = [], []
    for p in speech.phonemes:
        if "ˈ" not in p.symbol:
            continue
        s = segments([p])[0]
        a, b = int(s.start_s * SAMPLE_RATE_HZ), int(p.end_s * SAMPLE_RATE_HZ)
        level = float(np.sqrt(np.mean(speech.samples[a : max(b, a + 1)] ** 2)))
        i = (s.start_s + p.end_s) / 2 * FPS
        at.append(i)
        tone = pitch_T[min(int(i), frames - 1)] if frames else 0.0
        weight.append(np.clip(0.35 + 2.5 * level + 0.22 * tone + rng.normal(0, 0.12), 0, 1))
    return _Accents(np.array(at), np.array(weight), pitch_T)


def voice_pitch(samples: np.ndarray) -> np.ndarray:
    """Pitch contour (T,) in standard deviations of its own log-frequency, 0 when unvoiced.

    Autocorrelation of 48 ms windows, one per video frame, 70-420 Hz.
    """
    frames = -(-len(samples) // SAMPLES_PER_FRAME)
    if frames == 0:
        return np.zeros(0)
    width = 768
    padded = np.pad(samples, (width // 2 - SAMPLES_PER_FRAME // 2, width + SAMPLES_PER_FRAME))
    index = np.arange(frames)[:, None] * SAMPLES_PER_FRAME + np.arange(width)
    x = padded[index] * np.hanning(width)
    spectrum = np.fft.rfft(x, 2 * width)
    corr = np.fft.irfft(np.abs(spectrum) ** 2)[:, :width]
    corr = corr / (corr[:, :1] + 1e-4)
    low, high = SAMPLE_RATE_HZ // 420, SAMPLE_RATE_HZ // 70
    lag = corr[:, low:high].argmax(1) + low
    voiced = corr[np.arange(frames), lag] > 0.45
    if voiced.sum() < 3:
        return np.zeros(frames)
    log_hz = np.log(SAMPLE_RATE_HZ / lag)
    z = (log_hz - np.median(log_hz[voiced])) / (log_hz[voiced].std() + 0.05)
    return np.where(voiced, np.clip(z, -2.5, 2.5), 0.0)


def _pauses(speech: Speech, shortest_s: float = 0.2) -> list[tuple[float, float]]:
    return [
        (p.start_s, p.end_s)
        for p in speech.phonemes
        if p.symbol == SILENCE and p.end_s - p.start_s >= shortest_s
    ]


# -------------------------------------------------------------------------------------- eyes


def _saccades(
    base_T2: np.ndarray, speaking_T: np.ndarray, style: Style, rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[int, float]]]:
    """Fixations around the main direction with quick jumps; also (frame, size) of each jump."""
    frames = len(base_T2)
    out = np.zeros_like(base_T2)
    offset = np.zeros(2)
    until = 0
    for i in range(frames):
        if i >= until:
            if rng.uniform() < (0.05 if speaking_T[i] > 0.5 else 0.14) * style.saccades:
                offset = rng.normal(0, 1, 2) * (0.16, 0.09)  # looks away to think
                hold = rng.uniform(0.35, 1.0)
            else:
                offset = rng.normal(0, 1, 2) * (0.028, 0.02)
                hold = rng.exponential(0.9) + 0.25
            until = i + max(int(hold / style.saccades * FPS), 3)
        out[i] = base_T2[i] + offset
    jumps = np.linalg.norm(np.diff(out, axis=0, prepend=out[:1]), axis=1)
    shifts = [(int(i), float(jumps[i])) for i in np.flatnonzero(jumps > 0.05)]
    # a jump takes one to two frames, the larger the longer
    quick = 0.72 * out + 0.28 * np.concatenate([out[:1], out[:-1]])
    drift = smooth(rng.normal(0, 1, (frames, 2)), 6) * 0.006
    return np.clip(quick + drift, (-0.6, -0.4), (0.6, 0.4)), shifts


def _blinks(
    frames: int,
    speech: Speech,
    shifts: list[tuple[int, float]],
    style: Style,
    rng: np.random.Generator,
) -> np.ndarray:
    """Closedness (T,) of the lids; 1 is shut."""
    seconds = frames / FPS
    mean_s = 60.0 / style.blinks_per_minute
    wanted = [end - 0.05 for _, end in _pauses(speech)] + [a for a, _ in _pauses(speech)]
    wanted += [i / FPS for i, size in shifts if size > 0.2]
    starts: list[float] = []
    t = float(rng.uniform(0.2, mean_s))
    while t < seconds:
        near = [w for w in wanted if abs(w - t) < 0.35 * mean_s and w - 0.7 > (starts or [-1])[-1]]
        at = float(rng.choice(near)) if near and rng.uniform() < 0.6 else t
        starts.append(max(at, 0.0))
        if rng.uniform() < 0.06:
            starts.append(at + float(rng.uniform(0.35, 0.5)))  # twice in a row
        t = max(at, t) + max(0.6, mean_s * float(rng.gamma(3.5, 1 / 3.5)))
    time = (np.arange(frames) + 0.5) / FPS
    out = np.zeros(frames)
    for start in starts:
        depth = 1.0 if rng.uniform() < 0.85 else float(rng.uniform(0.55, 0.95))
        closing, shut, opening = (
            rng.uniform(0.06, 0.1),
            rng.uniform(0.04, 0.08),
            rng.uniform(0.14, 0.24),
        )
        x = time - start
        up = np.clip(1 - (x - closing - shut) / opening, 0, 1)
        curve = np.where(x < closing, np.clip(x / closing, 0, 1), up * up * (3 - 2 * up))
        out = np.maximum(out, depth * np.where(x < 0, 0, curve))
        middle = int((start + closing + shut / 2) * FPS)
        if depth == 1.0 and middle < frames:
            out[middle] = 1.0  # a full blink shows one frame with the eyes shut
    return out


# -------------------------------------------------------------------------------------- head


def _noise(frames: int, sigma_s: float, width: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth Gaussian noise (T, width) of unit deviation, whatever the length."""
    sigma = sigma_s * FPS
    pad = int(4 * sigma) + 1
    x = smooth(rng.normal(size=(frames + 2 * pad, width)), sigma)[pad : pad + frames]
    return x * np.sqrt(2 * sigma * np.sqrt(np.pi))


def _follow(target_TC: np.ndarray, seconds: float) -> np.ndarray:
    """Critically damped second-order follower: a head has mass."""
    omega, dt = 2.0 / seconds, 1.0 / (4 * FPS)
    x, v = target_TC[0].astype(np.float64).copy(), np.zeros(target_TC.shape[1])
    out = np.empty_like(target_TC, dtype=np.float64)
    for i, goal in enumerate(target_TC):
        for _ in range(4):
            v += dt * (omega * omega * (goal - x) - 2 * omega * v)
            x += dt * v
        out[i] = x
    return out


def _pulse(frames: int, centre: float, width_s: float) -> np.ndarray:
    """A bump (T,) of height 1 whose peak is at ``centre`` frames."""
    x = (np.arange(frames) + 0.5 - centre) / (width_s * FPS)
    return np.where(np.abs(x) < 1, 0.5 + 0.5 * np.cos(np.pi * np.clip(x, -1, 1)), 0.0)


def _head(
    speech: Speech,
    mouth: MouthCurves,
    emotion_T8: np.ndarray,
    distance_T: np.ndarray,
    gaze_T2: np.ndarray,
    accents: _Accents,
    style: Style,
    rng: np.random.Generator,
) -> np.ndarray:
    """Pose track (T, 7) relative to the portrait."""
    frames = len(distance_T)
    postures = np.array([_POSTURE[n][0] for n in EMOTIONS])
    posture_T4 = emotion_T8 @ postures
    share = emotion_T8 / np.maximum(emotion_T8.sum(1, keepdims=True), 1)
    lively = 1 + (share * (np.array([_POSTURE[n][1] for n in EMOTIONS]) - 1)).sum(1)
    active = smooth((0.45 + 0.55 * mouth.speaking)[:, None], 0.25 * FPS)[:, 0] * lively * style.head

    # posture: a new one at each phrase, reached with the inertia of a head
    target = np.zeros((frames, 3))
    turns = sorted(
        {
            0,
            *(int(end * FPS) for _, end in _pauses(speech)),
            *(int(t * FPS) for t in np.cumsum(rng.uniform(1.2, 4.5, 400)) if t * FPS < frames),
        }
    )
    for a in turns:
        target[a:] = rng.normal(0, 1, 3) * (0.075, 0.035, 0.03) * style.head
    rotation = _follow(target, 0.55)
    rotation += active[:, None] * _noise(frames, 0.45, 3, rng) * (0.035, 0.022, 0.016)
    rotation += active[:, None] * _noise(frames, 0.16, 3, rng) * (0.008, 0.009, 0.005)
    rotation += posture_T4[:, :3]
    # the head goes a part of the way that the eyes go, and lifts with the voice
    rotation[:, :2] += _follow(gaze_T2 * (0.30, 0.22), 0.35)
    tone = smooth(accents.pitch_T[:, None], 0.14 * FPS)[:, 0]
    rotation[:, 1] += 0.022 * tone * active
    for i, w in zip(accents.frame, accents.weight, strict=True):
        if rng.uniform() < style.nods * (0.4 + 0.8 * w):
            size = (0.015 + 0.05 * w) * float(np.exp(rng.normal(0, 0.35))) * style.head
            nod = -size * _pulse(frames, i + rng.normal(0.5, 1.0), rng.uniform(0.16, 0.32))
            rotation[:, 1] += nod + 0.35 * size * _pulse(frames, i - 5, 0.2)  # lift before the dip
            if rng.uniform() < 0.3:
                rotation[:, 2] += rng.normal(0, 0.6) * nod
    for start, _end in _pauses(speech, 0.25):  # heads sink a little when a phrase ends
        rotation[:, 1] -= (
            0.02 * rng.uniform(0, 1.5) * style.head * _pulse(frames, start * FPS, 0.45)
        )
    rotation = np.clip(rotation, (-0.5, -0.35, -0.3), (0.5, 0.35, 0.3))

    sway = active[:, None] * _noise(frames, 0.7, 3, rng) * (0.022, 0.010, 0.010)
    breath = 0.004 * np.sin(
        2 * np.pi * np.arange(frames) / FPS / rng.uniform(3, 5) + rng.uniform(0, 6)
    )
    pose = np.zeros((frames, 7))
    pose[:, 0:3] = rotation
    pose[:, 3] = sway[:, 0] + 0.10 * rotation[:, 0] + 0.18 * rotation[:, 2]
    pose[:, 4] = sway[:, 1] + 0.06 * rotation[:, 1] + breath
    pose[:, 6] = -np.log(distance_T) + sway[:, 2] + posture_T4[:, 3] - 0.05 * rotation[:, 1]
    return pose.astype(np.float32)


# -------------------------------------------------------------------------------------- face


def _face(
    mouth: MouthCurves,
    emotion_T8: np.ndarray,
    blink_T: np.ndarray,
    accents: _Accents,
    style: Style,
    rng: np.random.Generator,
) -> np.ndarray:
    """Expression track (T, 45)."""
    frames = len(blink_T)
    flicker = 1 + 0.10 * _noise(frames, 0.6, 1, rng)
    felt = feeling(emotion_T8, mouth.expression) * np.clip(flicker, 0.6, 1.3)
    unrounded = np.clip(1 - rounding(mouth.expression), 0, 1)
    x = mouth.expression + felt
    for side in "LR":
        x[:, INDEX[f"mouthSmile_{side}"]] += style.smile * unrounded

    lift = np.clip(_noise(frames, 0.35, 1, rng)[:, 0], 0, 2) * 0.07
    frown = np.clip(_noise(frames, 0.8, 1, rng)[:, 0] - 0.6, 0, 2) * 0.10
    for i, w in zip(accents.frame, accents.weight, strict=True):
        if rng.uniform() < style.brows * (0.3 + 0.9 * w):
            lift = lift + rng.uniform(0.12, 0.4) * w * _pulse(frames, i, rng.uniform(0.2, 0.45))
    for side in "LR":
        tilt = 1 + 0.15 * style.asymmetry * (1 if side == "L" else -1)
        x[:, INDEX[f"browInnerUp_{side}"]] += 0.8 * lift
        x[:, INDEX[f"browOuterUp_{side}"]] += lift * tilt
        x[:, INDEX[f"browDown_{side}"]] += frown
        x[:, INDEX[f"eyeWide_{side}"]] += 0.25 * lift
        x[:, INDEX[f"eyeSquint_{side}"]] += 0.3 * x[:, INDEX[f"mouthSmile_{side}"]] * 0.5
        for name in ("mouthSmile", "mouthLowerDown", "mouthUpperUp", "mouthStretch"):
            x[:, INDEX[f"{name}_{side}"]] *= tilt
        # a shut eye is shut: wide and squint give way while the lid is down
        lid = INDEX[f"eyeBlink_{side}"]
        x[:, lid] = 1 - (1 - np.clip(x[:, lid], 0, 1)) * (1 - blink_T)
        x[:, INDEX[f"eyeWide_{side}"]] *= 1 - blink_T
    x = seal(x, mouth.closure, mouth.labiodental)
    # In silence the lips rest shut unless the feeling itself opens them (a smile shows teeth).
    return np.clip(x, 0, 1).astype(np.float32)
