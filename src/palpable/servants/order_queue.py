"""What is still to be carried out, in order, and none of it before what led to it is on disk.

Runs in: the server process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from palpable._core import effects as effect
from palpable._core.task_record import TaskRecord
from palpable.servants.delivery import Peer


class Call(effect.Effect, frozen=True):
    """Not the engine's: call this."""

    function: Callable[[], None]


class Accept(effect.Effect, frozen=True):
    """Not the engine's: tell a peer that its tasks are accepted."""

    peer: Peer
    request_id: int
    new_task_ids: list[str]
    """All of them, if none was known before; else empty."""
    known_task_ids: list[str]
    """Those that were."""


class Saving(Protocol):
    """What the queue must know of the journal."""

    committed: int

    @property
    def ticket(self) -> int: ...
    def mark(self, task: TaskRecord, *, is_new: bool = False) -> None: ...
    def forget(self, tasks: list[TaskRecord]) -> None: ...


_OF_A_RUNNER = frozenset({effect.StartRunner, effect.SendTasks, effect.TakeBack, effect.KillRunner})
_Lane = deque[tuple[int, effect.Effect]]


class OrderQueue:
    """Orders, those that must wait with the number of the journal's batch that must be on disk before.

    Orders about one runner keep their order, and so do those about peers: each waits in its lane. Between lanes there
    is no order, so that a task can start while the end of the last one in that slot is being written. A runner's orders
    wait only for the records of the tasks that it is to be handed: of what else it is ordered, nobody outside is told.

    Invariant: numbers never decrease along the lane of the peers, so to look at the first is enough.

    Args:
        handlers: what carries out an order, by its type; may enter more.
        on_carried_out: called after all that can be were.
    """

    def __init__(self, handlers: Mapping[type, Callable[[Any], None]], on_carried_out: Callable[[], None]) -> None:
        self.journal: Saving | None = None
        """None: there is no store, and nothing waits."""
        self._handlers = handlers
        self._on_carried_out = on_carried_out
        self._due: deque[effect.Effect] = deque()
        self._peers: _Lane = deque()
        self._runners: dict[int, _Lane] = {}
        """By runner id; only lanes in which something waits."""
        self._released = 0
        self._is_hopeless = False
        self._is_carrying_out = False

    def enter(self, effects: list[effect.Effect], first: effect.Effect | None = None) -> None:
        """Mark what the effects change, and carry out what can be.

        Args:
            first: to be carried out before these.
        """
        journal = self.journal
        if journal is None:
            if first is not None:
                self._due.append(first)
            self._due.extend(effects)
        else:
            # Before anything gets its number: the batch that this is for holds all the changes of one event.
            for order in effects:
                if type(order) is effect.SaveTask:
                    journal.mark(order.task, is_new=order.is_new)
                elif type(order) is effect.TasksForgotten:
                    journal.forget(order.tasks)
            if first is not None:
                self._enter_for_peers(first)
            for order in effects:
                if type(order) in _OF_A_RUNNER:
                    self._enter_for_runner(order, journal.committed)
                elif type(order) is not effect.SaveTask:
                    self._enter_for_peers(order)
        self.carry_out_due()

    def _enter_for_peers(self, order: effect.Effect) -> None:
        journal = self.journal
        if journal is not None and (self._peers or journal.ticket > journal.committed):
            self._peers.append((journal.ticket, order))
        else:
            self._due.append(order)

    def _enter_for_runner(self, order: Any, committed: int) -> None:
        is_handing_over = type(order) is effect.SendTasks
        number = max(task.saved_in for task in order.tasks) if is_handing_over else 0
        lane = self._runners.get(order.runner_id)
        if self._is_hopeless and not is_handing_over:
            self._due.append(order)
        elif lane is not None:
            lane.append((number, order))
        elif number > committed:
            self._runners[order.runner_id] = deque([(number, order)])
        else:
            self._due.append(order)

    def give_up_saving(self) -> None:
        """Nothing will be on disk any more: carry out what else runners are ordered than tasks that wait for that.

        Else a runner would not be killed that was to be handed a task before.
        """
        self._is_hopeless = True
        for runner_id, lane in self._runners.items():
            self._due.extend(order for _, order in lane if type(order) is not effect.SendTasks)
            self._runners[runner_id] = deque(entry for entry in lane if type(entry[1]) is effect.SendTasks)
        self.carry_out_due()

    def carry_out_due(self) -> None:
        """Carry out everything whose batch is on disk."""
        # Carrying out may bring the next event (`TakeBack` does). Its effects come after the present ones: the engine
        # decided them in the belief that those were carried out.
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        due, handlers = self._due, self._handlers
        try:
            if self.journal is not None:
                self._release()
            while due:
                order = due.popleft()
                handlers[type(order)](order)
        finally:
            self._is_carrying_out = False
        self._on_carried_out()

    def _release(self) -> None:
        """Let what waited for the batches that are on disk by now be due."""
        journal = self.journal
        if journal is None or journal.committed == self._released:
            return
        committed = self._released = journal.committed
        # Runners first: an answer to a peer may be about what is done to them.
        for runner_id, lane in list(self._runners.items()):
            while lane and lane[0][0] <= committed:
                self._due.append(lane.popleft()[1])
            if not lane:
                del self._runners[runner_id]
        while self._peers and self._peers[0][0] <= committed:
            self._due.append(self._peers.popleft()[1])

    def send_saved(self, peer: Peer, message: Any, size_bytes: int = 0) -> None:
        """Send a peer what is true now, once it is on disk.

        Args:
            size_bytes: of the message, roughly, if it is large: the peer asks for no more meanwhile than it may.
        """
        journal = self.journal
        if not self._due and (journal is None or (not self._peers and journal.ticket <= journal.committed)):
            peer.send(message)
            return

        def send() -> None:
            peer.send(message)
            peer.owe(-size_bytes)

        peer.owe(size_bytes)
        self._enter_for_peers(Call(send))

    def call_saved(self, function: Callable[[], None]) -> None:
        """Call `function` once what is true now is on disk, and carried out."""
        self._enter_for_peers(Call(function))
        self.carry_out_due()

    def call_done(self, function: Callable[[], None]) -> None:
        """As `call_saved`, and once what carrying out brings about is on disk too: `TakeBack` brings decisions."""
        self.call_saved(lambda: self._enter_for_peers(Call(function)))

    def held_tasks(self, runner_id: int) -> int:
        """Return how many tasks are still to be handed to a runner."""
        waiting = [order for _, order in self._runners.get(runner_id, ())]
        return sum(
            len(order.tasks)
            for order in [*waiting, *self._due]
            if type(order) is effect.SendTasks and order.runner_id == runner_id
        )

    def take_refusable(self, can_withdraw: Callable[[str], bool]) -> list[Accept]:
        """Take out the acceptances that can still become refusals."""
        refusable = []
        accepts = [order for _, order in self._peers if type(order) is Accept]
        # Somebody else may have submitted the same (by its key), and hears of a refusal only if it is his own.
        kept = {task_id for order in accepts for task_id in order.known_task_ids}
        for entry in list(self._peers):
            order = entry[1]
            if (
                type(order) is Accept
                and order.new_task_ids
                and kept.isdisjoint(order.new_task_ids)
                and all(map(can_withdraw, order.new_task_ids))
            ):
                refusable.append(order)
                self._peers.remove(entry)
        return refusable
