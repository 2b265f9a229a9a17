"""What is still to be carried out, strictly in order, and none of it before what led to it is on disk.

Runs in: the server process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from palpable._core import effects as effect
from palpable.servants.delivery import Peer
from palpable.servants.journal import Journal


class Call(effect.Effect, frozen=True):
    """Not the engine's: call this."""

    function: Callable[[], None]


class Accept(effect.Effect, frozen=True):
    """Not the engine's: tell a peer that its tasks are accepted."""

    peer: Peer
    request_id: int
    new_task_ids: list[str]
    """All of them, if none was known before; else empty."""


class OrderQueue:
    """Orders with tickets: the number of the journal's batch that must be on disk before.

    Invariant: tickets never decrease along the queue, so to look at the first is enough.

    Args:
        carry_out: carries one order out; may enter more.
        on_carried_out: called after all that can be were.
    """

    def __init__(self, carry_out: Callable[[effect.Effect], None], on_carried_out: Callable[[], None]) -> None:
        self.journal: Journal | None = None
        self._carry_out = carry_out
        self._on_carried_out = on_carried_out
        self._orders: deque[tuple[int, effect.Effect]] = deque()
        self._is_carrying_out = False

    @property
    def _ticket(self) -> int:
        return self.journal.ticket if self.journal is not None else 0

    def enter(self, effects: list[effect.Effect], first: effect.Effect | None = None) -> None:
        """Mark what the effects change, and carry out what can be.

        Args:
            first: to be carried out before these.
        """
        journal = self.journal
        if journal is None:
            if first is not None:
                self._orders.append((0, first))
            self._orders.extend([(0, order) for order in effects])
        else:
            # Before anything gets its ticket: the batch that this is for holds all the changes of one event.
            for order in effects:
                if type(order) is effect.SaveTask:
                    journal.mark(order.task, is_new=order.is_new)
                elif type(order) is effect.TaskForgotten:
                    journal.forget(order.task)
            ticket = journal.ticket
            if first is not None:
                self._orders.append((ticket, first))
            self._orders.extend([(ticket, order) for order in effects if type(order) is not effect.SaveTask])
        self.carry_out_due()

    def carry_out_due(self) -> None:
        """Carry out everything whose batch is on disk."""
        # Carrying out may bring the next event (`TakeBack` does). Its effects come after the present ones: the engine
        # decided them in the belief that those were carried out.
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        orders, journal = self._orders, self.journal
        try:
            while orders and (journal is None or orders[0][0] <= journal.committed):
                self._carry_out(orders.popleft()[1])
        finally:
            self._is_carrying_out = False
        self._on_carried_out()

    def send_saved(self, peer: Peer, message: Any) -> None:
        """Send a peer what is true now, once it is on disk."""
        journal = self.journal
        if journal is None or (not self._orders and journal.ticket <= journal.committed):
            peer.send(message)
        else:
            self._orders.append((journal.ticket, Call(lambda: peer.send(message))))

    def call_saved(self, function: Callable[[], None]) -> None:
        """Call `function` once what is true now is on disk, and carried out."""
        self._orders.append((self._ticket, Call(function)))
        self.carry_out_due()

    def call_done(self, function: Callable[[], None]) -> None:
        """As `call_saved`, and once what carrying out brings about is on disk too: `TakeBack` brings decisions."""
        self.call_saved(lambda: self._orders.append((self._ticket, Call(function))))

    def held_tasks(self, runner_id: int) -> int:
        """Return how many tasks are still to be handed to a runner."""
        return sum(
            len(order.tasks)
            for _, order in self._orders
            if type(order) is effect.SendTasks and order.runner_id == runner_id
        )

    def take_refusable(self, can_withdraw: Callable[[str], bool]) -> list[Accept]:
        """Take out the acceptances that can still become refusals."""
        refusable = []
        for entry in list(self._orders):
            order = entry[1]
            if type(order) is Accept and order.new_task_ids and all(map(can_withdraw, order.new_task_ids)):
                refusable.append(order)
                self._orders.remove(entry)
        return refusable
