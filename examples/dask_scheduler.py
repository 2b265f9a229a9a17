"""Dask's local scheduler on an Executor: its tasks run in Palpable's processes."""

import os

import dask

from palpable import Executor


@dask.delayed
def square(number):
    return number * number, os.getpid()


@dask.delayed
def add_up(pairs):
    return sum(number for number, _ in pairs), {pid for _, pid in pairs}


total = add_up([square(number) for number in range(10)])

with Executor(max_workers=2) as executor, dask.config.set(scheduler=executor):
    value, pids = total.compute()

print(value)
print("squared in other processes:", os.getpid() not in pids)
