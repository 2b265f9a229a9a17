"""A web back end with FastAPI: what takes long runs in a task, and the page asks for it later.

    palpable serve &
    uvicorn web_back_end:app

Run as a program, it serves itself a few requests and prints the answers.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from palpable import AsyncClient, RunFunction


def build_report(day: str) -> dict[str, Any]:
    """Takes long, and may fail. Runs in a task, not in the web server."""
    time.sleep(0.5)
    if day == "sunday":
        raise ValueError("there are no reports of sundays")
    return {"day": day, "rows": len(day)}


@asynccontextmanager
async def one_client(app: FastAPI) -> AsyncIterator[None]:
    """One connection for all requests, for as long as the web server runs."""
    async with AsyncClient() as client:  # $PALPABLE_URL, or the default server
        app.state.client = client
        yield


app = FastAPI(lifespan=one_client)


@app.post("/reports/{day}")
async def order_report(day: str) -> dict[str, Any]:
    """Wait a moment; what is not there by then (TBD) is asked for by its id."""
    client = app.state.client.options(name=f"report of {day}", timeout_seconds=60)
    return await client.ajax_run_procedure(RunFunction(build_report, day), waiting_seconds=0.1)


@app.get("/reports/{task_id}")
async def look(task_id: str) -> dict[str, Any]:
    """SUCCESS or ERROR, once; TBD, while it runs; NONE, when there is no such task (any more)."""
    return await app.state.client.ajax_query_result(task_id)


@app.delete("/reports/{task_id}")
async def cancel(task_id: str) -> bool:
    return await app.state.client.cancel(task_id)


if __name__ == "__main__":
    from fastapi.testclient import TestClient

    from palpable import Server

    with Server(num_workers=2, authkey=b"an example") as server:
        os.environ.update(PALPABLE_URL=f"unix://{server.address}", PALPABLE_AUTHKEY="an example")
        with TestClient(app) as browser:
            for day in ("monday", "sunday"):
                answer = browser.post(f"/reports/{day}").json()
                print("ordered:", answer["status"])
                while answer["status"] == "TBD":
                    time.sleep(0.05)
                    answer = browser.get(f"/reports/{answer['task_id']}").json()
                print("then:", answer["status"], answer["data"])
            task_id = browser.post("/reports/friday").json()["task_id"]
            print("cancelled:", browser.delete(f"/reports/{task_id}").json())
