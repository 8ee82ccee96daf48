"""Settings of every test: CPU unless told otherwise, no implicit broadcasting or promotion.

``VASA_TEST_PLATFORM=gpu`` runs on another device. Environment variables are set before JAX is
imported anywhere.
"""

from __future__ import annotations

import os
import tempfile

os.environ["JAX_PLATFORMS"] = os.environ.get("VASA_TEST_PLATFORM", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ["VASA_CACHE"] = "off"  # a test must not depend on what an earlier run compiled
# Certificates that tests make stay out of the user's data folder.
os.environ["VASA_IDENTITY"] = tempfile.mkdtemp(prefix="vasa-identity-")

import jax
import pytest

# Silent broadcasting between ranks, and silent widening of dtypes, hide the commonest mistakes.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def quickly_compiled():
    """Programs that run a few times: what compiling saves them is less than what it costs.

    Not where bits are compared between programs, or what a program costs is counted.
    """
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def broadcasting():
    """Geometry and the face nets broadcast by rank, and mix bool masks with floats.

    Set for the whole process, because the renderer's threads must see it, too.
    """
    names = ("jax_numpy_rank_promotion", "jax_numpy_dtype_promotion")
    strict = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, ("allow", "standard"), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, strict, strict=True):
        jax.config.update(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped where there is none."""
    if all(item.get_closest_marker("gpu") is None for item in items):
        return
    if jax.default_backend() == "cpu":
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))
