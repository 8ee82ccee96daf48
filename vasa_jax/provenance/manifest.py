"""C2PA manifests: a signed statement inside the file that it is synthetic, and by what.

    sign(path, Claim(release="lite", release_sha256=..., settings={...}, consent="..."), identity)
    read_manifest(path).state                    # "valid", "tampered", "absent" or "unknown"

The statement (https://c2pa.org, specification 2) says that the file was *created* by this software
with the digital source type *trainedAlgorithmicMedia*, and carries the release's hash, the settings
and the consent. The signature covers the whole file: any change makes it invalid; leaving the
manifest out (a re-muxed or re-encoded file has none) is what the invisible mark is for. No network
is used: no time stamping, no trust list, no remote manifests.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from vasa_jax.provenance.certificate import Identity
from vasa_jax.runtime import unfinished

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
GENERATOR = "vasa_jax"
LABEL = "org.vasa-jax.generation"
MIME = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".gif": "image/gif",
}
FULL_BYTES = 1 << 16  # left on a disk that a manifest did not fit on any more
_SETTINGS = {"verify": {"ocsp_fetch": False, "remote_manifest_fetch": False, "verify_trust": False}}

State = Literal["valid", "tampered", "absent", "unknown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """What the manifest says."""

    release: str
    release_sha256: str
    version: str  # of this software
    settings: dict[str, Any]  # JSON: seed, sampler, controls ...
    consent: str | None = None
    mark: dict[str, Any] | None = None  # the invisible mark's payload

    def to_json(self) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"synthetic": True, "time": now, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManifestVerdict:
    """What a file's manifest is worth."""

    state: State
    generator: str | None = None  # the software that claims to have made it
    synthetic: bool | None = None  # what the manifest says of the source; None: nothing
    generation: dict[str, Any] | None = None  # our own statement, see ``Claim``
    signer: str | None = None  # the name in the certificate, which nobody has checked
    problems: tuple[str, ...] = ()  # C2PA's codes of what does not fit

    @property
    def ours(self) -> bool:
        """Whether it says that this software made the file."""
        return self.generation is not None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"ours": self.ours}


class SigningFailed(Exception):
    """The file stays as it was; the message says why in one line."""


def sign(path: str | Path, claim: Claim, identity: Identity) -> None:
    """Puts a signed manifest into a finished file; until that succeeds the file is left alone.

    Raises SigningFailed.
    """
    file = Path(path)
    mime = MIME.get(file.suffix.lower())
    if mime is None:
        raise SigningFailed(f"there are no manifests in {file.suffix or 'nameless'} files")
    part = unfinished.name_for(file)
    try:
        import c2pa

        info = c2pa.C2paSignerInfo(
            identity.algorithm, identity.chain.encode(), identity.key.encode(), None
        )
        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder.from_json(_definition(file, mime, claim), context) as builder,
            open(file, "rb") as source,
            open(part, "w+b") as target,
        ):
            builder.sign(signer, mime, source, target)
        os.replace(part, file)
    except ModuleNotFoundError as error:
        raise SigningFailed(f"{error.name} is not installed (pip install c2pa-python)") from error
    except OSError as error:
        raise SigningFailed(str(error.strerror or error)) from error
    except Exception as error:  # whatever the library raises, the file is more than its label
        if shutil.disk_usage(file.parent).free < FULL_BYTES:  # which the library does not say
            raise SigningFailed("the disk is full") from error
        raise SigningFailed(" ".join(str(error).split())[:300]) from error
    finally:
        unfinished.settled(part)


def read_manifest(path: str | Path) -> ManifestVerdict:
    """The verdict on a file's own manifest; never raises for what is inside the file."""
    file = Path(path)
    mime = MIME.get(file.suffix.lower())
    try:
        import c2pa
    except ModuleNotFoundError:
        return ManifestVerdict(state="unknown", problems=("c2pa-python is not installed",))
    try:
        with c2pa.Context.from_dict(_SETTINGS) as context, open(file, "rb") as stream:
            reader = (
                c2pa.Reader.try_create(stream, context=context)
                if mime is None
                else c2pa.Reader.try_create(mime, stream, None, context)
            )
            if reader is None:
                return ManifestVerdict(state="absent")
            with reader:
                return _verdict(json.loads(reader.json()))
    except c2pa.C2paError as error:
        text = " ".join(str(error).split())
        # A container that cannot hold a manifest holds none.
        if any(word in text for word in ("NotSupported", "UnsupportedType", "unsupported type")):
            return ManifestVerdict(state="absent")
        return ManifestVerdict(state="tampered", problems=(text[:200],))


def _definition(file: Path, mime: str, claim: Claim) -> str:
    agent = {"name": GENERATOR, "version": claim.version}
    created = {
        "action": "c2pa.created",
        "softwareAgent": agent,
        "digitalSourceType": SOURCE_TYPE,
    }
    return json.dumps(
        {
            "claim_generator_info": [agent],
            "title": file.name,
            "format": mime,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [created]}},
                {"label": LABEL, "data": claim.to_json()},
            ],
        }
    )


def _verdict(store: dict[str, Any]) -> ManifestVerdict:
    active = store.get("manifests", {}).get(store.get("active_manifest"), {})
    assertions = {a.get("label", ""): a.get("data") for a in active.get("assertions", [])}
    actions = next((v for k, v in assertions.items() if k.startswith("c2pa.actions")), None) or {}
    sources = [a.get("digitalSourceType") or "" for a in actions.get("actions", [])]
    generators = active.get("claim_generator_info") or [{}]
    results = (store.get("validation_results") or {}).get("activeManifest") or {}
    codes = tuple(dict.fromkeys(f.get("code", "") for f in results.get("failure", [])))
    # That nobody vouches for a local certificate is no sign of tampering.
    codes = tuple(c for c in codes if c != "signingCredential.untrusted")
    good = store.get("validation_state") in ("Valid", "Trusted")
    synthetic = any("lgorithmicMedia" in source for source in sources)
    ours = assertions.get(LABEL)
    return ManifestVerdict(
        state="valid" if good else "tampered",
        generator=generators[0].get("name") or active.get("claim_generator"),
        synthetic=synthetic if any(sources) else None,
        generation=ours if isinstance(ours, dict) else None,
        signer=(active.get("signature_info") or {}).get("common_name"),
        problems=codes if not good else (),
    )
