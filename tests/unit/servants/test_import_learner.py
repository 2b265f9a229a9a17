"""Which modules are preloaded, by what tasks spent on them."""

from __future__ import annotations

from palpable.servants.import_learner import LONG_SECONDS, NAMES_MAX, SPENT_SECONDS, ImportLearner


def test_what_took_long_once_is_worth_it_at_once() -> None:
    assert ImportLearner().note({"dear": LONG_SECONDS, "cheap": 0.001}, ()) == ["dear"]


def test_what_took_a_little_often_is_worth_it_once_all_tasks_together_have_paid_enough() -> None:
    learner = ImportLearner()
    seconds = SPENT_SECONDS / 20
    tasks = 1
    while not (found := learner.note({"a": seconds, "b": seconds * 0.75, "c": seconds * 0.25}, ())):
        tasks += 1
    assert found == ["a", "b"]  # the second is three quarters of the way there, the third is not half of it
    assert 20 <= tasks <= 21


def test_the_order_is_that_of_the_task() -> None:
    learner = ImportLearner()
    learner.note({"inner": LONG_SECONDS * 0.9}, ())
    imported = {"outer": LONG_SECONDS * 3, "inner": LONG_SECONDS * 2, "innermost": LONG_SECONDS}
    assert learner.note(imported, ()) == ["outer", "inner", "innermost"]


def test_what_is_known_is_not_named_again() -> None:
    learner = ImportLearner()
    assert learner.note({"dear": 1.0}, {"dear"}) == []
    assert learner.note({"dear": 1.0, "new": 1.0}, {"dear"}) == ["new"]


def test_of_ever_new_modules_only_so_many_are_kept_account_of() -> None:
    learner = ImportLearner()
    for number in range(NAMES_MAX + 10):
        learner.note({f"m{number}": 0.001}, ())
    for _ in range(100):
        assert learner.note({f"m{NAMES_MAX + 5}": 0.001}, ()) == []
    assert learner.note({f"m{NAMES_MAX + 5}": LONG_SECONDS}, ()) == [f"m{NAMES_MAX + 5}"]
