"""Pairings of stage 1 in a world where pictures say who, where and what in their three channels.

A perfect renderer paints exactly that, so every right pairing costs nothing; each mistake that
others shipped (paper facts 4.2) costs something, or forgives a renderer that should be punished.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vasa_jax.losses import disentangle
from vasa_jax.losses.reconstruction import weighted_l1
from vasa_jax.train.passes import Frames, apart, other, render_passes, together
from vasa_jax.train.volumetric import FeatureNets, Scene, VolumetricLossConfig, generator_terms

pytestmark = pytest.mark.usefixtures("broadcasting")

WHO = np.array([0.0, 0.7, 1.4], np.float32)
POSE_S, POSE_D = np.array([0.1, 0.2, 0.3], np.float32), np.array([-0.5, -0.6, -0.7], np.float32)
ACT_S, ACT_D = np.array([0.3, 0.9, 1.5], np.float32), np.array([2.0, 2.6, 0.0], np.float32)


def picture(who, where, what):
    channels = jnp.stack([jnp.asarray(x, jnp.float32) for x in (who, where, what)], -1)
    return jnp.broadcast_to(channels[:, None, None], (len(channels), 8, 8, 3))


def pose(where):
    return jnp.zeros((len(where), 7)).at[:, 0].set(where)


class Painter:
    """Knows the world; ``params`` may be the name of a defect."""

    def aligned_faces(self, image, pose):
        return image

    def dynamics(self, params, face, *, dropout=None):
        angle = face[:, 0, 0, 2]
        if params == "pose leaks into the code":
            angle = angle + face[:, 0, 0, 1]
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)

    def encode(self, params, image, mask, pose, z_dyn):
        @dataclasses.dataclass
        class Kept:
            volume: jax.Array
            source: jax.Array

        jax.tree_util.register_dataclass(Kept, ["volume", "source"], [])
        leak = image[:, 0, 0, 2] if params == "expression stays in the volume" else 0.0
        return Kept((image[:, 0, 0, 0] + leak).reshape(-1, 1, 1, 1, 1), image)

    def decode(self, params, appearance, pose, z_dyn):
        if params == "copies the source":
            return appearance.source
        who = appearance.volume.reshape(-1)
        if params == "takes the identity of the driver":
            # All versions of an example lie side by side (``together``); the next one is beyond.
            who = jnp.roll(who, -(len(who) // len(WHO))) * 0.5 + who * 0.5
        return picture(who, pose[:, 0], jnp.arctan2(z_dyn[:, 1], z_dyn[:, 0]))


def world():
    def frames(where, what):
        image = picture(WHO, where, what)
        return Frames(image, jnp.ones_like(image[..., :1]), pose(where), image)

    points = np.random.default_rng(0).uniform(2, 6, size=(3, 478, 2)).astype(np.float32)
    landmarks = jnp.asarray(points)
    return Scene(frames(POSE_S, ACT_S), frames(POSE_D, ACT_D), landmarks, landmarks, landmarks,
                 jnp.ones(3))  # fmt: skip


def passes_of(defect=None, **options):
    scene, key = world(), jax.random.key(0)
    return render_passes(Painter(), defect, scene.source, scene.driver, key, **options)


def terms_of(passes):
    def who(crops):
        angle = crops[..., 0].mean((1, 2))
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)

    nets = FeatureNets(lambda weights, images: [images] * 5, who)
    return generator_terms(VolumetricLossConfig(scales=1), nets, None, world(), passes)


class Matted(Painter):
    """Draws a matte of 0.75 as a fourth channel."""

    def decode(self, params, appearance, pose, z_dyn):
        drawn = super().decode(params, appearance, pose, z_dyn)
        return jnp.concatenate([drawn, jnp.full_like(drawn[..., :1], 0.75)], -1)


def test_a_matte_is_no_colour_and_is_held_against_the_foreground():
    scene, key = world(), jax.random.key(0)
    matted = render_passes(Matted(), None, scene.source, scene.driver, key)
    plain = passes_of()
    assert plain.matte is None and "matte" not in terms_of(plain)
    np.testing.assert_array_equal(matted.driven, plain.driven)
    np.testing.assert_array_equal(matted.z_crossed, plain.z_crossed)
    assert float(terms_of(matted)["matte"]) == pytest.approx(0.25)  # the mask of ``world`` is one


def test_stacking_for_one_call_keeps_versions_and_examples_apart():
    a, b = jnp.arange(6.0).reshape(3, 2), 10 + jnp.arange(6.0).reshape(3, 2)
    joined = together({"x": a}, {"x": b})["x"]
    np.testing.assert_array_equal(joined[:2], np.stack([a[0], b[0]]))  # neighbours in the batch
    back = apart(joined, 2)
    np.testing.assert_array_equal(back[0], a)
    np.testing.assert_array_equal(back[1], b)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_every_pass_shows_whom_where_and_what_it_should(one_by_one):
    p = passes_of(one_by_one=one_by_one)
    o = np.array([1, 2, 0])  # the other pair
    wanted = {
        "driven": (WHO, POSE_D, ACT_D), "crossed": (WHO, POSE_D[o], ACT_D[o]),
        "turned": (WHO, POSE_S[o], ACT_D[o]), "posed": (WHO, POSE_S, ACT_D),
        "acted": (WHO, POSE_S, ACT_D),
    }  # fmt: skip
    for name, truth in wanted.items():
        np.testing.assert_allclose(getattr(p, name), picture(*truth), atol=1e-6, err_msg=name)
    np.testing.assert_allclose(disentangle.cosine(p.z_driven, p.z_driver), 1.0, atol=1e-5)
    for code in (p.z_crossed, p.z_turned):
        np.testing.assert_allclose(disentangle.cosine(code, other(p.z_driver)), 1.0, atol=1e-5)


class Learner(Painter):
    """Paints with three numbers that can be learned."""

    def dynamics(self, params, face, *, dropout=None):
        return super().dynamics(None, face) * params["code"]

    def encode(self, params, image, mask, pose, z_dyn):
        kept = super().encode(None, image, mask, pose, z_dyn)
        return dataclasses.replace(kept, volume=jnp.tanh(kept.volume * params["volume"]))

    def decode(self, params, appearance, pose, z_dyn):
        return jnp.sin(super().decode(None, appearance, pose, z_dyn * z_dyn) * params["picture"])


def test_one_by_one_is_nothing_but_less_memory():
    scene = world()

    def loss(params, one_by_one):
        passes = render_passes(
            Learner(), params, scene.source, scene.driver, jax.random.key(0), one_by_one=one_by_one
        )
        shown = (passes.driven, passes.posed, passes.acted, passes.crossed, passes.turned)
        pictures = sum(i * x.mean() for i, x in enumerate(shown, 1))
        return pictures + passes.canonical_driver.mean() + 3 * passes.z_turned.mean()

    params = {"code": 0.9, "volume": 1.1, "picture": 0.7}
    both = [jax.value_and_grad(loss)(params, one_by_one) for one_by_one in (False, True)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *both)
    assert all(abs(g) > 0.01 for g in both[0][1].values())


def test_a_perfect_renderer_pays_nothing():
    terms = terms_of(passes_of())
    for name in (
        "l1",
        "perceptual",
        "face",
        "eyes",
        "transfer_l1",
        "transfer_perceptual",
        "cross_identity",
        "canonical",
    ):
        assert abs(terms[name]) < 1e-5, name


@pytest.mark.parametrize("defect, punished", [
    # A prediction compared with its source would forgive, even reward, copying it.
    ("copies the source", ("l1", "perceptual", "eyes")),
    # Cross identity between frames of one person could not see this.
    ("takes the identity of the driver", ("cross_identity",)),
    # Comparing pictures that differ in pose or dynamics anyway could not see these.
    ("expression stays in the volume", ("canonical", "transfer_l1", "transfer_perceptual")),
    ("pose leaks into the code", ("contrastive",)),
])  # fmt: skip
def test_each_defect_is_punished(defect, punished):
    good, bad = terms_of(passes_of()), terms_of(passes_of(defect))
    for name in punished:
        assert bad[name] > good[name] + 1e-2, name


def test_comparing_with_the_source_would_have_favoured_the_copier():
    scene, mask = world(), world().driver.mask
    copied, driven = passes_of("copies the source").driven, passes_of().driven
    assert weighted_l1(copied, scene.source.image, mask).max() == 0.0
    assert weighted_l1(driven, scene.source.image, mask).min() > 0.1
    assert terms_of(passes_of("copies the source"))["l1"] > 0.1


def test_the_pairing_of_transfer_consistency_that_was_shipped_elsewhere_costs_a_perfect_renderer():
    painter, scene = Painter(), world()
    z_s, z_d = (painter.dynamics(None, f.face) for f in (scene.source, scene.driver))
    of_s = painter.encode(None, scene.source.image, None, None, None)
    one = painter.decode(None, of_s, scene.driver.pose, z_s)
    two = painter.decode(None, of_s, scene.source.pose, z_d)
    assert weighted_l1(one, two, scene.source.mask).min() > 0.1
    p = passes_of()
    assert weighted_l1(p.posed, p.acted, scene.source.mask).max() < 1e-6


def test_the_other_pair_is_another_person_and_the_codes_have_their_own_negatives():
    np.testing.assert_array_equal(other(jnp.asarray(WHO)), WHO[[1, 2, 0]])
    # Positive and negative exchanged would reward codes of the wrong frame.
    p = passes_of()
    z_d, z_o = p.z_driver, other(p.z_driver)
    right = disentangle.contrastive(p.z_crossed, z_o, z_d).mean()
    assert disentangle.contrastive(p.z_crossed, z_d, z_o).mean() > right + 1.0
