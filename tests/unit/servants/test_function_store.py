"""Functions are held as long as somebody refers to them."""

from __future__ import annotations

from palpable.servants.function_store import FunctionStore


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
