from __future__ import annotations

import datetime
import io
import math

import numpy as np
import pytest
from PIL import Image

from tests.provenance.natural import natural_picture
from tools.mark_attacks import coded
from vasa_jax.provenance import detector, pattern, samples, watermark
from vasa_jax.provenance.detector import find, look, read_payload
from vasa_jax.provenance.examine import examine_pictures
from vasa_jax.provenance.payload import Payload
from vasa_jax.provenance.score import BOUND, SIDE, Matcher, tail, threshold
from vasa_jax.provenance.watermark import KEPT_PROGRAMS, Marker, embed

# Of one time: the payload decides by how much a weak mark is read.
WHEN = datetime.datetime(2026, 11, 21, 16, 20, tzinfo=datetime.UTC)
SAID = Payload.of("c0ffee" + 58 * "0", WHEN)


def marked_picture(height=256, width=256, seed=0, **options):
    plain = natural_picture(height, width, seed)
    return plain, Marker(SAID, height, width, **options)(plain)


def resized(picture, scale):
    height, width = picture.shape[:2]
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def test_what_is_marked_is_found_and_read_and_what_is_not_is_not():
    plain, marked = marked_picture()
    found = find(marked)
    assert found.false_alarm < 1e-20 and read_payload(found.tile) == SAID
    assert find(plain).false_alarm > 1e-3


@pytest.mark.parametrize("contrast", [0.0, 45.0, 200.0])
def test_no_frame_falls_below_42_db(contrast):
    """Nor do pictures that are all texture; black and white noise is the most there can be."""
    plain = natural_picture(201, 257, 3, contrast)
    if contrast == 200.0:
        plain = np.random.default_rng(0).integers(0, 2, plain.shape).astype(np.uint8) * 255
        plain = np.clip(plain, 8, 247)  # no help from what would be cut off
    error = np.square(Marker(SAID, 201, 257)(plain).astype(np.float64) - plain).mean()
    assert 10 * math.log10(255**2 / error) >= 42.0


def test_flat_ground_gets_less_than_texture_and_large_pictures_less_than_small():
    plain = natural_picture(256, 256, 0)
    added = np.abs(Marker(SAID, 256, 256)(plain).astype(int) - plain)
    assert added[:, :48].mean() < 0.95 * added[:, 128:].mean()
    flat = [np.full((n, n, 3), 128, np.uint8) for n in (256, 1024)]
    small, large = (np.abs(Marker(SAID, *f.shape[:2])(f).astype(int) - f).mean() for f in flat)
    assert large < 0.75 * small


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.37])
@pytest.mark.parametrize("crop", [(0, 0), (23, 0), (11, 40)])
def test_scale_and_crop_are_found_by_themselves(scale, crop):
    _, marked = marked_picture(300, 280, 1)
    found = find(resized(marked[crop[0] :, crop[1] :], scale))
    assert found.false_alarm < 1e-9 and read_payload(found.tile) == SAID
    geometry = found.geometry
    assert geometry.angle == 0 and not geometry.mirrored
    for pitch in geometry[:2]:
        assert pitch == pytest.approx(scale * pattern.pitch_of(300, 280), rel=0.015)  # half a chip
    for phase, cut in zip(geometry[2:4], crop, strict=True):
        off = (phase + 2 * cut / pattern.pitch_of(300, 280)) % SIDE  # samples
        assert min(off, SIDE - off) <= 1.0  # likewise
    again = look(resized(marked[crop[0] :, crop[1] :], scale), found.geometry)
    assert again.score == pytest.approx(found.score, rel=1e-5)


def test_large_pictures_are_marked_more_coarsely_and_found_all_the_same():
    plain, marked = marked_picture(640, 620, 5)
    error = np.square(marked.astype(np.float64) - plain).mean()
    assert 10 * math.log10(255**2 / error) >= 43.0
    found = find(resized(marked[40:], 0.5))
    assert found.false_alarm < 1e-20 and read_payload(found.tile) == SAID


def test_a_still_survives_jpeg_75():
    out = io.BytesIO()
    Image.fromarray(marked_picture(seed=2)[1]).save(out, "JPEG", quality=75)
    found = find(np.asarray(Image.open(out)))
    assert found.false_alarm < 1e-9 and read_payload(found.tile) == SAID


def test_another_key_neither_finds_nor_reads():
    _, marked = marked_picture(key=b"somebody's own")
    assert find(marked).false_alarm > 1e-3
    assert find(marked, key=b"somebody's own").false_alarm < 1e-20


