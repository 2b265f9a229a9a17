"""A question to the server, and what comes of it."""

from palpable._connection.waiting import Request
from palpable._wire.messages import Done


def test_an_answer_holds_also_when_the_connection_breaks_before_whoever_asked_has_read_it() -> None:
    request = Request(1)
    answer = Done(request_id=1)
    request.settle(answer)
    request.fail(ConnectionError("it was closed"))
    assert (request.answer, request.error) == (answer, None)


def test_the_first_error_is_the_one_that_counts() -> None:
    request = Request(1)
    first = ConnectionError("first")
    request.fail(first)
    request.fail(ConnectionError("second"))
    assert request.is_done() and request.error is first
