"""The error a user can act on: one clear line, no traceback."""


class UserError(Exception):
    """Bad input. The message is one line that says what to do; the CLI prints it and exits 2."""
