"""What the mark says, 48 bits, and the code that carries them through noise.

| bits | field | meaning |
|---|---|---|
| 4 | scheme | version of the mark; 1 |
| 20 | release | first 20 bits of the release's sha256 |
| 24 | time | minutes since 2024-01-01 00:00 UTC, up to the year 2055 |

A checksum of 16 bits (CRC-16/CCITT) follows; the 64 bits go through a tail-biting convolutional
code of rate 1/4 and constraint length 9 (generators 765 671 513 473 octal, free distance 24), whose
256 coded bits are spread over the data chips of a tile (``pattern.py``). Decoding is soft: the
Viterbi algorithm over the circular trellis, run around it until the ends meet; when the checksum
does not fit, the likeliest messages that differ at one of eight places are tried too (a list
decoder). Numpy only.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools

import numpy as np

SCHEME = 1
FIELD_BITS = {"scheme": 4, "release": 20, "time": 24}
NUM_BITS = sum(FIELD_BITS.values())  # 48
CRC_BITS, CRC_POLYNOMIAL = 16, 0x1021
MESSAGE_BITS = NUM_BITS + CRC_BITS  # 64
MEMORY = 8
GENERATORS = (0o765, 0o671, 0o513, 0o473)
CODED_BITS = MESSAGE_BITS * len(GENERATORS)  # 256
LIST_CUTS, LIST_STATES = 8, 8  # places and states there at which rivals of a message are looked for
EPOCH = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Payload:
    """The fields as numbers. Raises ValueError when one does not fit its bits."""

    scheme: int = SCHEME
    release: int = 0  # first 20 bits of the sha256
    time: int = 0  # minutes since EPOCH

    def __post_init__(self) -> None:
        for name, bits in FIELD_BITS.items():
            if not 0 <= getattr(self, name) < 1 << bits:
                raise ValueError(f"{name} {getattr(self, name)} does not fit {bits} bits")

    @classmethod
    def of(cls, release_sha256: str, when: datetime.datetime | None = None) -> Payload:
        """For a release (64 hex digits) and a time (UTC; now); a time out of range becomes 0."""
        minutes = int(((when or datetime.datetime.now(datetime.UTC)) - EPOCH).total_seconds() // 60)
        inside = 0 <= minutes < 1 << FIELD_BITS["time"]
        return cls(release=int(release_sha256[:5], 16), time=minutes if inside else 0)

    @property
    def release_prefix(self) -> str:
        """Five hex digits, the beginning of the release's sha256."""
        return f"{self.release:05x}"

    @property
    def when(self) -> datetime.datetime:
        """UTC, to the minute."""
        return EPOCH + datetime.timedelta(minutes=self.time)

    def to_json(self) -> dict[str, int | str]:
        """The fields in words: scheme, release (hex digits), time (ISO 8601)."""
        when = self.when.strftime("%Y-%m-%dT%H:%MZ")
        return {"scheme": self.scheme, "release": self.release_prefix, "time": when}

    def bits(self) -> np.ndarray:
        """(48,) of 0 and 1, most significant first."""
        text = "".join(f"{getattr(self, name):0{bits}b}" for name, bits in FIELD_BITS.items())
        return np.array([int(c) for c in text], np.uint8)

    @classmethod
    def from_bits(cls, bits: np.ndarray) -> Payload:
        """Inverse of ``bits``."""
        values, start = {}, 0
        for name, count in FIELD_BITS.items():
            values[name] = int("".join(str(int(b)) for b in bits[start : start + count]), 2)
            start += count
        return cls(**values)


def encode(payload: Payload) -> np.ndarray:
    """Payload -> coded bits (256,) uint8."""
    bits = payload.bits()
    return convolve(np.concatenate([bits, crc(bits)]))


def decode(soft: np.ndarray) -> tuple[Payload | None, np.ndarray]:
    """Soft values (256,), positive for 1, -> (payload, message bits (64,)).

    The payload is None when no checksum fits. That of the likeliest message fits 1 in 65536 random
    inputs, and its scheme is not judged here; the others must be of this scheme, which together
    with their number makes it 1 in about 20000.
    """
    soft = np.asarray(soft, np.float64)
    message = viterbi(soft)
    if _checked(message):
        return Payload.from_bits(message[:NUM_BITS]), message
    for other in _next_likely(soft):
        payload = Payload.from_bits(other[:NUM_BITS])
        if _checked(other) and payload.scheme == SCHEME:
            return payload, other
    return None, message


