"""A finding: something that must not be."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """What is wrong.

    Attributes:
        rule: which rule is broken, in a few words; findings are counted by it.
        what: the case, with its task id.
    """

    rule: str
    what: str
