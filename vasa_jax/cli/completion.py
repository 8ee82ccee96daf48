"""``vasa-jax completion``: the Tab key in bash, zsh and fish.

The shell calls ``vasa-jax`` itself for each answer (argcomplete), so that what it offers is what
this version has. Only the verb that stands in the line is imported.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from vasa_jax.cli import paths

SHELLS = ("bash", "zsh", "fish")
DESCRIPTION = """\
Print what makes a shell complete verbs, options, their values and names of files with the Tab key.
"""
EPILOG = """\
for this shell only:
  eval "$(vasa-jax completion bash)"             bash, zsh
  vasa-jax completion fish | source              fish

for every new shell:
  vasa-jax completion bash > ~/.local/share/bash-completion/completions/vasa-jax
  echo 'eval "$(vasa-jax completion zsh)"' >> ~/.zshrc        (after compinit)
  vasa-jax completion fish > ~/.config/fish/completions/vasa-jax.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("shell", choices=SHELLS, help="which shell")


def run(args: argparse.Namespace) -> int:
    import argcomplete

    print(argcomplete.shellcode(["vasa-jax"], shell=args.shell))
    return 0


def answer(parser_of: Callable[[str | None], argparse.ArgumentParser]) -> None:
    """Offers what fits the line that a shell has put into the environment, and exits."""
    import argcomplete

    line, point = os.environ.get("COMP_LINE", ""), os.environ.get("COMP_POINT", "")
    before = line[: int(point)] if point.isdigit() else line
    words = before.split()[1:]
    if before and not before[-1].isspace():
        words = words[:-1]  # it is being written, and may be a verb that is not whole yet
    parser = parser_of(next((word for word in words if not word.startswith("-")), None))
    for action, kind in paths.arguments(parser):
        completer = _completer(action, kind)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def _completer(action: argparse.Action, kind: str) -> Any:
    """What offers values of an argument; None: argcomplete's own, its choices or files."""
    from argcomplete.completers import ChoicesCompleter, DirectoriesCompleter

    if action.choices is not None or kind == "file":
        return None
    if kind == "folder":
        return DirectoriesCompleter()
    return ChoicesCompleter({})  # numbers and words: nothing is better than names of files
