"""Speech, visemes and performances: true times, true closures, right signs, one seed one result."""

import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION, MOTION_DIM, MOTION_INDEX
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import EMOTIONS, FPS, SAMPLE_RATE_HZ

pytest.importorskip("espeakng_loader")

from vasa_jax.motion.arkit.lips import lip_gap_cm  # noqa: E402
from vasa_jax.synth import performance
from vasa_jax.synth.speech import (
    flite_voice,  # noqa: E402
    text,
    visemes,
    voice,
)

SENTENCE = "People make beautiful movies, my baby. Five very brave wolves, Bob!"


@pytest.fixture(scope="module")
def speech() -> voice.Speech:
    return voice.join([voice.silence(0.6), voice.speak(SENTENCE, "en-us+f3"), voice.silence(1.2)])


def test_phonemes_cover_the_recording_without_gaps(speech):
    assert speech.phonemes[0].start_s == 0
    assert speech.phonemes[-1].end_s == pytest.approx(speech.duration_s, abs=1e-6)
    for a, b in zip(speech.phonemes, speech.phonemes[1:], strict=False):
        assert a.end_s == pytest.approx(b.start_s, abs=1e-6)
        assert a.end_s > a.start_s


def test_phoneme_times_match_the_sound(speech):
    """Vowels are loud, pauses silent, and the closure of a stop is quieter than the next vowel."""

    def level(p):
        a, b = int(p.start_s * SAMPLE_RATE_HZ), int(p.end_s * SAMPLE_RATE_HZ)
        return float(np.sqrt(np.mean(speech.samples[a:b] ** 2)))

    kinds = {p: visemes.classify(p.symbol)[0] for p in speech.phonemes}
    vowels = [level(p) for p in speech.phonemes if kinds[p] in visemes.VOWELS - {"RR"}]
    pauses = [level(p) for p in speech.phonemes if p.symbol == voice.SILENCE]
    assert max(pauses) < 0.1 * np.median(vowels)
    stops = [
        (level(p), level(q))
        for p, q in zip(speech.phonemes, speech.phonemes[1:], strict=False)
        if p.symbol in ("p", "b") and kinds[q] in visemes.VOWELS
    ]
    assert len(stops) >= 3
    assert np.mean([a < 0.6 * b for a, b in stops]) > 0.7


@pytest.mark.parametrize("name", ["en-us", "en", "de+m3", "fr", "es", "it", "cmn"])
def test_every_language_speaks_and_is_understood(name):
    words = {"cmn": "妈妈爸爸"}.get(name, "mama papa banana")
    said = voice.speak(words, name)
    shut = [p for p in said.phonemes if "PP" in visemes.classify(p.symbol)]
    assert said.samples.dtype == np.float32 and said.duration_s > 0.5
    assert len(shut) >= 3
    assert all(p.symbol == voice.SILENCE or visemes.classify(p.symbol) for p in said.phonemes)


def test_an_unknown_voice_is_refused():
    with pytest.raises(UserError, match="no voice 'klingon-9'"):
        voice.speak("hello", "klingon-9")
    with pytest.raises(UserError, match="nothing to say"):
        voice.speak("  ")


def test_the_natural_voice_counts_its_own_samples():
    if not voice.joe_available():
        pytest.skip("needs the voices extra")
    said = voice.speak("My papa baked bread.", "joe", seed=3)
    again = voice.speak("My papa baked bread.", "joe", seed=3)
    np.testing.assert_array_equal(said.samples, again.samples)
    assert [p.symbol for p in said.phonemes].count("p") >= 2
    ends = said.phonemes[-1].end_s
    assert ends == pytest.approx(said.duration_s, abs=1e-3)


def test_warp_shortens_sound_and_times_alike():
    slow = voice.speak("hello", voice.Voice(name="en-us"))
    fast = voice.speak("hello", voice.Voice(name="en-us", warp=1.25))
    assert fast.duration_s == pytest.approx(slow.duration_s / 1.25, rel=0.01)
    assert fast.phonemes[1].end_s == pytest.approx(slow.phonemes[1].end_s / 1.25, rel=0.02)


def test_cut_keeps_times_and_samples_together(speech):
    part = voice.cut(speech, 1.0, 2.0)
    assert len(part.samples) == SAMPLE_RATE_HZ
    assert part.phonemes[0].start_s == 0
    assert part.phonemes[-1].end_s == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_lips_are_shut_in_every_closure_whatever_the_emotion(speech, emotion):
    act = performance.perform(speech, seed=4, emotion=emotion, strength=1.0)
    gap = lip_gap_cm(act.motion[:, EXPRESSION])
    assert (act.closure > 0.99).sum() >= 6
    assert gap[act.closure > 0.99].max() < 0.02
    for p in speech.phonemes:
        if "PP" in visemes.classify(p.symbol):
            a, b = int(p.start_s * FPS), min(int(p.end_s * FPS), len(gap) - 1)
            assert gap[a : b + 1].min() < 0.02, p


