"""What a task prints, from wherever, is kept with it; its result says what it took."""

import os
import subprocess

from palpable import Procedure, Server


class Speak(Procedure):
    def __init__(self, words):
        self.words = words

    def run(self, messenger):
        print("from print:", self.words, flush=True)
        os.write(1, b"from write\n")
        subprocess.run(["echo", "from a subprocess"], check=True)
        return len(self.words)


with Server(num_workers=1) as server, server.client() as client:
    result = client.run_procedure(Speak("hello"), waiting_seconds=-1)
    print("data:", result.data, "exit status:", result.exit_status, "attempt:", result.attempt)
    print("CPU time is known:", result.cpu_seconds > 0, "peak memory is known:", result.peak_memory_bytes > 0)
    print(client.logs(result.task_id), end="")
