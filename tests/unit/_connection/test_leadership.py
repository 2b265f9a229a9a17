"""Somebody always reads while somebody waits."""

from __future__ import annotations

import threading

from palpable._connection.leadership import Leadership, Role
from palpable._connection.waiting import Awaited, Blocked


def _blocked() -> Blocked:
    return Blocked(lambda: False)


def _is_awake(blocked: Blocked) -> bool:
    return blocked._lock.acquire(blocking=False)


def _elsewhere(function: object) -> object:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(function()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return results[0]


def test_the_first_leads_and_the_next_follows() -> None:
    leadership, first, second, watched = Leadership(by_anyone=True), _blocked(), _blocked(), Awaited()
    assert leadership.claim(first, (), may_lead=True) is Role.LEADER
    assert leadership.claim(first, (), may_lead=True) is Role.LEADER
    assert _elsewhere(lambda: leadership.claim(second, (watched,), may_lead=True)) is Role.FOLLOWER
    assert watched.watchers == (second,)
    assert leadership.has_followers and not leadership.is_vacant


def test_a_leader_that_leaves_wakes_a_follower_who_then_leads() -> None:
    leadership, first, second = Leadership(by_anyone=True), _blocked(), _blocked()
    leadership.claim(first, (), may_lead=True)
    _elsewhere(lambda: leadership.claim(second, (), may_lead=True))
    assert leadership.leave(first) is False
    assert _is_awake(second)
    assert leadership.claim(second, (), may_lead=True) is Role.LEADER
    assert leadership.leave(second) is True


def test_a_follower_that_was_woken_to_lead_and_leaves_instead_wakes_the_next() -> None:
    leadership, first, second, third = Leadership(by_anyone=True), _blocked(), _blocked(), _blocked()
    leadership.claim(first, (), may_lead=True)
    for follower in (second, third):
        _elsewhere(lambda follower=follower: leadership.claim(follower, (), may_lead=True))  # type: ignore[misc]
    leadership.leave(first)
    assert not _is_awake(second)
    leadership.leave(third)
    assert _is_awake(second)


def test_who_waits_in_a_signal_handler_is_woken_before_whom_it_interrupted() -> None:
    leadership, interrupted, nested = Leadership(by_anyone=True), _blocked(), _blocked()
    leadership.background = object()
    assert _elsewhere(leadership.claim_in_background) is True
    assert leadership.claim(interrupted, (), may_lead=True) is Role.FOLLOWER
    assert leadership.claim(nested, (), may_lead=True) is Role.FOLLOWER
    _elsewhere(leadership.leave_in_background)
    assert _is_awake(nested) and not _is_awake(interrupted)
    assert leadership.claim(nested, (), may_lead=True) is Role.LEADER
    leadership.leave(nested)
    assert _is_awake(interrupted)


def test_leaving_twice_does_no_harm_and_watchers_are_taken_off() -> None:
    leadership, first, second, watched = Leadership(by_anyone=True), _blocked(), _blocked(), Awaited()
    leadership.claim(first, (), may_lead=True)
    _elsewhere(lambda: leadership.claim(second, (watched,), may_lead=True))
    for _ in range(2):
        leadership.leave(second)
    assert watched.watchers == ()


def test_a_call_made_while_this_thread_reads_is_nested() -> None:
    leadership, outer, inner = Leadership(by_anyone=True), _blocked(), _blocked()
    leadership.claim(outer, (), may_lead=True)
    assert leadership.claim(inner, (), may_lead=True) is Role.NESTED


def test_the_background_reads_only_when_nobody_else_could() -> None:
    leadership, first = Leadership(by_anyone=True), _blocked()
    leadership.background = object()
    assert leadership.claim_in_background() and leadership.is_in_background
    assert _elsewhere(lambda: leadership.claim(first, (), may_lead=True)) is Role.FOLLOWER
    leadership.leave_in_background()
    assert _is_awake(first)
    assert not leadership.claim_in_background()  # the follower will
    assert leadership.claim(first, (), may_lead=True) is Role.LEADER
    assert not leadership.claim_in_background()


def test_where_only_the_background_may_read_everybody_else_follows() -> None:
    leadership, first = Leadership(by_anyone=False), _blocked()
    leadership.background = object()
    assert leadership.claim(first, (), may_lead=True) is Role.FOLLOWER
    assert leadership.claim_in_background()
