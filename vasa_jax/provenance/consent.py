"""Who allowed a portrait to be animated: one line of text, asked for and kept with the output.

The software can't check the answer. It sees to it that the question is asked, and that the answer
travels with what was made from it.
"""

from __future__ import annotations

from vasa_jax.core.errors import UserError

QUESTION = "Who allowed this portrait to be animated, and how?"
EXAMPLE_CONSENT = "the bundled example portrait, released with this software"
SHORTEST, LONGEST = 3, 300  # characters


def checked_consent(text: str) -> str:
    """The answer in one line. Raises UserError when it is none, or too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not line:
        raise UserError(f'{QUESTION} Say so in words, as in "it is a picture of myself"')
    if len(line) < SHORTEST or not any(c.isalpha() for c in line):
        raise UserError(f"{QUESTION} {line!r} is no answer")
    if len(line) > LONGEST:
        raise UserError(f"the consent has {len(line)} characters; give {LONGEST} at most")
    return line
