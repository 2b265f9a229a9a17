"""A server that is killed in the middle of a map, started again on its file, and has lost nothing."""

import os
import signal
import tempfile
import threading
import time

from palpable import Client, Server

FOLDER = tempfile.TemporaryDirectory()


def make_server():
    return Server(address=f"{FOLDER.name}/socket", authkey=b"key", num_workers=2, store=f"{FOLDER.name}/jobs.db")


def slow_square(number):
    time.sleep(0.1)
    return number * number


def kill(server):
    os.kill(server.pid, signal.SIGKILL)
    server.join()
    print("killed")


with FOLDER:
    first = make_server().start()
    second = make_server()
    with Client(first.address, authkey=b"key") as client:
        squares = client.imap(slow_square, range(20), window=20)
        print(next(squares))  # so some have run, some run, and some wait
        threading.Thread(target=lambda: (kill(first), second.start())).start()
        print(list(squares))  # the client connects again, and goes on waiting
        recovered = sum(count for what, count in second.recovered.items() if what != "finished")
        print("the second server took over at least one task:", recovered > 0)
    second.stop()
    second.close()
    first.close()
