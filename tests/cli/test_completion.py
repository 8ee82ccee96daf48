"""The Tab key, in a bash that has read what ``vasa-jax completion bash`` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vasa_jax.cli.completion import SHELLS
from vasa_jax.cli.main import VERBS, main

# What bash sets when the Tab key is pressed at the end of a line; prints what it would offer.
PRESS = """
eval "$(vasa-jax completion bash)"
while IFS= read -r line; do
  COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMPREPLY=()
  read -ra COMP_WORDS <<<"$line"; [[ $line == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _python_argcomplete vasa-jax
  (IFS='|'; echo "${COMPREPLY[*]}")
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_offers_verbs_options_values_and_files(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "vasa-jax").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vasa_jax "$@"\n')
    (programs / "vasa-jax").chmod(0o755)
    (tmp_path / "here" / "faces").mkdir(parents=True)
    (tmp_path / "here" / "face.jpg").write_text("x")
    lines = {
        "vasa-jax ": set(VERBS),
        "vasa-jax gen": {"generate"},
        "vasa-jax generate --se": {"--seed"},
        "vasa-jax generate --frame ": {"full", "crop"},
        "vasa-jax generate fa": {"faces/", "face.jpg"},
        "vasa-jax generate --seed ": set(),
        "vasa-jax evaluate talk --portraits fa": {"faces/"},
        "vasa-jax release build --fa": {"--face"},
        "vasa-jax completion ": set(SHELLS),
    }
    root = str(Path(__file__).parents[2])
    ended = subprocess.run(
        ["bash", "--norc", "-c", PRESS], input="\n".join(lines) + "\n", text=True,
        capture_output=True, cwd=tmp_path / "here",
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": root},
    )  # fmt: skip
    offered = [
        {word.strip() for word in line.split("|") if word} for line in ended.stdout.splitlines()
    ]
    assert dict(zip(lines, offered, strict=True)) == lines, ended.stderr


def test_every_shell_gets_its_script(capsys: pytest.CaptureFixture) -> None:
    for shell in SHELLS:
        assert main(["completion", shell]) == 0
        assert "vasa-jax" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["completion", "another"])
