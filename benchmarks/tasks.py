"""The functions that the contenders run. They live in a module of their own, since many peers can only import them."""

from __future__ import annotations

import os
import time


def increment(value: int) -> int:
    """The smallest task: all that is measured is the way there and back."""
    return value + 1


def import_nothing(_value: int) -> int:
    return 0


def import_numpy_and_pandas(_value: int) -> int:
    import numpy
    import pandas

    return int(numpy.arange(3).sum()) + len(pandas.Series([1, 2, 3]))


def wait_for_file(path: str) -> bool:
    """Hold a worker until `path` exists, a minute at most. Polls: the cost is the same for all contenders."""
    for _ in range(600):
        if os.path.exists(path):
            return True
        time.sleep(0.1)
    return False


def fib(number: int) -> int:
    return number if number < 2 else fib(number - 1) + fib(number - 2)


FUNCTIONS = (increment, import_nothing, import_numpy_and_pandas, wait_for_file)
"""What contenders that need to know their tasks beforehand register."""
