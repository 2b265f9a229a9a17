"""BLAKE2b, without what `hashlib` would load along with it."""

from __future__ import annotations

try:
    from _blake2 import blake2b  # hashlib would load OpenSSL: 5 MB more in every process that is forked
except ImportError:
    from hashlib import blake2b

__all__ = ["blake2b"]
