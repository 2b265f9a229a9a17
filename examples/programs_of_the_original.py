"""A program as it was written for the first Palpable: settings in subclasses, procedures, polling for a result."""

import shutil
import tempfile
import time

from palpable.procedures.procedure import Procedure
from palpable.procedures.run_function import RunFunction
from palpable.servants.server import Server
from palpable.units.client import Client
from palpable.units.task import Task
from palpable.units.task_exceptions import TaskFailed
from palpable.units.task_response import TaskResponse

FOLDER = tempfile.mkdtemp()


class OurServer(Server):
    def __init__(self):
        super().__init__(FOLDER, f"{FOLDER}.sock", "AF_UNIX", b"our key", 2)

    def close(self):
        super().close()
        shutil.rmtree(self._logging_folder)


class OurClient(Client):
    def __init__(self):
        super().__init__(f"{FOLDER}.sock", "AF_UNIX", b"our key")


class Halve(Procedure):
    def __init__(self, number):
        self.number = number

    def run(self, messenger):
        messenger.info(f"halving {self.number}")
        if self.number % 2:
            raise TaskFailed(f"{self.number} is odd")
        messenger.submit_tasks([Task(RunFunction(print, "a follow-up"))], need_followup=True)
        return self.number // 2


with OurServer() as server:
    client = OurClient()
    response = client.ajax_run_procedure(Halve(8), waiting_seconds=0)
    while response == TaskResponse.TBD:
        time.sleep(0.01)
        response = client.ajax_query_result(response["task_id"])
    print(response["status"], response["data"], len(response["followup_task_ids"]), "follow-up")
    response = client.ajax_run_procedure(Halve(7), waiting_seconds=-1)
    print(response["status"], response["data"])
    print(client.ajax_query_result("no-such-task")["status"])
    print(server.status["task_queue_size"], "tasks in the queue,", len(server.status["worker_status"]), "workers")
    client.close()
