"""English to say without end: templates, pangram-like drills and nonsense words.

``sentences.py`` holds what people say, by language; this file adds breadth: sentences from a small
grammar, drills that bring every consonant before every vowel, and made-up words whose neighbours no
dictionary has. Other languages draw from ``sentences.py`` alone.
"""

from __future__ import annotations

import numpy as np

from vasa_jax.synth.speech import sentences

_WHO = (
    "my mother", "the pilot", "our neighbour", "a famous painter", "the old captain", "Bobby",
    "the whole family", "everybody", "Professor Wharton", "the big brown bear", "her best friend",
    "the mayor of Paris", "this young woman", "the postman", "Emma and Phil", "the baby",
    "a very brave boy", "the shopkeeper", "my favourite band", "the chief of police", "Vivian",
    "the farmer's wife", "a quiet voice", "the judge", "somebody upstairs", "the first visitor",
)  # fmt: skip
_DID = (
    "bought", "moved", "painted", "remembered", "borrowed", "forgot about", "opened",
    "brought back",
    "was looking for", "promised us", "improved", "photographed", "would never give up", "found",
    "thought about", "described", "picked up", "showed me", "left behind", "wrapped", "believed in",
    "measured", "played with", "threw away", "can't live without", "dreamt of",
)  # fmt: skip
_WHAT = (
    "a bright blue umbrella", "five fresh apples", "the map of the village",
    "an enormous pumpkin pie",
    "both of the windows", "the purple velvet jacket", "a box full of feathers",
    "the broken bicycle",
    "a wonderful piece of music", "the missing paper", "three thick books", "a cup of warm milk",
    "the very first photograph", "some bread and cheese", "a beautiful old boat",
    "the weather report",
    "a pair of yellow boots", "the whole truth", "a small wooden bridge", "the number seven bus",
    "my phone", "a heavy wave", "the final chapter", "a job in the city",
    "the garden behind the church",
)  # fmt: skip
_WHEN = (
    "before breakfast", "on Wednesday afternoon", "in the middle of the night", "a moment ago",
    "after the film", "five years ago", "last February", "without any warning", "again and again",
    "for the first time", "while it was raining", "by the river", "above the clouds", "in public",
    "with both hands", "as usual", "at the museum", "from beginning to end", "near the fire", "",
)  # fmt: skip
_OPENING = (
    "Well,", "You know,", "Believe me,", "Of course,", "To be honest,", "Maybe", "I think that",
    "Oh,", "Frankly,", "By the way,", "Apparently", "Listen,", "In fact,", "They say that", "",
    "", "", "",
)  # fmt: skip
_ONSETS = (
    "p", "b", "m", "f", "v", "w", "th", "t", "d", "n", "l", "s", "z", "sh", "ch", "j", "k", "g",
    "r",
    "y", "h", "br", "pl", "fr", "sp", "st", "gr", "bl", "sm", "tr", "kw", "sw",
)  # fmt: skip
_RHYMES = (
    "ah", "ee", "oo", "oh", "ay", "eye", "ow", "oy", "op", "ab", "im", "eff", "ove", "ush", "each",
    "ang", "ill", "ert", "ape", "oom", "ife", "um", "eb", "awp", "ip",
)  # fmt: skip


def english_sentence(rng: np.random.Generator) -> str:
    """A sentence of the small grammar."""

    def pick(options):
        return str(options[int(rng.integers(len(options)))])

    kind = rng.uniform()
    if kind < 0.6:
        body = f"{pick(_OPENING)} {pick(_WHO)} {pick(_DID)} {pick(_WHAT)} {pick(_WHEN)}".strip()
    elif kind < 0.75:
        body = (
            f"{pick(_WHO)} {pick(_DID)} {pick(_WHAT)}, but {pick(_WHO)} {pick(_DID)} {pick(_WHAT)}"
        )
    elif kind < 0.85:
        body = f"have you seen {pick(_WHAT)} that {pick(_WHO)} {pick(_DID)} {pick(_WHEN)}".strip()
        return body[0].upper() + body[1:] + "?"
    else:
        words = [pick(_ONSETS) + pick(_RHYMES) for _ in range(int(rng.integers(4, 9)))]
        body = ", ".join([" ".join(words[:3]), " ".join(words[3:])])
    return body[0].upper() + body[1:] + pick((".", ".", ".", "!"))


def drill(onset: str) -> str:
    """One consonant before many vowels."""
    return ", ".join(onset + rhyme for rhyme in _RHYMES[:10]) + "."


def random_text(rng: np.random.Generator, language: str) -> str:
    """One thing to say; half of English comes from the grammar."""
    if language == "en" and rng.uniform() < 0.5:
        return drill(str(rng.choice(_ONSETS))) if rng.uniform() < 0.05 else english_sentence(rng)
    return sentences.random_text(rng, language)
