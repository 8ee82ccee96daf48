import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.diffusion import guidance, samplers, times
from vasa_jax.diffusion.schedules import Cosine


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


def test_each_number_of_an_output_may_have_a_scale_of_its_own():
    full = np.array([[[1.0, 2.0, 3.0]]])
    without = np.array([[[0.5, 1.0, 5.0]]])
    out = jnp.concatenate([jnp.asarray(full), jnp.asarray(without)])
    scales = {"audio": jnp.array([[[0.0, 2.0, 0.5]]])}
    got = guidance.combine(out, ("audio",), scales)
    np.testing.assert_allclose(got, [[[1.0, 2.0 + 2.0 * 1.0, 3.0 + 0.5 * -2.0]]])
    low, high = jnp.float32(0.2), jnp.float32(0.8)
    now = guidance.scales_at(scales, jnp.float32(0.9), (low, high))
    np.testing.assert_allclose(guidance.combine(out, ("audio",), now), full)


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


def guided(x, t, scales, interval, names=("audio", "gaze")):
    """A denoiser with an interval, as a caller writes it."""
    keep = guidance.branch_keep(names, x.shape[0])
    out = network(guidance.repeat_branches(x, 1 + len(names)), keep)
    return guidance.combine(out, names, guidance.scales_at(scales, t, interval))


def by_hand(x, t, scales, interval, names=("audio", "gaze")):
    """Equation 2, one example and one branch at a time; outside the interval the plain network."""
    rows = []
    for b in range(x.shape[0]):
        row = x[b : b + 1]
        time, low, high = (float(np.broadcast_to(v, (x.shape[0],))[b]) for v in (t, *interval))
        every = {n: jnp.ones(1, bool) for n in names}
        full = network(row, every)
        result = full
        if low <= time <= high:
            lam = {n: float(np.broadcast_to(scales[n], (x.shape[0],))[b]) for n in names}
            result = (1 + sum(lam.values())) * full - sum(
                lam[n] * network(row, {**every, n: jnp.zeros(1, bool)}) for n in names
            )
        rows.append(result)
    return jnp.concatenate(rows)


def test_an_interval_guides_inside_and_nowhere_else():
    x = jax.random.normal(jax.random.key(0), (3, 5))
    scales = {"audio": jnp.float32(0.5), "gaze": jnp.array([0.5, 1.0, 2.0])}
    everywhere = (jnp.float32(0.2), jnp.float32(0.7))
    per_stream = (jnp.array([0.0, 0.2, 0.5]), jnp.array([1.0, 0.4, 0.7]))
    for interval in (everywhere, per_stream):
        for t in (0.0, 0.1, 0.2, 0.3, 0.7, 0.71, 1.0):
            time = jnp.float32(t)
            got = guided(x, time, scales, interval)
            np.testing.assert_allclose(
                got, by_hand(x, time, scales, interval), rtol=1e-5, atol=1e-5
            )
    moments = jnp.array([0.1, 0.3, 0.9])  # a time per stream
    np.testing.assert_allclose(
        guided(x, moments, scales, per_stream), by_hand(x, moments, scales, per_stream), atol=1e-5
    )


def test_the_whole_interval_is_plain_guidance_and_outside_is_the_plain_network():
    x = jax.random.normal(jax.random.key(0), (3, 5))
    names, scales = ("audio", "gaze"), {"audio": jnp.float32(0.5), "gaze": jnp.float32(1.5)}
    every = {n: jnp.ones(3, bool) for n in names}
    out = network(guidance.repeat_branches(x, 3), guidance.branch_keep(names, 3))
    whole = (jnp.float32(0.0), jnp.float32(1.0))
    for t in (0.0, 0.5, 1.0):
        np.testing.assert_array_equal(
            guided(x, jnp.float32(t), scales, whole), guidance.combine(out, names, scales)
        )
    nowhere = (jnp.float32(0.4), jnp.float32(0.3))
    got = guided(x, jnp.float32(0.35), scales, nowhere)
    np.testing.assert_allclose(got, network(x, every), rtol=1e-6)


def test_changing_scales_or_interval_of_a_whole_sampling_does_not_recompile():
    schedule, count = Cosine(), 0

    @jax.jit
    def run(x, scales, interval):
        nonlocal count
        count += 1
        return samplers.sample(
            samplers.SAMPLERS["ddim"], schedule,
            lambda x, t: guided(x, t, scales, interval), x, times.uniform(schedule, 4),
        )  # fmt: skip

    x, results = jax.random.normal(jax.random.key(0), (3, 5)), []
    for scale, low, high in ((0.0, 0.0, 1.0), (0.5, 0.0, 1.0), (0.5, 0.3, 0.8), (0.5, 0.9, 0.8)):
        scales = {"audio": jnp.float32(scale), "gaze": jnp.full(3, 0.1)}
        results.append(run(x, scales, (jnp.float32(low), jnp.float32(high))))
    assert count == 1
    assert all(np.abs(a - b).max() > 1e-6 for a, b in zip(results, results[1:], strict=False))
