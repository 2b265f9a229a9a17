"""The first program: a server, a client, a few tasks, each in a fresh process of its own."""

from palpable import Server


def square(number):
    return number * number


with Server(num_workers=2) as server, server.client() as client:
    print(client.map(square, range(10)))
    print(client.run(square, 12))
    print(client.submit(pow, 2, 100).result())
