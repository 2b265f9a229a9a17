"""Random events into the engine: whatever comes in whatever order, its invariants hold and every task ends."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from palpable._core import events
from support.engine_world import HoldingWorld, World


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), slot_count=st.integers(1, 3), steps=st.integers(1, 150))
def test_any_order_of_events_keeps_the_invariants_and_every_task_ends_once(
    seed: int, slot_count: int, steps: int
) -> None:
    world = World(seed, slot_count)
    for _ in range(steps):
        world.step()
        world.check()
    world.drain()
    assert set(world.finals) == {f"t{n + 1}" for n in range(world.task_count)}
    assert world.settled == set(world.finals), "of some tasks it was never said that their process is gone"


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 80))
def test_a_server_that_stops_gives_every_task_a_final_state(seed: int, steps: int) -> None:
    world = World(seed, 2)
    for _ in range(steps):
        world.step()
    world.handle(events.StopRequested())
    assert set(world.finals) == {f"t{n + 1}" for n in range(world.task_count)}
    world.submit()
    assert set(world.finals) == {f"t{n + 1}" for n in range(world.task_count)}


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), slot_count=st.integers(1, 3), steps=st.integers(1, 100))
def test_orders_that_wait_for_the_disk_change_nothing_of_that(seed: int, slot_count: int, steps: int) -> None:
    world = HoldingWorld(seed, slot_count)
    for _ in range(steps):
        world.step()
        world.check()
    world.drain()
    assert set(world.finals) == {f"t{n + 1}" for n in range(world.task_count)}
    assert world.settled == set(world.finals)
