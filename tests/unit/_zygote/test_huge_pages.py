"""Memory on huge pages holds what it held before, and there is some where the kernel offers it."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from textwrap import dedent

import pytest

from palpable._zygote.huge_pages import HUGE_PAGE_BYTES

MADV_COLLAPSE = 25


def run(script: str) -> str:
    """Run `script` in a process of its own, since what it does can't be taken back; return what it prints."""
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def can_collapse() -> bool:
    """Whether this kernel moves memory to huge pages when it is asked to."""
    if sys.platform != "linux":
        return False
    with mmap.mmap(-1, 2 * HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(len(memory)))
        view = ctypes.c_char.from_buffer(memory)
        address = -(-ctypes.addressof(view) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        del view
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return madvise(address, HUGE_PAGE_BYTES, MADV_COLLAPSE) == 0


def test_a_process_goes_on_as_before_when_its_memory_is_moved() -> None:
    script = """
        from palpable._zygote import huge_pages
        huge_pages.reserve_arenas(4 << 20)
        kept = [bytes([i % 256]) * i for i in range(4000)]
        huge_pages.move_there()
        huge_pages.move_there()
        more = [bytes([i % 256]) * i for i in range(4000)]
        assert kept == more
        del kept
        assert sorted({len(one) for one in more}) == list(range(4000))
        print("done")
    """
    assert run(script) == "done\n"


def test_what_is_imported_after_the_reservation_lies_on_huge_pages() -> None:
    if not can_collapse():
        pytest.skip("this kernel has no huge pages to give")
    script = """
        from palpable._zygote import huge_pages
        huge_pages.reserve_arenas(4 << 20)
        import asyncio, inspect
        huge_pages.move_there()
        with open("/proc/self/smaps_rollup") as rollup:
            print(next(line.split()[1] for line in rollup if line.startswith("AnonHugePages:")))
    """
    assert int(run(script)) >= 2 * HUGE_PAGE_BYTES // 1024


def test_what_was_reserved_and_not_needed_is_given_back() -> None:
    script = """
        import mmap
        from palpable._zygote import huge_pages
        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * mmap.PAGESIZE
        before = resident()
        huge_pages.reserve_arenas(32 << 20)
        kept = [bytes([i % 256]) * 400 for i in range(10_000)]
        during = resident()
        huge_pages.release_arenas()
        assert all(one == bytes([i % 256]) * 400 for i, one in enumerate(kept))
        print((during - before) >> 20, (resident() - before) >> 20)
    """
    if sys.platform == "linux":
        during, after = map(int, run(script).split())
        assert during >= 30
        assert after <= 8


def test_a_child_changes_nothing_of_its_parent_on_huge_pages() -> None:
    script = """
        import os
        from palpable._zygote import huge_pages
        huge_pages.reserve_arenas(4 << 20)
        numbers = list(range(100_000))
        huge_pages.move_there()
        pid = os.fork()
        if pid == 0:
            numbers[:] = [-number for number in numbers]
            os._exit(sum(numbers) != -4999950000)
        assert os.waitpid(pid, 0)[1] == 0
        print(sum(numbers))
    """
    assert run(script) == "4999950000\n"


def test_what_is_hardly_used_is_not_filled_up() -> None:
    script = """
        import ctypes, mmap
        from palpable._zygote import huge_pages
        memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for position in range(0, len(memory), 1 << 20):
            memory[position] = 1
        def resident():
            with open("/proc/self/statm") as statm:
                return int(statm.read().split()[1]) * mmap.PAGESIZE
        before = resident()
        huge_pages.move_there()
        print((resident() - before) >> 20)
    """
    if sys.platform == "linux":
        assert int(run(script)) < 16
