"""Texts of users, as messages can hold them."""

from __future__ import annotations


def sendable(text: str) -> str:
    """Return `text`, which may be of any class of strings, as a plain string that UTF-8 can encode.

    Surrogates (in names of files, mostly) become escapes, as `print` shows them. A message with one in it can't be
    sent, and a batch that it is in would take the others along.
    """
    return text.encode("utf-8", "backslashreplace").decode()
