"""A process knows whether it is the one that made the mark, however it was forked."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

import pytest

from palpable._zygote import fork_mark
from palpable._zygote.fork_mark import make_fork_mark


def libc_fork() -> int:
    return int(ctypes.PyDLL(None).fork())


def exit_code_of_child(fork: Callable[[], int], code: Callable[[], int]) -> int:
    pid = fork()
    if pid == 0:
        os._exit(code())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(params=["wiped by the kernel", "asked for"])
def mark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> fork_mark.ForkMark:
    if request.param == "asked for":
        monkeypatch.setattr(fork_mark, "MADV_WIPEONFORK", 12345)  # no such advice
    made = make_fork_mark()
    assert isinstance(made, mmap.mmap) is (request.param == "wiped by the kernel")
    return made


@pytest.mark.parametrize("fork", [os.fork, libc_fork])
def test_it_is_1_in_the_process_that_made_it_and_0_in_its_children(
    mark: fork_mark.ForkMark, fork: Callable[[], int]
) -> None:
    assert mark[0] == 1
    assert exit_code_of_child(fork, lambda: 10 + mark[0]) == 10
    # A child of a child, and the maker afterwards.
    assert exit_code_of_child(fork, lambda: exit_code_of_child(fork, lambda: 10 + mark[0])) == 10
    assert mark[0] == 1
