"""Functions made anew, and memory made fresh, change nothing but where things lie."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

from palpable._zygote.hot_memory import copy_of


def test_a_copy_is_the_same_function_with_code_of_its_own() -> None:
    outer = 3

    def function(a: int, b: int = 1, *, c: int = 2) -> tuple[int, ...]:
        return a, b, c, outer

    copied = copy_of(function)
    assert copied is not function and copied.__code__ is not function.__code__
    assert copied.__code__ == function.__code__
    assert copied(0) == function(0) == (0, 1, 2, 3)


def test_a_process_goes_on_as_before_with_fresh_memory() -> None:
    # In a process of its own: it takes memory for good.
    script = """
        from palpable._zygote import hot_memory
        kept = [bytes([i % 256]) * i for i in range(2000)]
        hot_memory.begin()
        hot_memory.begin()
        more = [bytes([i % 256]) * i for i in range(2000)]
        assert kept == more
        del kept
        assert sorted({len(one) for one in more}) == list(range(2000))
        print("done")
    """
    run = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, timeout=30)
    assert run.stdout == "done\n", run.stderr
