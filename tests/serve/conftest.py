"""One tiny release for all tests of the server: its programs are compiled once."""

import jax
import pytest

from tests.generate.tiny_release import tiny_release
from vasa_jax.checkpoint.release import load_release


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "tiny"
    # As the fixture "broadcasting", which is of a module, allows it.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return load_release(tiny_release(folder))
