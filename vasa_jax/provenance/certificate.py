"""The certificate and key that manifests are signed with.

Unless the user brings one, a certificate is made on this machine, once, and kept in
``$VASA_IDENTITY`` or ``vasa-jax/identity`` in the user's data folder, readable by the user alone.
It names nobody and nobody vouches for it: it shows that a file was not changed since it was signed,
not who signed it. Everything signed with it can be told to come from the same place; delete the
folder and the next run makes another.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

from vasa_jax.core.errors import UserError
from vasa_jax.runtime.places import data_folder, typed

YEARS = 20
NAME = "vasa_jax local signer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What signs: PEM texts, and the algorithm by C2PA's name."""

    chain: str  # the signer's certificate first
    key: str = dataclasses.field(repr=False)  # PKCS#8
    algorithm: str
    own: bool  # brought by the user, not made here


def identity_folder() -> Path:
    """Where the local certificate lives. Raises OSError when this user has no such place."""
    if chosen := os.environ.get("VASA_IDENTITY"):
        return typed(chosen)
    folder = data_folder()
    if folder is None:
        raise OSError("no home, and nothing temporary can be written; set VASA_IDENTITY")
    return folder / "identity"


def local_identity() -> Identity:
    """The certificate of this machine, made when there is none.

    Raises:
        OSError: the folder can't be written. ModuleNotFoundError: ``cryptography`` is missing.
        UserError: what is in the folder is damaged.
    """
    folder = identity_folder()
    path = folder / "identity.pem"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One file, so that no reader ever sees a key without its certificate; mkstemp makes it
        # readable by the user alone.
        number, part = tempfile.mkstemp(dir=folder, suffix=".pem")
        try:
            with os.fdopen(number, "w") as file:
                file.write(_made())
            os.link(part, path)  # unlike a rename it fails when another process was first
        except FileExistsError:
            pass
        except OSError:
            os.replace(part, path)  # file systems without links
        finally:
            Path(part).unlink(missing_ok=True)
    text = path.read_text()
    return _identity(text, text, str(path), own=False)


def own_identity(certificate: str | Path, key: str | Path) -> Identity:
    """A user's certificate chain and key from PEM files. Raises UserError."""
    texts = []
    for what, path in (("--certificate", certificate), ("--key", key)):
        try:
            texts.append(typed(path).read_text())
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no PEM text"
            raise UserError(f"{what}: can't read {path}: {reason}") from error
    return _identity(texts[0], texts[1], f"{certificate}, {key}", own=True)


def _identity(chain: str, key: str, where: str, *, own: bool) -> Identity:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{where}: no certificate and unencrypted private key in PEM ({error})"
        ) from error
    spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if certificates[0].public_key().public_bytes(*spki) != private.public_key().public_bytes(*spki):
        raise UserError(f"{where}: the key does not belong to the (first) certificate")
    pem = serialization.Encoding.PEM
    return Identity(
        chain="".join(c.public_bytes(pem).decode() for c in certificates),
        key=private.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        algorithm=_algorithm(private, where),
        own=own,
    )


def _algorithm(private: Any, where: str) -> str:
    """C2PA's name of the signature algorithm for a key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(private, ec.EllipticCurvePrivateKey):
        names = {256: "es256", 384: "es384", 521: "es512"}
        if private.curve.key_size in names:
            return names[private.curve.key_size]
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    raise UserError(f"{where}: C2PA takes keys of the kinds EC P-256/384/521, Ed25519 and RSA")


def _made() -> str:
    """A new key, its certificate, and that of the authority that signed it, as PEM.

    C2PA wants a chain (a certificate must not sign itself) and the purpose e-mail protection or
    document signing. The authority's key is forgotten at once.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    number = secrets.token_hex(4)
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)  # clocks differ
    end = begin + datetime.timedelta(days=365 * YEARS)
    authority, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def name(what: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, NAME),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{NAME} {number}{what}"),
            ]
        )

    def certificate(key: Any, what: str, *, is_authority: bool) -> x509.Certificate:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(what))
            .issuer_name(name(" authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=not is_authority, key_cert_sign=is_authority,
                    crl_sign=is_authority, **usage,
                ),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
                critical=False,
            )
        )  # fmt: skip
        if not is_authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=True
            )
        return builder.sign(authority, hashes.SHA256())

    pem = serialization.Encoding.PEM
    parts = [
        certificate(signer, "", is_authority=False).public_bytes(pem),
        certificate(authority, " authority", is_authority=True).public_bytes(pem),
        signer.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    ]  # fmt: skip
    return b"".join(parts).decode()
