from __future__ import annotations

import datetime

import numpy as np
import pytest

from vasa_jax.provenance import payload as payloads
from vasa_jax.provenance.payload import CODED_BITS, GENERATORS, Payload, crc, decode, encode

WHEN = datetime.datetime(2026, 11, 21, 16, 20, tzinfo=datetime.UTC)
SAID = Payload.of("c0ffee" + 58 * "0", WHEN)


def test_fields_go_into_48_bits_and_come_back():
    assert len(SAID.bits()) == 48 and Payload.from_bits(SAID.bits()) == SAID
    assert SAID.to_json() == {"scheme": 1, "release": "c0ffe", "time": "2026-11-21T16:20Z"}
    assert Payload.of("c0ffee", datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)).time == 0
    with pytest.raises(ValueError, match="does not fit"):
        Payload(release=1 << 20)


def test_the_checksum_is_the_published_one():
    """CRC-16/CCITT-FALSE of the nine digits is 0x29B1, in every catalogue of checksums."""
    bits = np.unpackbits(np.frombuffer(b"123456789", np.uint8))
    assert int("".join(map(str, crc(bits))), 2) == 0x29B1


def test_the_code_is_that_of_a_shift_register():
    """Tail-biting: the register begins with the last bits of the message."""
    message = np.concatenate([SAID.bits(), crc(SAID.bits())])
    register, out = 0, []
    for bit in message[-8:]:
        register = (register >> 1) | (int(bit) << 8)
    for bit in message:
        register = (register >> 1) | (int(bit) << 8)
        out += [(register & g).bit_count() & 1 for g in GENERATORS]
    np.testing.assert_array_equal(encode(SAID), out)


def test_its_smallest_distance_is_the_published_24():
    """A linear code: the lightest word of few bits set is the free distance (Larsen 1973)."""
    lightest = CODED_BITS
    for pattern in range(1, 1 << 10, 2):
        message = np.zeros(payloads.MESSAGE_BITS, np.uint8)
        message[:10] = [(pattern >> i) & 1 for i in range(10)]
        lightest = min(lightest, int(payloads.convolve(message).sum()))
    assert lightest == 24


def test_eleven_errors_anywhere_are_always_mended():
    """Half the distance, less one; and a third of all bits may be missing altogether."""
    rng = np.random.default_rng(0)
    sent = 2.0 * encode(SAID) - 1.0
    for _ in range(10):
        got = sent.copy()
        got[rng.choice(CODED_BITS, 11, replace=False)] *= -1
        assert decode(got)[0] == SAID
    start = int(rng.integers(CODED_BITS))
    for run in (np.arange(start, start + 11) % CODED_BITS,):  # all in one place, over the seam
        got = sent.copy()
        got[run] *= -1
        assert decode(got)[0] == SAID
    got = sent.copy()
    got[rng.choice(CODED_BITS, CODED_BITS // 3, replace=False)] = 0.0
    assert decode(got)[0] == SAID


def test_noise_that_the_likeliest_message_does_not_survive():
    """At 1.8 dB per bit Viterbi alone loses one in ten; rivals with a checksum save them."""
    rng = np.random.default_rng(2)
    alone = 0
    for time in range(40):
        sent = Payload(release=0xC0FFE, time=time)
        got = 2.0 * encode(sent) - 1.0 + 1.15 * rng.normal(size=CODED_BITS)
        message = payloads.viterbi(got)
        alone += np.array_equal(message, np.concatenate([sent.bits(), crc(sent.bits())]))
        assert decode(got)[0] == sent
    assert alone < 38


def test_noise_says_nothing():
    rng = np.random.default_rng(1)
    assert not any(decode(rng.normal(size=CODED_BITS))[0] for _ in range(100))
