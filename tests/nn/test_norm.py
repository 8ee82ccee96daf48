"""Our norms against flax and their formulas."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vasa_jax.nn.norm import GroupNorm, LowRankGroupNorm


def test_group_norm_equals_flax():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 12)), jnp.float32)
    ours, theirs = GroupNorm(groups=4), nn.GroupNorm(num_groups=4, epsilon=1e-5)
    params = ours.init(jax.random.key(0), x)
    np.testing.assert_allclose(
        ours.apply(params, x), theirs.apply({"params": params["params"]}, x), atol=3e-6
    )


def test_low_rank_group_norm_is_its_formula():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)  # B Z Y X C
    code = rng.normal(size=(2, 4, 7)).astype(np.float32)  # B L D
    params = {
        "rows": rng.normal(size=(7, 6)), "columns": rng.normal(size=(4, 2)),
        "scale": rng.normal(size=6), "bias": rng.normal(size=6),
    }  # fmt: skip
    out = LowRankGroupNorm(groups=3).apply(
        {"params": {k: jnp.asarray(v, jnp.float32) for k, v in params.items()}}, x, code
    )
    # [dgain, dbias] = U E V with E (D, L) the code of one example, written out in numpy.
    for b in range(2):
        change = params["rows"].T @ code[b].T @ params["columns"]  # (C, 2)
        groups = x[b].reshape(3, 4, 5, 3, 2)
        mean = groups.mean((0, 1, 2, 4), keepdims=True)
        deviation = np.sqrt(groups.var((0, 1, 2, 4), keepdims=True) + 1e-5)
        normal = ((groups - mean) / deviation).reshape(x[b].shape)
        want = normal * (params["scale"] + change[:, 0]) + params["bias"] + change[:, 1]
        np.testing.assert_allclose(out[b], want, atol=2e-4)
