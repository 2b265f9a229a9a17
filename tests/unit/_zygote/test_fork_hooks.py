"""Which hooks around a fork are recorded."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from palpable._zygote import fork_hooks


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What would have been registered with the interpreter."""
    registered: list[dict[str, object]] = []
    monkeypatch.setattr(fork_hooks, "_register_at_fork", lambda **hooks: registered.append(hooks))
    monkeypatch.setattr(os, "register_at_fork", os.register_at_fork)
    for name in ("before", "after_in_parent", "after_in_child"):
        monkeypatch.setattr(fork_hooks, name, [])
    return registered


def _register_as(module: str, **hooks: object) -> None:
    exec("import os; os.register_at_fork(**hooks)", {"__name__": module, "hooks": hooks})


def test_hooks_are_recorded_in_the_order_in_which_they_run(registered: list[dict[str, object]]) -> None:
    fork_hooks.record()
    seen = SimpleNamespace(a=lambda: None, b=lambda: None, c=lambda: None)
    _register_as("library", before=seen.a, after_in_child=seen.b)
    _register_as("other", before=seen.b, after_in_child=seen.c, after_in_parent=seen.a)
    assert fork_hooks.before == [seen.b, seen.a]
    assert fork_hooks.after_in_child == [seen.b, seen.c]
    assert fork_hooks.after_in_parent == [seen.a]
    assert len(registered) == 2


@pytest.mark.parametrize("module", ["threading", "logging", "random", "palpable.units.task"])
def test_needless_hooks_are_left_to_forks_by_user_code(module: str, registered: list[dict[str, object]]) -> None:
    fork_hooks.record()
    _register_as(module, after_in_child=print)
    assert not fork_hooks.after_in_child
    assert registered == [{"after_in_child": print}]


def test_a_hook_that_raises_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def fail() -> None:
        raise ValueError("from a hook")

    fork_hooks.run([fail, lambda: seen.append(1)])
    assert seen == [1]
    assert "from a hook" in capsys.readouterr().err
