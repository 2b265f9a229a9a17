"""The checker: all rules over a history."""

from __future__ import annotations

from stress.storm.finding import Finding
from stress.storm.history import History
from stress.storm.rules_of_answers import check_answers
from stress.storm.rules_of_attempts import check_attempts
from stress.storm.rules_of_order import check_order
from stress.storm.rules_of_servers import check_servers
from stress.storm.rules_of_upkeep import check_upkeep


def check(history: History) -> list[Finding]:
    """Return everything that is wrong; an empty list is what a storm is run for."""
    return [
        *(Finding("the store is damaged", problem) for problem in history.file.problems),
        *(Finding("something is left", what) for what in history.aftermath),
        *check_servers(history),
        *check_answers(history),
        *check_attempts(history),
        *check_order(history),
        *check_upkeep(history),
    ]