def test_labiodentals_bring_the_lower_lip_in(speech):
    act = performance.perform(speech, seed=4, emotion="neutral")
    at_teeth = act.labiodental > 0.99
    assert at_teeth.sum() >= 3
    roll = act.motion[:, MOTION_INDEX["mouthRollLower"]]
    assert roll[at_teeth].min() > 0.25
    assert act.motion[at_teeth, MOTION_INDEX["jawOpen"]].max() < 0.08


def test_the_mouth_opens_with_the_vowels_and_rests_in_silence(speech):
    act = performance.perform(speech, seed=1, emotion="neutral")
    gap = lip_gap_cm(act.motion[:, EXPRESSION])
    names = np.array(visemes.VISEME_NAMES)[act.viseme]
    assert gap[names == "aa"].mean() > 0.5
    quiet = np.r_[gap[:10], gap[-20:]]
    assert quiet.max() < 0.05


def test_silence_keeps_eyes_and_head_alive():
    act = performance.perform(voice.silence(20.0), seed=2, emotion="neutral")
    assert lip_gap_cm(act.motion[:, EXPRESSION]).max() < 0.05
    assert act.motion[:, 0].std() > 0.005
    assert (np.diff((act.blink > 0.5).astype(int)) == 1).sum() >= 2


def test_blinks_come_at_a_human_rate():
    style = performance.Style(blinks_per_minute=17.0)
    acts = [
        performance.perform(voice.silence(60.0), seed=s, emotion="neutral", style=style)
        for s in range(2)
    ]
    count = sum((np.diff((a.blink > 0.5).astype(int)) == 1).sum() for a in acts) / 2
    assert 10 <= count <= 25


def test_one_seed_one_performance(speech):
    a = performance.perform(speech, seed=9)
    b = performance.perform(speech, seed=9)
    c = performance.perform(speech, seed=10)
    np.testing.assert_array_equal(a.motion, b.motion)
    assert not np.array_equal(a.motion, c.motion)
    assert a.motion.shape == (-(-len(speech.samples) // 640), MOTION_DIM)
    assert a.motion.dtype == np.float32


def test_controls_are_obeyed(speech):
    act = performance.perform(
        speech, seed=5, emotion="happy", strength=0.9, distance=0.8, gaze=(0.3, -0.1)
    )
    assert np.median(act.motion[:, 7]) == pytest.approx(0.3, abs=0.06)
    assert np.median(act.motion[:, 8]) == pytest.approx(-0.1, abs=0.05)
    assert act.motion[:, 6].mean() == pytest.approx(-np.log(0.8), abs=0.05)
    assert act.motion[:, MOTION_INDEX["mouthSmile_L"]].mean() > 0.25
    assert act.controls.emotion[:, EMOTIONS.index("happy")].min() > 0.85
    np.testing.assert_allclose(act.controls.distance, 0.8)
    with pytest.raises(UserError, match="no emotion"):
        performance.perform(speech, seed=0, emotion="bored")
    with pytest.raises(UserError, match="gaze has shape"):
        performance.perform(speech, seed=0, gaze=np.zeros((3, 2)))


def test_pitch_of_a_tone_sweep_rises():
    t = np.arange(SAMPLE_RATE_HZ * 2) / SAMPLE_RATE_HZ
    hz = 110 * 2 ** (t / 2)
    tone = np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ).astype(np.float32) * 0.3
    contour = performance.voice_pitch(tone)
    assert np.corrcoef(contour[2:-3], np.arange(len(contour))[2:-3])[0, 1] > 0.97


def test_text_has_no_end_and_one_seed():
    a = [text.random_text(np.random.default_rng(3), lang) for lang in voice.LANGUAGES]
    b = [text.random_text(np.random.default_rng(3), lang) for lang in voice.LANGUAGES]
    assert a == b and all(a)
    rng = np.random.default_rng(0)
    assert len({text.english_sentence(rng) for _ in range(200)}) > 190


def test_flite_times_are_the_ends_it_prints():
    got = flite_voice.spans("pau:0.193 p:0.254 iy:0.346 pau:0.4\n")
    assert [(p, round(b - a, 3)) for p, a, b in got] == [
        ("", 0.193), ("p", 0.061), ("iː", 0.092), ("", 0.054),
    ]  # fmt: skip
    assert got[1][1] == 0.193


def test_every_phoneme_of_flite_has_a_mouth_shape():
    for symbol in flite_voice.IPA.values():
        assert visemes.classify(symbol), symbol


@pytest.mark.skipif(not flite_voice.available(), reason="flite is not installed")
def test_flite_speaks_with_closures_where_it_says():
    said = voice.speak("Bob may bring my baby a big puppy.", "slt")
    assert said.phonemes[-1].end_s == pytest.approx(said.duration_s, abs=1e-6)
    level = np.abs(said.samples)
    for p in said.phonemes:
        middle = level[int((p.start_s + 0.3 * (p.end_s - p.start_s)) * SAMPLE_RATE_HZ) :][:160]
        if p.symbol == "p":  # the lips are shut: all but silent
            assert middle.mean() < 0.35 * level.mean()
