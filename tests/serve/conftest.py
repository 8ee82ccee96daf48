"""One tiny release for all tests of the server: its programs are compiled once."""

import pytest

from tests.generate.tiny_release import tiny_release
from vasa_jax.checkpoint.release import load_release


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    return load_release(tiny_release(tmp_path_factory.mktemp("release") / "tiny"))
