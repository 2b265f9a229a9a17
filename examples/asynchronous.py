"""The asynchronous client: many calls at once, no thread."""

import asyncio

from palpable import AsyncClient, Server


def square(number):
    return number * number


async def main(server):
    async with AsyncClient(server.address, server.family, server.authkey) as client:
        print(await asyncio.gather(*(client.run(square, number) for number in range(5))))
        async for result in client.imap(square, range(3)):
            print(result)


with Server(num_workers=2) as server:
    asyncio.run(main(server))
