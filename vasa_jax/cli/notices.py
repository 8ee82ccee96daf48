"""What the user should know of the input: a line each on stderr, and a list for ``--json``."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from vasa_jax.core.errors import InputWarning


@contextlib.contextmanager
def input_warnings(program: str) -> Iterator[list[str]]:
    """Prints every ``InputWarning`` raised inside as one line; the list grows with their texts.

    Each text is told once. Other warnings go their usual way.
    """
    told: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, InputWarning):
                usual(message, category, filename, lineno, file, line)
                return
            text = " ".join(str(message).split())
            if text not in told:
                told.append(text)
                print(f"{program}: warning: {text}", file=sys.stderr, flush=True)

        warnings.showwarning = show
        yield told
