"""Which arguments of a command are files or folders, by the word that its help has for them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator

from vasa_jax.runtime.places import typed

# PORTRAIT, OUT.mp4, NAME|DIR|URL, FILE.py[:VARIANT] ...; without a word of its own, the option's.
_FILES = re.compile(r"\b(FILE|PNG|PEM|OUT|PATH|PORTRAIT|SPEECH)\b")
_FOLDERS = re.compile(r"\b(RUN)?DIR\b")


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.Action, str]]:
    """Every argument of a parser and of those below it, with "file", "folder" or ""."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from arguments(below)
        elif action.nargs != 0 and action.choices is None:
            word = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            folder = bool(_FOLDERS.search(word))
            yield action, "folder" if folder else "file" if _FILES.search(word) else ""
        else:
            yield action, ""


def as_typed(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Replaces names of files and folders in ``args`` by what they mean (``runtime/places.py``)."""
    for action, kind in arguments(parser):
        value = getattr(args, action.dest, None)
        if not kind or not value:
            continue
        if isinstance(value, str):
            setattr(args, action.dest, os.fspath(typed(value)))
        elif isinstance(value, list):
            setattr(args, action.dest, [os.fspath(typed(x)) for x in value])