def _checked(message: np.ndarray) -> bool:
    return np.array_equal(crc(message[:NUM_BITS]), message[NUM_BITS:])


def _next_likely(soft: np.ndarray) -> list[np.ndarray]:
    """Messages (64,), the likeliest first: the best of each end state, wherever the circle begins.

    What noise confuses differs in a run of few bits. Where the circle is cut within it, the states
    there tell the rivals apart.
    """
    steps = soft.reshape(-1, len(GENERATORS))
    found: dict[bytes, float] = {}
    for cut in range(0, len(steps), len(steps) // LIST_CUTS):
        for message in _paths(np.roll(steps, -cut, axis=0).reshape(-1), LIST_STATES):
            whole = np.roll(message, cut)
            found[whole.tobytes()] = float(soft @ (2.0 * convolve(whole) - 1.0))
    likely = sorted(found, key=lambda key: -found[key])
    return [np.frombuffer(key, np.uint8) for key in likely]


def crc(bits: np.ndarray) -> np.ndarray:
    """CRC-16/CCITT-FALSE of a bit sequence, (16,) most significant first."""
    register = 0xFFFF
    for bit in bits:
        top = (register >> 15) ^ int(bit)
        register = ((register << 1) & 0xFFFF) ^ (CRC_POLYNOMIAL if top else 0)
    return np.array([(register >> i) & 1 for i in range(CRC_BITS - 1, -1, -1)], np.uint8)


def convolve(message: np.ndarray) -> np.ndarray:
    """The tail-biting code: (N,) bits -> (4 N,); the register starts with the last 8 bits."""
    windows = np.stack([np.roll(message, shift) for shift in range(MEMORY + 1)])  # newest first
    taps = np.array(
        [[(g >> (MEMORY - shift)) & 1 for shift in range(MEMORY + 1)] for g in GENERATORS]
    )
    return (taps @ windows % 2).T.reshape(-1).astype(np.uint8)


@functools.cache
def _trellis() -> tuple[np.ndarray, np.ndarray]:
    """For each state (the last 8 bits, newest highest) its two predecessors, and their outputs.

    Returns (S, 2) states and (S, 2, 4) outputs of +-1; the bit that leads into a state is its
    highest.
    """
    states = np.arange(1 << MEMORY)
    newest = states >> (MEMORY - 1)
    before = np.stack([((states << 1) & ((1 << MEMORY) - 1)) | old for old in (0, 1)], axis=1)
    registers = (newest[:, None] << MEMORY) | before
    outputs = np.stack(
        [np.vectorize(lambda r, g=g: (r & g).bit_count() & 1)(registers) for g in GENERATORS], -1
    )
    return before, 2.0 * outputs - 1.0


def viterbi(soft: np.ndarray) -> np.ndarray:
    """The most likely message (N,) uint8 for soft values (4 N,), positive for 1.

    Runs around the circle up to four times, starting each with the state metrics of the one before,
    until the best path ends in the state it began with.
    """
    return _paths(soft, 1)[0]


def _paths(soft: np.ndarray, count: int) -> list[np.ndarray]:
    """The best paths' messages (N,) into each of the ``count`` best end states, best first."""
    before, outputs = _trellis()
    steps_NB = soft.reshape(-1, len(GENERATORS))
    gains_NS2 = np.einsum("nb,spb->nsp", steps_NB, outputs)
    states = np.arange(1 << MEMORY)
    metric = np.zeros(1 << MEMORY)
    for _ in range(4):
        choices = []
        for gains in gains_NS2:
            candidates = metric[before] + gains
            choice = candidates.argmax(1)
            metric = candidates[states, choice]
            choices.append(choice)
        best = int(metric.argmax())
        message, start = _traced(best, choices)
        if start == best:
            break
        metric -= metric.max()
    others = np.argsort(-metric, kind="stable")[1:count]
    return [message, *(_traced(int(end), choices)[0] for end in others)]


def _traced(end: int, choices: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """The message (N,) of the path that ends there, and the state it began with."""
    before, state = _trellis()[0], end
    message = np.zeros(len(choices), np.uint8)
    for i in range(len(choices) - 1, -1, -1):
        message[i] = state >> (MEMORY - 1)
        state = int(before[state, choices[i][state]])
    return message, state
