"""Spool files are used again."""

from __future__ import annotations

import os
from pathlib import Path

from palpable._zygote.spools import Spools
from palpable._zygote.zygote import _gaps_between


def test_a_spool_that_was_given_back_is_taken_again(tmp_path: Path) -> None:
    spools = Spools(str(tmp_path), "z1")
    first, second = spools.take(), spools.take()
    assert first != second and first[0].startswith("z1-")
    spools.give_back(first)
    assert spools.take() == first
    assert sorted(os.listdir(tmp_path)) == sorted([first[0], second[0]])
    for _, fd in (first, second):
        os.close(fd)


def test_the_gaps_are_all_but_what_is_kept() -> None:
    gaps = _gaps_between({3, 7, 63})
    assert [fd for gap in gaps for fd in gap if fd < 66] == [4, 5, 6, *range(8, 63), 64, 65]