def test_signs_are_the_same_for_ever():
    """From SHA-256 as published: the first word of the first block, its lowest bit."""
    import hashlib

    block = hashlib.sha256(pattern.PUBLIC_KEY + b"|sign|0").digest()
    signs = [1 if block[4 * i + 3] & 1 else -1 for i in range(8)]
    assert pattern.layout().sign[0, :8].tolist() == signs
    sign, pilot, bit = pattern.layout()
    assert pilot.sum() == 512 and (np.bincount(bit[~pilot]) == 2).all()
    assert abs(sign.mean()) < 0.1


def test_the_bound_holds_for_random_signs():
    """Against the exact tail: many keys, content of very unequal weights, one look."""
    rng = np.random.default_rng(0)
    weights = rng.standard_cauchy(100)
    weights /= np.linalg.norm(weights)
    scores = rng.choice([-1.0, 1.0], (50_000, 100)) @ weights
    for t in (1.0, 2.0, 3.0, 4.0):
        assert (scores >= t).mean() <= tail(t)
    # Two equal weights reach sqrt 2 in exactly one of four cases, where the bound is tight.
    assert tail(math.sqrt(2.0)) == pytest.approx(0.25, rel=1e-12)
    assert tail(0.0) == pytest.approx(min(1.0, 0.5 * 3.178), rel=1e-3) and tail(-3.0) == 1.0
    # Normal tail at 6, tabulated: 9.866e-10.
    assert tail(6.0) == pytest.approx(3.178 * 9.866e-10, rel=1e-3)
    assert 10**6 * tail(threshold(10**6)) == pytest.approx(1e-6)


def test_scores_of_clean_pictures_stay_within_the_bound():
    """Every phase of one pitch is a look: none of 200 thousand may pass where 0.01 is expected."""
    scores = []
    for seed in range(50):
        grey = samples.luminance(natural_picture(200, 200, 100 + seed))
        tile, _ = samples.folded(grey, 3.1, 3.1)
        scores.append(Matcher(pattern.PUBLIC_KEY)(tile))
    scores = np.array(scores)
    assert scores.max() < threshold(scores.size, 0.01)
    assert abs(scores.mean()) < 0.05 and 0.8 < scores.std() < 1.2


def test_periodic_and_empty_pictures_raise_no_alarm():
    y, x = np.mgrid[:256, :256]
    for picture in (np.zeros((256, 256)), (x // 3 + y // 3) % 2 * 255.0, (x % 96) * 2.0,
                    255.0 * (np.hypot(x - 128, y - 128) % 6 < 3)):  # fmt: skip
        assert find(picture.astype(np.float32)).false_alarm > 1e-3


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.5])
def test_an_uncropped_picture_is_found_where_it_is_expected(scale):
    """In two or in 360 looks instead of millions, so that a weaker score is enough."""
    picture = resized(marked_picture(256, 300, 4)[1], scale)
    found = find(picture)
    assert found.looks == (2 if scale in (1.0, 0.5) else 360)
    assert found.false_alarm <= detector.SURE
    assert found.geometry.phase_y == found.geometry.phase_x == 0
    assert find(picture[40:, 33:]).looks > 10**5


def test_marks_of_the_first_layout_are_still_found_and_read(monkeypatch):
    """Until November 2026 chips of small pictures were 3 px wide."""
    with monkeypatch.context() as earlier:
        for module in (pattern, watermark):
            earlier.setattr(module, "pitch_of", pattern.earlier_pitch_of)
        marked = marked_picture(256, 256, 9)[1]
    assert pattern.earlier_pitch_of(256, 256) == 3 < pattern.pitch_of(256, 256)
    for picture, pitch in ((marked, 3.0), (resized(marked[30:, 20:], 0.7), 2.1)):
        found = find(picture)
        assert found.false_alarm < 1e-9 and read_payload(found.tile) == SAID
        assert found.geometry.pitch_x == pytest.approx(pitch, rel=0.02)


def test_a_square_lives_through_halving_and_a_fast_preset():
    """With chips of 3 px scores were 8.0 to 8.9 here, and on talking faces too low."""
    scores = []
    for seed in range(4):
        marked = marked_picture(256, 256, 20 + seed)[1]
        frames = np.repeat(resized(marked, 0.5)[None], 15, 0)
        found = find(coded(frames, 23, preset="veryfast").mean(0))
        assert found.false_alarm < 1e-9
        scores.append(found.score)
    assert min(scores) > 9.5


