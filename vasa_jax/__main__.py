"""The program ``vasa-jax``, also as ``python -m vasa_jax``."""

from __future__ import annotations

import sys

from vasa_jax.core import stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130  # 128 and the number of SIGINT


def program() -> NoReturn:
    """Runs the command line and ends the process; it can be interrupted from the first line on."""
    stopping.listen()
    try:
        from vasa_jax.cli.main import main

        status = main()
    except BaseException:
        # Whatever a library makes of an interruption, that is what it was.
        if (asked := stopping.heard()) is not None:
            stopping.end(asked)
        raise
    if stopping.heard() is not None or status == INTERRUPTED:
        stopping.end(stopping.heard() or status)
    sys.exit(status)


if __name__ == "__main__":
    program()
