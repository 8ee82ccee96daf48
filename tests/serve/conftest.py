"""One tiny release for all tests of the server; its programs are compiled in no test's time."""

import jax
import pytest

from tests.face.drawn_face import drawn_face
from tests.generate.tiny_release import tiny_release
from tests.serve.serving import CFG
from vasa_jax.checkpoint.release import load_release
from vasa_jax.serve.server import LiveServer

LOOSE = {"jax_numpy_rank_promotion": "allow", "jax_numpy_dtype_promotion": "standard"}


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    # As the fixture "broadcasting", which is of a module, allows it: in all threads.
    strict = {name: getattr(jax.config, name) for name in LOOSE}
    for name, value in LOOSE.items():
        jax.config.update(name, value)
    try:
        made = load_release(tiny_release(tmp_path_factory.mktemp("release") / "tiny"))
        LiveServer(CFG, made).prepare(drawn_face(200))
        return made
    finally:
        for name, value in strict.items():
            jax.config.update(name, value)
