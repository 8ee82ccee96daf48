"""``vasa-jax VERB ...``: finds the verb's file, turns user errors into one line.

A verb is a module ``vasa_jax.cli.<verb>`` with ``add_arguments(parser)`` and ``run(args) -> int |
None``. Only the verb that was asked for is imported, so ``--help`` does not wait for JAX.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from vasa_jax.cli import paths
from vasa_jax.cli.notices import input_warnings
from vasa_jax.cli.optional import EXTRA_OF, install
from vasa_jax.core.errors import UserError
from vasa_jax.runtime import compile_cache, stopping
from vasa_jax.runtime.allocator import keep_freed_memory

PROGRAM = "vasa-jax"
VERBS = {
    "generate": "a portrait and speech in, a talking face out",
    "verify": "say whether a video or picture carries our mark and an intact manifest",
    "serve": "talk live: a page for the browser and a protocol for programs",
    "prepare": "turn videos of people into clips that both stages are trained on",
    "encode": "turn prepared clips into the motion that stage 2 is trained on",
    "train": "train a stage from a configuration file",
    "finetune": "train a release on with one person's clips",
    "synth": "render synthetic talking heads with their ground truth",
    "evaluate": "measure generated videos: identity, lip-sync, blinks, motion",
    "bench": "measure speed here, end to end: offline, live, starts, and how fast it could be",
    "inspect": "count the parameters (and FLOPs) of a configuration's model",
    "release": "turn a training run into a release",
    "check": "say what is installed and where, which devices and codecs work, what is missing",
    "completion": "print what makes a shell complete these commands with the Tab key",
}
# Not synth: its workers are forked, which JAX's threads would not survive. Nor serve, which takes
# its port before it takes the time to import JAX.
USES_JAX = ("generate", "prepare", "encode", "train", "finetune", "inspect", "evaluate", "bench")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 good, 2 bad input, 130 interrupted.

    The program is ``vasa_jax/__main__.py``, which also hears signals while this waits for XLA.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if "_ARGCOMPLETE" in os.environ:
        from vasa_jax.cli import completion

        completion.answer(_parser)
    verb = next((word for word in argv if not word.startswith("-")), None)
    parser = _parser(verb)
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return 2
    paths.as_typed(parser, args)
    # A file's name may be no text; it is told, with what can't be printed written out.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    previous = _stop_on_sigterm()
    try:
        if args.verb in USES_JAX:
            keep_freed_memory()
            compile_cache.enable()
        with input_warnings(PROGRAM) as args.warnings:  # a list, for what the verb reports
            return int(args.run(args) or 0)
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        if stopping.heard() is None:  # else it was told when it was heard
            print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left; Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _fail(f"{error.name} is missing; install it with: {install(extra)}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"the disk is full{where}; free some space or write elsewhere")
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


def _parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser; only ``verb`` has its own arguments, the others just their line of help."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="One portrait and a speech signal in, a talking face out."
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    for name, line in VERBS.items():
        command = commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.")
        if name == verb:
            module = importlib.import_module(f"vasa_jax.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


class _Version(argparse.Action):
    """Prints the version; reads the package's metadata only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str):
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        print(f"{PROGRAM} {version()}")
        parser.exit()


def version() -> str:
    """Version of the installed package."""
    from importlib import metadata

    try:
        return metadata.version("vasa-jax")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _fail(message: str) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _stop_on_sigterm() -> signal._HANDLER | None:
    """A terminated process unwinds, so that no half-written file stays behind."""
    if stopping.is_listening():
        return None

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    try:
        return signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        return None
