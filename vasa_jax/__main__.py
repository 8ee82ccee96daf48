"""The program ``vasa-jax``, also as ``python -m vasa_jax``."""

from __future__ import annotations

import sys

from vasa_jax.runtime import stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

ENDED_BY_SIGNAL = (129, 130, 143)  # 128 and the numbers of SIGHUP, SIGINT, SIGTERM


def program() -> NoReturn:
    """Runs the command line and ends the process; it can be interrupted from the first line on."""
    stopping.listen()
    try:
        from vasa_jax.cli.main import main

        status = main()
    except BaseException as error:
        # Whatever a library makes of an interruption, that is what it was.
        if (asked := stopping.heard()) is not None:
            stopping.end(asked)
        if isinstance(error, SystemExit) and error.code in ENDED_BY_SIGNAL:
            stopping.end(error.code)
        raise
    asked = stopping.heard() or status
    if asked in ENDED_BY_SIGNAL:
        stopping.end(asked)
    sys.exit(status)


if __name__ == "__main__":
    program()
