"""A task may wait for tasks of its own, to any depth: here with a single worker."""

from palpable import Server, current_task


def fib(number):
    if number < 2:
        return number
    return sum(current_task().map(fib, [number - 1, number - 2]))


with Server(num_workers=1) as server, server.client() as client:
    print(client.run(fib, 9))
