"""The configuration that a command works on: a file and changes to single values of it."""

from __future__ import annotations

import argparse
from typing import Any


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The option ``--set``, for ``configured``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="change one value of the configuration, as in optim.lr=1e-4; may be repeated",
    )


def configured(args: argparse.Namespace) -> Any:
    """``args.config``, FILE.py[:VARIANT], with the values of ``--set``."""
    from vasa_jax.core.config import load_config, override

    return override(load_config(args.config), args.settings)
