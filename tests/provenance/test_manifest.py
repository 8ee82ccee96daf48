from __future__ import annotations

import os
import stat
import subprocess
import sys
import types

import numpy as np
import pytest

from vasa_jax.core.errors import UserError
from vasa_jax.io.image import write_image
from vasa_jax.io.video import VideoWriter
from vasa_jax.provenance import certificate as identities
from vasa_jax.provenance.certificate import local_identity, own_identity
from vasa_jax.provenance.consent import checked_consent
from vasa_jax.provenance.manifest import Claim, SigningFailed, read_manifest, sign

pytest.importorskip("c2pa")
CLAIM = Claim(
    release="tiny",
    release_sha256="ab" * 32,
    version="0",
    settings={"seed": 3},
    consent="Zoë agreed",
)


@pytest.fixture
def identity(tmp_path, monkeypatch):
    monkeypatch.setenv("VASA_IDENTITY", str(tmp_path / "identity"))
    return local_identity()


def _video(path):
    with VideoWriter(path, size=(48, 48)) as writer:
        for i in range(10):
            writer.write(np.full((48, 48, 3), 20 * i, np.uint8))
    return path


def _flipped(path, index):
    data = bytearray(path.read_bytes())
    data[index] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.jpg", "a.webp"])
def test_what_is_signed_is_valid_and_one_changed_bit_shows(name, tmp_path, identity):
    path = tmp_path / name
    if name == "a.mp4":
        _video(path)
    else:
        write_image(path, np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8))
    assert read_manifest(path).state == "absent"
    sign(path, CLAIM, identity)
    verdict = read_manifest(path)
    assert verdict.state == "valid" and verdict.ours and verdict.synthetic
    assert verdict.generator == "vasa_jax" and not verdict.problems
    said = verdict.generation
    assert (said["release_sha256"], said["settings"], said["consent"]) == (
        "ab" * 32, {"seed": 3}, "Zoë agreed",
    )  # fmt: skip
    _flipped(path, -20)  # the last bytes are pictures, or the index of the sound
    assert read_manifest(path).state == "tampered"
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "identity"]


def test_a_file_that_cannot_be_signed_stays_as_it_was(tmp_path, identity, monkeypatch):
    path = tmp_path / "a.mkv"
    path.write_bytes(b"whatever")
    with pytest.raises(SigningFailed, match="no manifests in .mkv"):
        sign(path, CLAIM, identity)
    broken = path.rename(tmp_path / "a.mp4")
    with pytest.raises(SigningFailed):
        sign(broken, CLAIM, identity)
    with monkeypatch.context() as full:
        usage = types.SimpleNamespace(free=4096)
        full.setattr("vasa_jax.provenance.manifest.shutil.disk_usage", lambda folder: usage)
        with pytest.raises(SigningFailed, match="the disk is full"):
            sign(broken, CLAIM, identity)
    assert broken.read_bytes() == b"whatever"
    video = _video(tmp_path / "b.mp4")
    before = video.read_bytes()
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(SigningFailed, match="not installed"):
        sign(video, CLAIM, identity)
    assert video.read_bytes() == before and read_manifest(video).state == "unknown"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "identity"]


def test_the_local_key_is_made_once_and_for_the_user_alone(tmp_path, identity):
    assert local_identity() == identity and not identity.own
    (file,) = (tmp_path / "identity").iterdir()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(file.parent).st_mode) == 0o700
    assert "PRIVATE" not in repr(identity)
    if subprocess.run(["openssl", "version"], capture_output=True, check=False).returncode == 0:
        # Somebody else's opinion of the chain: the second certificate signed the first.
        chain = identity.chain.partition("-----END CERTIFICATE-----\n")
        leaf, authority = tmp_path / "leaf.pem", tmp_path / "authority.pem"
        leaf.write_text(chain[0] + chain[1])
        authority.write_text(chain[2])
        subprocess.run(["openssl", "verify", "-CAfile", authority, leaf], check=True)
    file.write_text("damaged")
    with pytest.raises(UserError, match="no certificate"):
        local_identity()


def test_a_certificate_of_ones_own(tmp_path, identity):
    certificate, key, other = tmp_path / "c.pem", tmp_path / "k.pem", tmp_path / "other.pem"
    certificate.write_text(identity.chain)
    key.write_text(identity.key)
    other.write_text(identities._made())
    mine = own_identity(certificate, key)
    assert mine.own and mine.algorithm == "es256"
    path = _video(tmp_path / "a.mp4")
    sign(path, CLAIM, mine)
    assert read_manifest(path).state == "valid"
    with pytest.raises(UserError, match="does not belong"):
        own_identity(certificate, other)
    with pytest.raises(UserError, match="can't read"):
        own_identity(certificate, tmp_path / "none.pem")
    with pytest.raises(UserError, match="no certificate"):
        own_identity(path.with_name("k.pem"), key)


def test_consent_is_an_answer_in_one_line():
    assert checked_consent("  a picture\n of\tmyself ") == "a picture of myself"
    for nothing in ("", " \n", "?", "!!!!", "x", "y" * 301):
        with pytest.raises(UserError):
            checked_consent(nothing)
