"""When a pickled function is used again, and when it is made anew.

`f` stands for a function of a notebook: its module is `__main__`, so it goes by value.
"""

from __future__ import annotations

import functools
import gc
import importlib
import math
import pickle
import sys
import threading
import weakref
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import cloudpickle
import pytest

from palpable._wire import pickled_function
from palpable._wire.class_versions import change_count, version_of
from palpable._wire.payload import dumps_function, loads, name_of
from palpable.units.task_exceptions import NotPicklable


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    pickled_function._cache.clear()
    yield
    pickled_function._cache.clear()


def notebook(source: str) -> dict[str, Any]:
    """Run `source` as a notebook's cell; its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(dedent(source), names)
    return names


def is_reused(function: Any) -> bool:
    """Whether a second pickling is the first one again."""
    return dumps_function(function) is dumps_function(function)


def test_the_key_is_the_hash_of_the_data() -> None:
    pickled = dumps_function(math.sqrt)
    assert len(pickled.key) == 32 and int(pickled.key, 16) >= 0
    assert loads(pickled.data) is math.sqrt
    assert dumps_function(math.sqrt).key == pickled.key != dumps_function(math.floor).key


@pytest.mark.parametrize("function", [len, math.sqrt, pickle.dumps, dedent, dict, "abc".upper, str.upper])
def test_an_importable_function_is_pickled_once(function: Any) -> None:
    assert is_reused(function)
    assert repr(loads(dumps_function(function).data)).split(" at ")[0] == repr(function).split(" at ")[0]


@pytest.mark.parametrize(
    "source",
    [
        "f = lambda x: x + 1",
        "def f(x, y=1, *, z='a'): return x",
        "N = 1\ndef f(x): return x + N",
        "import math\ndef f(x): return math.sqrt(x)",
        "from math import sqrt\ndef f(x): return sqrt(x)",
        "def f(n): return n and f(n - 1)",
        "def g(): return 1\ndef f(): return g()",
        "def make(n):\n    def f(): return n\n    return f\nf = make(3)",
        "T = (1, ('a', None), frozenset({2}))\ndef f(): return T",
        "class C:\n    x = 1\n    def m(self): return C\ndef f(): return C()",
        "class C:\n    __slots__ = ('a',)\ndef f(): return C()",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: int = 1\ndef f(c: C) -> C: return C()",
        "import dataclasses\n@dataclasses.dataclass\nclass C:\n    x: list = dataclasses.field(default_factory=list)\n"
        "def f(): return C()",
        "import functools\ndef d(g):\n    @functools.wraps(g)\n    def w(*a): return g(*a)\n    return w\n"
        "@d\ndef f(x): return x",
        "import functools\n@functools.cache\ndef g(n): return n\ndef f(n): return g(n)",
        "import functools\nf = functools.partial(lambda a, b: a, 1, b=2)",
        "import logging\nlog = logging.getLogger('x')\ndef f(): log.info('hi')",
        "import re\nP = re.compile('a')\ndef f(x): return P.match(x)",
        "import pathlib, datetime, decimal\nA = pathlib.Path('a')\nB = datetime.timedelta(1)\nD = decimal.Decimal(1)\n"
        "def f(): return A, B, D",
        "import typing\ndef f(x: typing.Optional[int], y: list[dict[str, int]] | None) -> typing.Any: return x",
        "import typing\nI = typing.NewType('I', int)\nT = typing.TypeVar('T')\nA = list[int] | None\n"
        "def f(x: I, y: A) -> T: return I(x), A",
        "import signal\nS = signal.SIGTERM\ndef f(): return S",
        "def f(x): return undefined_name(x)",
    ],
)
def test_what_cannot_change_unseen_is_pickled_once(source: str) -> None:
    assert is_reused(notebook(source)["f"])


@pytest.mark.parametrize(
    "source",
    [
        "L = []\ndef f(): return L",
        "D = {}\ndef f(): return D",
        "T = (1, [2])\ndef f(): return T",
        "def f(x=[]): return x",
        "def f(*, x={}): return x",
        "class C:\n    seen = []\ndef f(): return C",
        "class C: pass\nc = C()\ndef f(): return c",
        "import abc\nclass C(abc.ABC): pass\ndef f(): return C",
        "import functools\nf = functools.partial(lambda a: a, [1])",
        "def make():\n    seen = []\n    def f(): return seen\n    return f\nf = make()",
        "def g(x=[]): return x\ndef f(): return g()",
        "f = [1].count",
        "class C:\n    def m(self): return 1\nf = C().m",
        "class C:\n    def __call__(self): return 1\nf = C()",
        "def f(): return 1\nf.tags = []",
    ],
)
def test_what_could_change_unseen_is_pickled_anew(source: str) -> None:
    assert not is_reused(notebook(source)["f"])


CHANGES = {
    "a global": ("N = 1\ndef f(): return N", "N = 2", 2),
    "a global to an equal value of another type": ("N = 1\ndef f(): return N", "N = 1.0", 1.0),
    "a function it calls": ("def g(): return 1\ndef f(): return g()", "def g(): return 2", 2),
    "a global of a function it calls": ("N = 1\ndef g(): return N\ndef f(): return g()", "N = 2", 2),
    "the code of a function it calls": (
        "def g(): return 1\ndef f(): return g()",
        "g.__code__ = (lambda: 2).__code__",
        2,
    ),
    "its code": ("def f(): return 1", "f.__code__ = (lambda: 2).__code__", 2),
    "its defaults": ("def f(x=1): return x", "f.__defaults__ = (2,)", 2),
    "its keyword defaults": ("def f(*, x=1): return x", "f.__kwdefaults__['x'] = 2", 2),
    "its keyword defaults as a whole": ("def f(*, x=1): return x", "f.__kwdefaults__ = {'x': 2}", 2),
    "its attributes": ("def f(): return f.tag\nf.tag = 1", "f.tag = 2", 2),
    "a new attribute": ("def f(): return getattr(f, 'tag', 1)", "f.tag = 2", 2),
    "a variable of its closure": (
        "def make(n):\n    def f(): return n\n    def set_n(new):\n        nonlocal n\n        n = new\n"
        "    return f, set_n\nf, set_n = make(1)",
        "set_n(2)",
        2,
    ),
    "an attribute of a class": ("class C:\n    x = 1\ndef f(): return C.x", "C.x = 2", 2),
    "a new attribute of a class": ("class C: pass\ndef f(): return getattr(C, 'x', 1)", "C.x = 2", 2),
    "an attribute of a base class": ("class B:\n    x = 1\nclass C(B): pass\ndef f(): return C.x", "B.x = 2", 2),
    "a method": (
        "class C:\n    def m(self): return 1\ndef f(): return C().m()",
        "C.m = lambda self: 2",
        2,
    ),
    "a global that a method reads": ("N = 1\nclass C:\n    def m(self): return N\ndef f(): return C().m()", "N = 2", 2),
    "a global that a property reads": (
        "N = 1\nclass C:\n    @property\n    def m(self): return N\ndef f(): return C().m",
        "N = 2",
        2,
    ),
    "a global that was not there": (
        "def f():\n    try: return N\n    except NameError: return 1",
        "N = 2",
        2,
    ),
    "a builtin that is hidden": ("def f(): return len('a')", "len = lambda _: 2", 2),
    "the global of a class body inside it": (
        "N = 1\ndef f():\n    class C:\n        x = N\n    return C.x",
        "N = 2",
        2,
    ),
    "a keyword of a partial": (
        "import functools\nf = functools.partial(lambda x: x, x=1)",
        "f.keywords['x'] = 2",
        2,
    ),
    "the default factory of a dataclass": (
        "import dataclasses\nN = 1\n@dataclasses.dataclass\nclass C:\n"
        "    x: int = dataclasses.field(default_factory=lambda: N)\ndef f(): return C().x",
        "N = 2",
        2,
    ),
}


@pytest.mark.parametrize(("source", "change", "after"), CHANGES.values(), ids=CHANGES)
def test_a_change_reaches_the_next_pickle(source: str, change: str, after: Any) -> None:
    names = notebook(source)
    before = dumps_function(names["f"])
    assert names["f"]() == 1 and dumps_function(names["f"]).key == before.key
    exec(change, names)
    changed = dumps_function(names["f"])
    assert changed.key != before.key
    # Only now: to load a class by value where it was made sets its attributes anew, and the test would see that.
    result = loads(changed.data)()
    assert result == after and type(result) is type(after)


def test_a_change_back_gives_the_same_key() -> None:
    names = notebook("N = 1\ndef f(): return N")
    first = dumps_function(names["f"]).key
    names["N"] = 2
    second = dumps_function(names["f"]).key
    names["N"] = 1
    assert dumps_function(names["f"]).key == first != second


def test_a_class_that_changed_and_changed_back_is_set_again_in_processes_that_know_the_function() -> None:
    names = notebook("class C:\n    x = 1\ndef f(): return C.x\ndef g(): return C.x + 1")
    keys = [dumps_function(names["f"]).key]
    for value in (2, 1, 2, 1):
        names["C"].x = value
        keys.append(dumps_function(names["f"]).key)
    assert len(set(keys)) == 5
    assert dumps_function(names["f"]).key == keys[-1]
    names["C"].x = 2
    dumps_function(names["g"])
    names["C"].x = 1
    assert dumps_function(names["f"]).key not in keys, "a process that ran g has 2 in the class"


def test_versions_of_classes_count_changes_and_hold_nothing() -> None:
    names = notebook("class C:\n    x = 1\n    seen = []\n    def m(self): return C")
    held, count = names["C"], change_count()
    assert version_of(held) == version_of(held) == 0
    held.x = 1.0
    assert version_of(held) == 1 == version_of(held)
    held.y = None
    assert version_of(held) == 2
    del held.y
    assert version_of(held) == 3
    assert change_count() == count + 3
    gone = weakref.ref(held)
    names.clear()
    del held
    gc.collect()
    assert gone() is None


def test_a_submodule_imported_later_travels_too() -> None:
    names = notebook("import xml\ndef f(): return xml.sax.saxutils.escape('<')")
    dumps_function(names["f"])
    importlib.import_module("xml.sax.saxutils")
    assert b"xml.sax.saxutils" in dumps_function(names["f"]).data


def test_a_module_registered_to_go_by_value_does_so_from_then_on() -> None:
    assert b"return" not in dumps_function(dedent).data
    module = pickle.loads(pickle.dumps(dedent)).__module__
    first = dumps_function(dedent)
    cloudpickle.register_pickle_by_value(sys.modules[module])
    try:
        assert len(dumps_function(dedent).data) > len(first.data) + 100
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[module])
    assert dumps_function(dedent).data == first.data


def test_the_cache_keeps_no_function_alive() -> None:
    function = notebook("f = lambda x: x")["f"]
    dumps_function(function)
    gone = weakref.ref(function)
    assert len(pickled_function._cache) == 1
    del function
    gc.collect()
    assert gone() is None and not pickled_function._cache


def test_a_function_that_goes_when_the_module_has_lost_its_names_goes_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    function = notebook("f = lambda x: x")["f"]
    dumps_function(function)
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    monkeypatch.setattr(pickled_function, "_cache", None)  # as at the end of the interpreter
    del function
    gc.collect()
    monkeypatch.undo()
    assert not complaints and not pickled_function._cache


def test_the_cache_stays_within_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = [notebook("f = lambda x: x")["f"] for _ in range(300)]
    for function in functions:
        dumps_function(function)
    assert len(pickled_function._cache) == 256
    monkeypatch.setattr(pickled_function, "_MAX_BYTES", 1000)
    large = notebook(f"B = {'x' * 5000!r}\ndef f(): return B")["f"]
    assert is_reused(large)
    assert len(pickled_function._cache) == 1


def test_threads_may_pickle_at_once() -> None:
    names = notebook("N = 0\ndef f(): return N")
    wrong: list[Any] = []

    def pickle_often() -> None:
        for _ in range(300):
            lowest = names["N"]
            if loads(dumps_function(names["f"]).data)() < lowest:
                wrong.append(lowest)

    threads = [threading.Thread(target=pickle_often) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        names["N"] = number + 1000
    for thread in threads:
        thread.join()
    assert not wrong


def test_names_are_those_people_gave() -> None:
    class Caller:
        def method(self) -> None: ...

        def __call__(self) -> None: ...

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    assert name_of(math.sqrt) == "sqrt"
    assert name_of(Caller.method).endswith("Caller.method")
    assert name_of(Caller().method).endswith("Caller.method")
    assert name_of(functools.partial(functools.partial(abs))) == "abs"
    assert name_of(Caller()).endswith("Caller")
    assert name_of(int) == "int"
    assert dumps_function(functools.partial(abs, 1)).name == "abs"


def test_a_name_can_always_be_sent() -> None:
    class Text(str):
        """A string that no message takes."""

    def renamed() -> None: ...

    renamed.__qualname__ = Text("renamed \udcff")
    assert name_of(renamed) == "renamed \\udcff"
    assert type(name_of(renamed)) is str


def test_what_is_not_callable_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="callable"):
        dumps_function(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("import threading\nL = threading.Lock()\ndef f(): return L", "its global 'L' (a _thread.lock)"),
        ("import threading\nL = [threading.Lock()]\ndef f(): return L", "its global 'L' -> item 0 (a _thread.lock)"),
        (
            "import threading\ndef g(x=threading.Lock()): ...\ndef f(): g()",
            "its global 'g' -> default 0 (a _thread.lock)",
        ),
        (
            "import threading\n"
            "def make():\n    lock = threading.Lock()\n    def f(): return lock\n    return f\nf = make()",
            "its variable 'lock' of the enclosing function (a _thread.lock)",
        ),
        (
            "import threading\n"
            "class C:\n    def __init__(self): self.lock = threading.Lock()\n    def m(self): ...\nf = C().m",
            "its bound object -> attribute 'lock' (a _thread.lock)",
        ),
        (
            "import threading\nclass C:\n    lock = threading.Lock()\ndef f(): return C",
            "its global 'C' -> class attribute 'lock' (a _thread.lock)",
        ),
    ],
)
def test_what_cannot_be_pickled_is_named(source: str, place: str) -> None:
    with pytest.raises(NotPicklable) as caught:
        dumps_function(notebook(source)["f"])
    assert place in str(caught.value)
    assert "cannot pickle '_thread.lock' object" in str(caught.value)
    assert "inside the function" in str(caught.value)
    assert isinstance(caught.value.__cause__, TypeError)
