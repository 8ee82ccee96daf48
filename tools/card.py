"""What every benchmark card says in the same way: the commit, and how it is written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """Short name of the checked-out commit, or "unknown"."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(folder: str | Path, stem: str, text: str, card: dict[str, Any]) -> None:
    """``STEM.md`` and ``STEM.json``, under a temporary name first; prints their paths."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for ending, content in ((".md", text), (".json", json.dumps(card, indent=1) + "\n")):
        part = out / f".{stem}{ending}.part"
        part.write_text(content)
        part.replace(out / f"{stem}{ending}")
        print(out / f"{stem}{ending}")
