"""BLAKE2b, without what `hashlib` would load along with it, and what it is used for most."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # hashlib would load OpenSSL: 5 MB more in every process that is forked
except ImportError:
    from hashlib import blake2b

__all__ = ["blake2b", "digest_of"]


def digest_of(data: bytes) -> str:
    """Return the key by which a pickled function is known: the hex BLAKE2b-128 digest."""
    return blake2b(data, digest_size=16).hexdigest()
