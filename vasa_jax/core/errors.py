"""What a user should know of the input, in one clear line without a traceback."""


class UserError(Exception):
    """Bad input. The message is one line that says what to do; the CLI prints it and exits 2."""


class InputWarning(UserWarning):
    """The input is used, but not all of it, or not as its owner may expect.

    ``warnings.warn(message, InputWarning, stacklevel=2)`` with one line for people. The CLI prints
    it on stderr and puts it under "warnings" in what ``--json`` prints.
    """
