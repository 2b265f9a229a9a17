"""The nemesis: strikes at random moments, a Poisson process, until it has killed often enough or the time is over.

Runs in: the storm. The same seed draws the same faults after the same pauses; what they hit depends on the moment.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from stress.storm.faults import FAULTS, Theatre


class Nemesis:
    """Draws faults and carries them out.

    Attributes:
        struck: how often each fault struck.
        kills: how many of these were kills.
    """

    def __init__(self, theatre: Theatre, seed: int, mean_pause_seconds: float) -> None:
        self.struck: Counter[str] = Counter()
        self.kills = 0
        self._theatre = theatre
        self._rng = random.Random(seed)
        self._mean_pause_seconds = mean_pause_seconds

    def rage(self, kills: int, most_seconds: float, on_strike: Callable[[], None] = lambda: None) -> None:
        """Strike until there were so many kills, or so long.

        Args:
            on_strike: called after each.
        """
        deadline = time.monotonic() + most_seconds
        while self.kills < kills and time.monotonic() < deadline:
            time.sleep(self._rng.expovariate(1.0 / self._mean_pause_seconds))
            self.strike_once()
            on_strike()

    def strike_once(self) -> None:
        """Draw a fault, carry it out, and note it."""
        names = list(FAULTS)
        name = self._rng.choices(names, [FAULTS[name].weight for name in names])[0]
        # A generator of its own, so that how much one fault draws does not change the next ones.
        rng = random.Random(self._rng.random())
        began = time.monotonic()
        self._theatre.log.write("strikes", fault=name)
        facts = FAULTS[name].strike(self._theatre, rng)
        if facts is None:
            self._theatre.log.write("missed", fault=name)
            return
        self._theatre.log.write("struck", fault=name, **{"from": began, "to": time.monotonic()}, **facts)
        self.struck[name] += 1
        self.kills += FAULTS[name].is_kill
