"""The common turn of the zygote, and what it leaves to others."""

import sys

import pytest
from tests.support import brief_turns

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no brief turns")


def test_a_process_that_has_ended_is_reaped_and_replaced() -> None:
    told = brief_turns.run("replaced")
    assert told.pop("peak_memory_bytes") > 1_000_000
    assert 0 <= told.pop("cpu_seconds") < 1
    assert told == {
        "is_done": True,
        "is_old": True,
        "exit_status": 3,
        "strays": 0,
        "alive": True,
        "answer": "hello",
        "fds_left": 0,
    }


def test_the_signal_that_killed_a_process_is_told() -> None:
    assert brief_turns.run("killed") == {"exit_status": -9}


def test_the_end_of_a_process_is_told_also_when_no_other_can_be_forked() -> None:
    told = brief_turns.run("not_forked")
    assert told == {"is_done": True, "exit_status": 4, "has_spool": True, "alive": 0, "fds_left": 0}


def test_an_order_comes_first() -> None:
    assert brief_turns.run("order_waits") == {"is_done": False, "is_alive": True, "is_left": True}


def test_an_order_does_not_wait_for_all_that_have_ended() -> None:
    assert brief_turns.run("order_comes") == {"is_done": False, "left": 1, "is_left": True}


def test_what_a_process_left_behind_is_killed() -> None:
    assert brief_turns.run("stray") == {"strays": 1, "is_gone": True}


def test_a_stray_that_ended_late_is_reaped() -> None:
    assert brief_turns.run("unknown") == {"is_done": True, "is_gone": True}


def test_what_is_not_the_common_case_is_left() -> None:
    assert set(brief_turns.run("not_its_case").values()) == {False}
