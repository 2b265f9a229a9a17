"""Which modules are worth preloading, by what tasks spend on importing them.

Runs in: the server process. Pure: numbers in, names out.

A module that is held by a zygote makes every fork a little dearer; one that is not makes every task that imports it
dearer. So a module is worth it that took long once, or that took a little often: a program that imports twelve modules
of a few milliseconds each pays for all of them in every task.
"""

from __future__ import annotations

from collections.abc import Container

LONG_SECONDS = 0.005
"""A module that cost a task as much as this to import is preloaded from then on."""
SPENT_SECONDS = 0.05
"""So is one that cost all tasks together as much as this."""
NAMES_MAX = 1000
"""Modules that are kept account of; tasks could import ever new ones."""


class ImportLearner:
    """Keeps account of what tasks spend on imports."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        """Seconds, by module, over all tasks."""

    def note(self, imported: dict[str, float], known: Container[str]) -> list[str]:
        """Return what is worth preloading since a task imported these modules, in the order in which it did.

        New zygotes have to be started for that. So once a module is worth it, those come along that are half way there.

        Args:
            imported: the seconds that the task spent on each, with what it imported itself.
            known: what is preloaded already, or can't be.
        """
        spent = self._spent
        new = [name for name in imported if name not in known]
        for name in new:
            if name in spent or len(spent) < NAMES_MAX:
                spent[name] = spent.get(name, 0.0) + imported[name]
        if not any(self._is_worth_it(name, imported[name], 1.0) for name in new):
            return []
        return [name for name in new if self._is_worth_it(name, imported[name], 0.5)]

    def _is_worth_it(self, name: str, seconds: float, share: float) -> bool:
        return seconds >= LONG_SECONDS or self._spent.get(name, 0.0) >= share * SPENT_SECONDS
