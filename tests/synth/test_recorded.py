"""Recorded voices acted out: what is heard, what is left out, what is joined."""

import numpy as np
import pytest

from vasa_jax.core.arkit import EXPRESSION
from vasa_jax.core.errors import UserError
from vasa_jax.core.types import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from vasa_jax.motion.arkit.lips import lip_gap_cm

pytest.importorskip("espeakng_loader")
pytest.importorskip("hama")

from vasa_jax.data.corpus import MotionCorpus  # noqa: E402
from vasa_jax.synth import recorded  # noqa: E402
from vasa_jax.synth.speech import voice


@pytest.fixture(scope="module")
def said() -> voice.Speech:
    return voice.speak("Many people bring my mother a book about Paris.", "en-us+m3")


def write(path, samples):
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE_HZ)


def test_lips_shut_where_the_synthesiser_says_p_b_m(said):
    clip = recorded.recorded_clip(recorded.recognised(said.samples), seed=0)
    gap = lip_gap_cm(clip.motion[:, EXPRESSION])
    middles = [0.5 * (p.start_s + p.end_s) for p in said.phonemes if p.symbol in ("p", "b", "m")]
    frames = [round(s * 25 - 0.5) for s in middles]
    shut = [gap[max(f - 2, 0) : f + 3].min() < 0.05 for f in frames]
    # The recogniser misses or misplaces some; by chance it would be the share of shut stretches.
    anywhere = np.convolve(gap < 0.05, np.ones(5), "same") > 0
    assert len(shut) >= 6 and np.mean(shut) > max(0.7, 1.3 * anywhere.mean())
    assert len(clip.samples) == len(clip.motion) * SAMPLES_PER_FRAME


def test_the_measured_gap_makes_the_opening_the_speakers(said):
    heard = recorded.recognised(said.samples)
    small = np.full(200, 0.1)
    usual = recorded.recorded_clip(heard, seed=0)
    quiet = recorded.recorded_clip(heard, seed=0, real_gap_cm=small)
    gaps = [lip_gap_cm(c.motion[:, EXPRESSION]).mean() for c in (usual, quiet)]
    assert gaps[1] < 0.6 * gaps[0]


def test_tones_and_silence_are_not_speech(said):
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    tone = 0.2 * np.sin(2 * np.pi * 440 * time_s).astype(np.float32)
    assert recorded.spoken(recorded.recognised(said.samples))
    assert not recorded.spoken(recorded.recognised(tone))
    assert not recorded.spoken(recorded.recognised(np.zeros(SAMPLE_RATE_HZ, np.float32)))


def test_short_recordings_of_one_folder_are_joined_and_tones_left_out(said, tmp_path, capsys):
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    for i in range(3):
        write(tmp_path / "in" / "anna" / f"{i}.wav", said.samples)
    write(tmp_path / "in" / "anna" / "beep.wav", 0.2 * np.sin(2 * np.pi * 440 * time_s))
    (tmp_path / "in" / "anna" / "empty.wav").write_bytes(b"")
    write(tmp_path / "in" / "bert" / "word.wav", said.samples[:SAMPLE_RATE_HZ])
    recorded.make_shards(tmp_path / "out", tmp_path / "in", join_s=1.5 * said.duration_s)
    assert "empty.wav" in capsys.readouterr().out
    seconds = [len(c.motion) / 25 for c in MotionCorpus((str(tmp_path / "out"),)).clips]
    two = 2 * said.duration_s  # two of Anna's, her last, one of Bert
    assert len(seconds) == 3
    assert two + 0.4 <= seconds[0] <= two + 1.6
    assert seconds[1] < said.duration_s + 1.0 and seconds[2] < 2.0


def test_a_folder_without_recordings_says_so(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="no recordings"):
        recorded.make_shards(tmp_path / "out", tmp_path)
