"""Signing what a command wrote; a file is never lost for want of its label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vasa_jax.cli.main import version
from vasa_jax.core.errors import UserError
from vasa_jax.provenance.certificate import Identity, local_identity, own_identity


class Signing:
    """The certificate of a run, looked at before the work begins.

    A user's own that can't be used raises UserError at once; a missing package, or a data folder
    that can't be written, only leaves the files unsigned.
    """

    def __init__(self, certificate: str | None = None, key: str | None = None):
        if bool(certificate) != bool(key):
            raise UserError("--certificate and --key belong together")
        self._identity: Identity | None = None
        self._problem = ""
        try:
            self._identity = own_identity(certificate, key) if certificate and key else None
            self._identity = self._identity or local_identity()
        except ModuleNotFoundError as error:
            self._problem = f"{error.name} is not installed (pip install c2pa-python cryptography)"
        except OSError as error:
            self._problem = f"no place for a certificate ({error})"
        except UserError as error:
            if certificate:
                raise
            self._problem = str(error)

    def sign(
        self,
        paths: Sequence[str],
        *,
        release: Any,
        consent: str | None,
        mark: dict[str, Any] | None,
        settings: dict[str, Any],
    ) -> tuple[list[str], str]:
        """Signs finished files; those that were, and why others were not ("": none)."""
        from vasa_jax.provenance.manifest import Claim, SigningFailed, sign

        if self._identity is None:
            return [], self._problem
        claim = Claim(
            release=release.name, release_sha256=release.sha256, version=version(),
            settings=settings, consent=consent, mark=mark,
        )  # fmt: skip
        signed, problem = [], ""
        for path in paths:
            try:
                sign(path, claim, self._identity)
                signed.append(path)
            except SigningFailed as error:
                problem = f"{path}: {error}"
        return signed, problem
