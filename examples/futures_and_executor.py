"""Futures, iterators and the Executor: for programs that know `concurrent.futures`."""

from concurrent.futures import as_completed

from palpable import Executor, Server


def cube(number):
    return number**3


with Server(num_workers=2) as server, server.client() as client:
    futures = {client.submit(cube, number): number for number in range(5)}
    print(sorted((futures[future], future.result()) for future in as_completed(futures)))
    print(list(client.imap(cube, range(5))))
    print(sorted(client.imap_unordered(cube, range(5))))

with Executor(max_workers=2) as executor:
    print(list(executor.map(cube, range(5))))
