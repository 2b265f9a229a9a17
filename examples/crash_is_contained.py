"""A task that crashes, hangs or fills the screen ends alone, and its error says what happened."""

import ctypes
import os
import time

from palpable import Server, TaskCrashed, TaskTimeout


def behave(number):
    return number + 1


def misbehave(kind):
    print(f"about to {kind}", flush=True)
    if kind == "exit":
        os._exit(3)
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "hang":
        time.sleep(1000)


with Server(num_workers=2) as server, server.client() as client:
    good = [client.submit(behave, number) for number in range(5)]
    for kind in ("exit", "segfault"):
        try:
            client.run(misbehave, kind)
        except TaskCrashed as error:
            print(f"{kind}: exit status {error.exit_status}, last words: {error.output_tail.strip()}")
    try:
        client.options(timeout_seconds=1).run(misbehave, "hang")
    except TaskTimeout as error:
        print(f"hang: ended after {error.elapsed_seconds:.0f} s, last words: {error.output_tail.strip()}")
    print([future.result() for future in good])
