"""Options of a task: retried until it works, and done once for all who ask with the same key."""

from palpable import Server, current_task, task


@task(retries=5, backoff_seconds=0.01, retry_on=ConnectionError, name="fetch a page")
def fetch(url):
    if current_task().attempt < 3:
        raise ConnectionError(f"{url} does not answer")
    return f"{url}, at attempt {current_task().attempt}"


def charge(order):
    print("charged")
    return f"receipt of order {order}"


with Server(num_workers=2) as server, server.client() as client:
    print(client.run(fetch, "example.org"))
    try:
        client.options(retries=1).run(fetch, "example.org")
    except ConnectionError as error:
        print("with one retry:", error)

    once = client.options(idempotency_key="order 17")
    futures = [once.submit(charge, 17) for _ in range(3)]
    print([future.result() for future in futures])
    print("printed by all three:", futures[0].logs().split())
