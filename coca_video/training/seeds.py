"""Seeds of what is random about a step."""

import hashlib


def seed_of(*numbers: int) -> int:
    """A seed for these numbers, another one wherever one of them differs; of 32 bits.

    A CPU's generator looks at no more of a seed: numbers that stood in higher bits would all be one.
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")
