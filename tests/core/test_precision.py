from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from vasa_jax.core import precision
from vasa_jax.core.config import from_json
from vasa_jax.core.errors import UserError
from vasa_jax.core.shapes import Array, Float, typed
from vasa_jax.runtime import compile_cache


def test_only_floating_arrays_change_dtype() -> None:
    tree = {"w": jnp.ones(2), "i": jnp.arange(2), "key": jax.random.key(0), "f": 1.5}
    low = precision.Precision(params="bfloat16").to_params(tree)
    assert low["w"].dtype == jnp.bfloat16 and low["i"].dtype == jnp.int32 and low["f"] == 1.5
    assert jnp.issubdtype(low["key"].dtype, jax.dtypes.prng_key)


def test_settings_that_are_no_more_do_not_make_a_saved_configuration_unreadable() -> None:
    saved = {"params": "float32", "compute": "bfloat16", "stats": "float32", "matmul": "default"}
    assert from_json(precision.Precision, saved) == precision.BF16
    with pytest.raises(UserError, match="did you mean 'compute'"):
        from_json(precision.Precision, {"computes": "float32"})


@typed
def scale(x: Float[Array, "b t m"], s: Float[Array, " b"]) -> Float[Array, "b t m"]:
    return x * s[:, None, None]


def test_typed_accepts_numpy_and_jax_and_names_a_wrong_shape() -> None:
    scale(np.ones((2, 3, 4), np.float32), np.ones(2, np.float32))
    jax.jit(scale)(jnp.ones((2, 3, 4)), jnp.ones(2))
    with pytest.raises(TypeCheckError):
        scale(jnp.ones((2, 3, 4)), jnp.ones(3))
    with pytest.raises(TypeCheckError):
        scale(jnp.ones((2, 3)), jnp.ones(2))


def test_cache_follows_the_environment(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VASA_CACHE", "off")
    assert compile_cache.cache_dir() is None and compile_cache.enable() is None
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "c"))
    assert compile_cache.cache_dir() == tmp_path / "c"
    before = jax.config.jax_compilation_cache_dir
    try:
        assert compile_cache.enable() == tmp_path / "c" / "xla"
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "c" / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VASA_CACHE", str(tmp_path / "file"))
    assert compile_cache.enable() is None
