"""What the mark says, 48 bits, and the code that carries them through noise.

| bits | field | meaning |
|---|---|---|
| 4 | scheme | version of the mark; 1 |
| 20 | release | first 20 bits of the release's sha256 |
| 24 | time | minutes since 2024-01-01 00:00 UTC, up to the year 2055 |

A checksum of 16 bits (CRC-16/CCITT) follows; the 64 bits go through a tail-biting convolutional
code of rate 1/4 and constraint length 9 (generators 765 671 513 473 octal, free distance 24), whose
256 coded bits are spread over the data chips of a tile (``pattern.py``). Decoding is soft: the
Viterbi algorithm over the circular trellis, run around it until the ends meet. Numpy only.
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

    The payload is None when the checksum does not fit: 1 in 65536 random inputs passes. Its scheme
    is not judged here.
    """
    message = viterbi(np.asarray(soft, np.float64))
    bits, check = message[:NUM_BITS], message[NUM_BITS:]
    good = np.array_equal(crc(bits), check)
    return (Payload.from_bits(bits) if good else None), message


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
    before, outputs = _trellis()
    steps_NB = soft.reshape(-1, len(GENERATORS))
    gains_NS2 = np.einsum("nb,spb->nsp", steps_NB, outputs)
    states = np.arange(1 << MEMORY)
    metric = np.zeros(1 << MEMORY)
    message = np.zeros(len(steps_NB), np.uint8)
    for _ in range(4):
        choices = []
        for gains in gains_NS2:
            candidates = metric[before] + gains
            choice = candidates.argmax(1)
            metric = candidates[states, choice]
            choices.append(choice)
        end = state = int(metric.argmax())
        for i in range(len(steps_NB) - 1, -1, -1):
            message[i] = state >> (MEMORY - 1)
            state = int(before[state, choices[i][state]])
        if state == end:
            break
        metric -= metric.max()
    return message