def test_the_shares_of_the_bound_are_one_whole_and_most_is_where_most_files_are():
    shares = detector.SHARES
    assert sum(shares.values()) == pytest.approx(1.0) and min(shares.values()) > 0
    assert threshold(2, BOUND * shares["likely"]) < 5.3
    assert threshold(360, BOUND * shares["expected"]) < 6.3
    with_mirrors = 2 * 60 * samples.MOST_FOLDS * SIDE**2  # of any size: fewer than 60 pitches
    assert threshold(with_mirrors, BOUND * shares["everywhere"]) < 7.7


def turned(picture, degrees):
    image = Image.fromarray(picture).rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(image)


@pytest.mark.parametrize("crop", [0, 37])
@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_a_mirrored_picture_is_found_and_read_like_any_other(crop, scale):
    marked = marked_picture(300, 280, 1)[1]
    mirrored = resized(np.ascontiguousarray(marked[:, crop:][:, ::-1]), scale)
    found = find(mirrored)
    assert found.false_alarm < 1e-9 and found.geometry.mirrored
    assert read_payload(found.tile) == SAID
    assert look(mirrored, found.geometry).score == pytest.approx(found.score, rel=1e-5)


@pytest.mark.parametrize(
    ("degrees", "mirrored"), [(1.0, False), (-3.0, False), (3.0, False), (2.1, True)]
)
def test_a_turned_picture_is_found_and_read(degrees, mirrored):
    marked = marked_picture(300, 320, 2)[1]
    picture = turned(marked[:, ::-1] if mirrored else marked, degrees)
    found = find(picture)
    assert found.false_alarm < 1e-9 and read_payload(found.tile) == SAID
    assert found.geometry.angle == pytest.approx(degrees, abs=0.8)  # half a chip at the edge
    assert found.geometry.mirrored == mirrored
    assert look(picture, found.geometry).score == pytest.approx(found.score, rel=1e-5)


def test_turned_and_scaled_pictures_are_found_in_all_stretches_of_a_video():
    picture = resized(turned(marked_picture(256, 256, 6)[1], -2.0), 1.06)[8:-8, 8:-8]
    verdict = examine_pictures(iter([picture] * 260))
    assert verdict.found and verdict.payload == SAID
    assert verdict.marked == ((0.0, 5.0), (5.0, 10.0))


@pytest.mark.parametrize("degrees", [0.0, 1.5])
def test_straightening_undoes_mirroring_and_turning(degrees):
    y, x = np.mgrid[:120, :150].astype(np.float32)
    smooth = 100 + 50 * np.sin(x / 17 + 1) * np.cos(y / 13)
    image = Image.fromarray(np.ascontiguousarray(smooth[:, ::-1]))
    there = np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC))
    back = samples.straightened(there, degrees, mirrored=True)
    assert np.abs(back - smooth)[15:-15, 15:-15].max() < 1.0


def test_clean_pictures_that_are_turned_or_mirrored_raise_no_alarm():
    plain = natural_picture(180, 200, 40)
    assert find(turned(plain, 2.0)).false_alarm > 1e-3
    assert find(np.ascontiguousarray(plain[:, ::-1])).false_alarm > 1e-3


def test_a_marked_part_of_a_longer_video_is_found_and_placed():
    plain, marked = marked_picture(128, 128)
    frames = [plain] * 125 + [marked] * 250 + [plain] * 30
    verdict = examine_pictures(iter(frames))
    assert verdict.found and verdict.payload == SAID and verdict.frames == 405
    assert verdict.marked == ((5.0, 10.0), (10.0, 15.0))
    assert not examine_pictures(iter(frames[:125])).found


def test_another_payload_compiles_nothing_more_and_programs_stay_bounded():
    Marker(SAID, 48, 64)
    before = embed.count
    Marker(Payload(release=5, time=7), 48, 64)(np.zeros((48, 64, 3), np.uint8))
    assert embed.count == before <= KEPT_PROGRAMS


def test_a_marker_takes_frames_of_its_size_only():
    with pytest.raises(ValueError, match="marker for"):
        Marker(SAID, 64, 64)(np.zeros((64, 65, 3), np.uint8))
    with pytest.raises(ValueError, match="too small"):
        find(np.zeros((20, 20, 3), np.uint8))
