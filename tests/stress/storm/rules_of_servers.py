"""Rules of the server itself: it starts whenever there is room, and ends as it is told to."""

from __future__ import annotations

from collections.abc import Iterator

from stress.storm.finding import Finding
from stress.storm.history import History


def check_servers(history: History) -> Iterator[Finding]:
    """Yield what is wrong with the starts and ends of the server."""
    for event in history.failed_starts:
        yield Finding("a server did not start", event["why"])
    for fault in history.faults:
        facts = fault.facts
        if fault.name == "end server" and facts["exit_code"] != 0 and not facts["was_killed"]:
            yield Finding("a server did not end as it was told", f"pid {facts['pids'][0]}: {facts['exit_code']}")
