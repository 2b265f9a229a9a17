"""A task's exception as bytes and as text, whatever its class does."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from palpable._wire import pickled_exception
from palpable._wire.payload import dumps_exception, loads
from palpable.units.task_exceptions import RemoteTraceback, TaskCrashed, TaskFailed


def raised(error: BaseException) -> BaseException:
    """The error, with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


class Needy(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code


class NeedyOSError(OSError):
    def __init__(self, path: str) -> None:
        super().__init__(2, "gone", path)


class NeedyImportError(ImportError):
    def __init__(self, module: str, /) -> None:
        super().__init__("not there", name=module, path="/p")


class Picky(Exception):
    def __new__(cls, *args: Any, needed: int) -> Picky:
        return super().__new__(cls, *args)

    def __init__(self, *, needed: int) -> None:
        super().__init__("picky")

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError("read only")


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise RuntimeError("no pickle")

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("nothing")


def test_an_exception_comes_with_its_name_text_and_traceback() -> None:
    pickled = dumps_exception(raised(ValueError("bad")))
    assert (pickled.error_type, pickled.error_message) == ("ValueError", "bad")
    assert pickled.traceback.startswith("Traceback (most recent call last):")
    assert "in raised" in pickled.traceback and pickled.traceback.endswith("ValueError: bad\n")
    assert pickled.payload is not None
    assert repr(loads(pickled.payload)) == "ValueError('bad')"
    assert dumps_exception(Needy(1, "a")).error_type == f"{__name__}.Needy"


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (Needy(3, "why"), {"code": 3, "args": ("3: why",)}),
        (NeedyOSError("/x"), {"errno": 2, "filename": "/x", "strerror": "gone"}),
        (NeedyImportError("m"), {"name": "m", "path": "/p", "msg": "not there"}),
        (Picky(needed=1), {"args": ("picky",)}),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"), {"reason": "bad", "object": b"a"}),
        (ExceptionGroup("g", [Needy(1, "a"), ValueError(2)]), {"message": "g"}),
        (StopIteration(5), {"value": 5}),
        (KeyError("k"), {"args": ("k",)}),
        (TaskFailed("why"), {"args": ("why",)}),
        (TaskCrashed("gone", exit_status=-9), {"exit_status": -9}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_type_and_its_facts_are_kept(error: Exception, facts: dict[str, Any]) -> None:
    payload = dumps_exception(raised(error)).payload
    assert payload is not None
    loaded = loads(payload)
    assert type(loaded) is type(error) and str(loaded) == str(error)
    assert {name: getattr(loaded, name) for name in facts} == facts


def test_what_cannot_travel_is_left_out_and_named_in_a_note() -> None:
    error = Needy(1, "a")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    error.kept = [1]  # type: ignore[attr-defined]
    error.add_note("before")
    group = ExceptionGroup("g", [ValueError(threading.Lock(), 2), error])
    payload = dumps_exception(group).payload
    assert payload is not None
    value_error, needy = loads(payload).exceptions
    assert value_error.args == ("<_thread.lock>", 2)
    assert "argument 0 (a _thread.lock)" in value_error.__notes__[0]
    assert needy.kept == [1] and not hasattr(needy, "lock")
    assert needy.__notes__[0] == "before" and "lock (a _thread.lock)" in needy.__notes__[1]


def test_notes_are_kept_where_the_class_leaves_them_out() -> None:
    class_with_reduce = raised(_OwnReduce(3))
    class_with_reduce.add_note("a note")
    payload = dumps_exception(class_with_reduce).payload
    assert payload is not None
    loaded = loads(payload)
    assert type(loaded) is _OwnReduce and loaded.number == 3 and loaded.__notes__ == ["a note"]


class _OwnReduce(Exception):
    def __init__(self, number: int) -> None:
        super().__init__("text")
        self.number = number

    def __reduce__(self) -> Any:
        return _OwnReduce, (self.number,)


def test_a_hostile_exception_is_still_reported() -> None:
    pickled = dumps_exception(raised(Hostile(1)))
    assert pickled.error_type.endswith("Hostile")
    assert pickled.error_message == "<its __str__ raised RuntimeError>"
    assert pickled.traceback


def test_a_class_made_in_the_task_is_told_by_name_if_it_cannot_be_pickled() -> None:
    class Mine(Exception):
        def __init__(self) -> None:
            super().__init__("text")
            self.lock = threading.Lock()

    pickled = dumps_exception(raised(Mine()))
    assert pickled.payload is None
    assert pickled.error_type.endswith("Mine") and pickled.error_message == "text"


def test_long_texts_are_cut_in_the_middle() -> None:
    pickled = dumps_exception(raised(ValueError("a" * 10**6 + "end")))
    assert len(pickled.error_message) < 17_000 and pickled.error_message.endswith("end")
    assert "left out" in pickled.error_message
    assert len(pickled.traceback) < 130_000


def test_texts_can_always_be_encoded() -> None:
    pickled = dumps_exception(raised(FileNotFoundError("file \udcff")))
    pickled.error_message.encode()
    pickled.traceback.encode()
    renamed = type("Renamed", (Exception,), {})
    renamed.__qualname__ = "Renamed \udcff"
    dumps_exception(raised(renamed())).error_type.encode()


def test_palpables_own_frames_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled_exception, "_OWN_FOLDER", "<own>")

    def call(name: str, function: Any) -> Any:
        """Call `function` from a frame of a file of that name."""
        names = {"function": function}
        exec(compile(f"def frame_of_{name}():\n    return function()\n", f"<{name}>.py", "exec"), names)
        return names[f"frame_of_{name}"]

    def text_of(function: Any) -> str:
        try:
            function()
        except Exception as error:
            return dumps_exception(error).traceback
        raise AssertionError("nothing was raised")

    def fail() -> None:
        raise ValueError("theirs")

    def fail_for_another_task() -> None:
        raise ValueError("another's") from RemoteTraceback("Traceback of the other")

    def fail_expectedly() -> None:
        raise TaskFailed("why")

    # The process's loop, the task, the messenger, and user's code called by it.
    text = text_of(call("own", call("user", call("own", fail))))
    assert "frame_of_own" not in text and "frame_of_user" in text and "in fail" in text

    # What waits for a sub-task raises the sub-task's error: where it waited is nobody's business.
    for name in ("ValueError: another's", "Traceback of the other"):
        text = text_of(call("own", call("user", call("own", call("own", fail_for_another_task)))))
        assert name in text and "frame_of_own" not in text
    assert "frame_of_own" not in text_of(call("own", call("user", call("own", fail_expectedly))))

    # A fault of Palpable's own, called from a task: its frames are what tells.
    fault = compile("def fault():\n    return 1 / 0\n", "<own>.py", "exec")
    names: dict[str, Any] = {}
    exec(fault, names)
    text = text_of(call("own", call("user", call("own", names["fault"]))))
    assert "in fault" in text and text.count("frame_of_own") == 1


def test_chains_and_groups_are_shown_whole() -> None:
    def chained() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError as error:
                raise Needy(1, "second") from error
        except Needy:
            raise ExceptionGroup("third", [raised(ValueError("inner"))])  # type: ignore[list-item]

    try:
        chained()
    except ExceptionGroup as error:
        text = dumps_exception(error).traceback
    places = [
        text.index(part) for part in ("'first'", "direct cause", "1: second", "During handling", "third", "inner")
    ]
    assert places == sorted(places)
