import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.diffusion import guidance


def network(x, keep):
    """A stand-in whose answer depends on which conditions it may see."""
    bonus = sum((i + 2.0) * k.astype(x.dtype)[:, None] for i, k in enumerate(keep.values()))
    return jnp.tanh(x) * (1.0 + bonus) + x**2 * bonus


def test_batched_guidance_equals_equation_2_branch_by_branch():
    names, batch = ("audio", "gaze", "emotion"), 3
    scales = {"audio": jnp.float32(0.5), "gaze": jnp.array([0.0, 1.0, 2.0]), "emotion": 0.25}
    x = jax.random.normal(jax.random.key(0), (batch, 5))
    out = network(guidance.repeat_branches(x, 1 + len(names)), guidance.branch_keep(names, batch))
    got = guidance.combine(out, names, scales)

    every = {n: jnp.ones(batch, bool) for n in names}
    full = network(x, every)
    total = sum(jnp.broadcast_to(jnp.asarray(scales[n]), (batch,)) for n in names)
    expected = (1 + total)[:, None] * full
    for n in names:
        lam = jnp.broadcast_to(jnp.asarray(scales[n]), (batch,))[:, None]
        expected = expected - lam * network(x, {**every, n: jnp.zeros(batch, bool)})
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_no_guided_condition_is_the_plain_network():
    x = jnp.ones((2, 3))
    assert guidance.branch_keep((), 2) == {}
    np.testing.assert_array_equal(guidance.combine(x, (), {}), x)


def test_changing_scales_does_not_recompile():
    count = 0

    @jax.jit
    def run(x, scales):
        nonlocal count
        count += 1
        keep = guidance.branch_keep(("audio",), x.shape[0])
        return guidance.combine(network(guidance.repeat_branches(x, 2), keep), ("audio",), scales)

    for value in (0.0, 0.5, 2.0):
        run(jnp.ones((2, 3)), {"audio": jnp.float32(value)})
    assert count == 1
