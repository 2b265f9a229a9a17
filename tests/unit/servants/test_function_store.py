"""Functions are held as long as somebody refers to them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from palpable._store.store import StoreBroken
from palpable.servants.function_store import FunctionStore, logger


def test_a_function_lives_as_long_as_the_connection_that_sent_it() -> None:
    store = FunctionStore()
    store.add(1, {"key": b"data"})
    assert store["key"] == b"data"
    store.connection_closed(1)
    assert "key" not in store


def test_a_function_outlives_its_connection_while_a_task_refers_to_it() -> None:
    store = FunctionStore()
    store.add(1, {"key": b"data"})
    store.refer("key", 2)
    store.connection_closed(1)
    store.release("key")
    assert "key" in store
    store.release("key")
    assert "key" not in store


def test_a_function_sent_twice_by_one_connection_counts_once() -> None:
    store = FunctionStore()
    store.add(1, {"key": b"data"})
    store.add(1, {"key": b"data"})
    store.connection_closed(1)
    assert "key" not in store


def test_a_function_sent_by_two_connections_stays_for_the_second() -> None:
    store = FunctionStore()
    store.add(1, {"key": b"data"})
    store.add(2, {"key": b"data"})
    store.connection_closed(1)
    assert "key" in store


def _damaged(key: str) -> bytes:
    raise StoreBroken(f"the function {key} is not what was written")


def _missing(key: str) -> None:
    return None


@pytest.mark.parametrize(("load", "reason"), [(_damaged, "is not what was written"), (_missing, "is not there")])
def test_a_function_that_cannot_be_read_is_as_good_as_none_and_that_is_said_once(
    load: Callable[[str], bytes | None], reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "propagate", True)
    store = FunctionStore(load)
    store.refer("key", 2)
    with caplog.at_level(logging.ERROR, logger.name):
        for _ in range(3):
            assert "key" not in store
            with pytest.raises(KeyError):
                store["key"]
    (record,) = caplog.records
    assert reason in record.getMessage()


def test_a_function_that_cannot_be_read_is_there_again_when_a_client_sends_it() -> None:
    store = FunctionStore(_damaged)
    store.refer("key")
    assert "key" not in store
    store.add(1, {"key": b"data"})
    store.connection_closed(1)
    assert store["key"] == b"data"
