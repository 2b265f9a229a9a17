"""The short form of a function makes what cloudpickle makes, and leaves to it what it can't.

The functions are those of a script: their module is `__main__`, so they go by value.
"""

from __future__ import annotations

import functools
import pickle
from textwrap import dedent
from typing import Any

import pytest

from palpable._wire.by_value_pickler import dumps_by_value
from palpable._wire.payload import dumps_function, loads
from palpable._wire.plain_function import MARK, dumps_plain, loads_plain


def script(source: str) -> dict[str, Any]:
    """Run `source` as a script; its names."""
    names: dict[str, Any] = {"__name__": "__main__", "__file__": "/somewhere/script.py", "__package__": None}
    exec(compile(dedent(source), "/somewhere/script.py", "exec", dont_inherit=True), names)
    return names


PLAIN = {
    "nothing": "def f(x): return x + 1",
    "lambda": "f = lambda x, y=2: (x, y)",
    "defaults": "def f(x, y=3, *args, z, t='t', **kwargs): 'It says so.'; return x, y, args, z, t, kwargs",
    "annotations": "def f(x: int, y: 'str' = 'y') -> bool: return x",
    "constants": "def f(): return (1, 2.5, 'x', b'x', None, ..., {1, 2}, 3j, 1 << 70, float('nan'), '\\ud800')",
    "simple globals": "N = 5; S = 'x'\ndef f(x): return N, S, missing",
    "modules": "import math as m, os.path, xml.etree.ElementTree\ndef f(x): return m.pi, os.path.sep, "
    "xml.etree.ElementTree.Element('a')",
    "by name": "from math import sqrt\nfrom textwrap import dedent\nfrom fractions import Fraction\n"
    "def f(x): return sqrt(x), dedent('x'), Fraction(1), len, int",
    "inner": "def f(x):\n    def g(y): return x + y + N\n    class C:\n        a = M\n    return [g(i) for i in C.a]\n"
    "N = 1; M = 2",
    "recursive by global": "def g(): pass\nN = 1\ndef f(x): return N",
    "generator": "def f(x): yield x",
    "coroutine": "async def f(x): return x",
    "renamed": "def f(x): 'Doc.'\nf.__name__ = 'g'; f.__qualname__ = 'A.g'; f.__doc__ = 'Other.'; f.__module__ = 'm'",
    "no module": "def f(x): pass\nf.__module__ = None",
    "no doc": "def f(x): 'Doc.'\nf.__doc__ = None",
    "try": "def f(x):\n    try:\n        return 1 / x\n    except ZeroDivisionError as e:\n        return e\n",
}

NOT_PLAIN = {
    "closure": "def make(n):\n    def f(x): return x + n\n    return f\nf = make(1)",
    "attributes": "def f(x): return x\nf.a = 1",
    "mutable global": "L = []\ndef f(x): return L",
    "mutable default": "def f(x, y=[]): return y",
    "mutable keyword default": "def f(x, *, y=[]): return y",
    "function by value": "def g(x): return x\ndef f(x): return g(x)",
    "recursion": "def f(x): return f(x - 1) if x else 0",
    "class by value": "class A: pass\ndef f(x): return A()",
    "annotation by value": "class A: pass\ndef f(x: A): return x",
    "generic annotation": "def f(x: list[int]): return x",
    "builtin with an object": "append = [].append\ndef f(x): return append(x)",
    "type without a name": "N = type(None)\ndef f(x): return N",
    "str of another class": "class S(str): pass\ns = S('x')\ndef f(x): return s",
}


UNSHARED = ("co_lnotab", "co_consts", "co_filename")
"""Of the code: out of use, compared apart, and replaced by "<dynamic-code>" in newer versions of cloudpickle."""


def facts_of(function: Any) -> dict[str, Any]:
    names = ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__")
    facts = {name: getattr(function, name) for name in (*names, "__dict__", "__closure__", "__globals__")}
    facts["builtins"] = function.__builtins__
    code = function.__code__
    names_of_code = [name for name in dir(code) if name.startswith("co_") and name not in UNSHARED]
    facts |= {name: value for name in names_of_code if not callable(value := getattr(code, name))}
    facts["consts"] = [repr(value).partition(" at 0x")[0] for value in code.co_consts]
    facts["positions"] = list(code.co_positions())
    return facts


@pytest.mark.parametrize("source", PLAIN.values(), ids=PLAIN)
def test_it_makes_what_cloudpickle_makes(source: str) -> None:
    function = script(source)["f"]
    data = dumps_plain(function)
    assert data is not None and data.startswith(MARK)
    assert facts_of(loads_plain(data)) == facts_of(pickle.loads(dumps_by_value(function)))
    assert loads_plain(data).__code__.co_filename == function.__code__.co_filename
    assert dumps_function(function).data == data
    assert dumps_plain(loads(data)) == data, "a function that came this way goes on the same way"


@pytest.mark.parametrize("source", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_the_others_are_left_to_cloudpickle(source: str) -> None:
    function = script(source)["f"]
    assert dumps_plain(function) is None
    assert facts_of(loads(dumps_function(function).data))["__name__"] == function.__name__


@pytest.mark.parametrize("function", [len, dedent, int, functools.partial(int, "1"), "x".upper, object()])
def test_what_is_no_function_by_value_is_left_too(function: Any) -> None:
    assert dumps_plain(function) is None


def test_it_runs() -> None:
    source = """
        import math
        from fractions import Fraction
        N = 2
        def f(x, *, y: int = 1): return math.sqrt(x), N, y, Fraction
    """
    assert repr(loads(dumps_function(script(source)["f"]).data)(4)) == "(2.0, 2, 1, <class 'fractions.Fraction'>)"


def test_two_functions_do_not_share_their_globals() -> None:
    # As with cloudpickle, where two pickles never do.
    data = dumps_function(script("N = 1\ndef f(x):\n    global N\n    N += x\n    return N")["f"]).data
    assert [loads(data)(1), loads(data)(1)] == [2, 2]


def test_the_same_function_is_the_same_bytes() -> None:
    function = script("def f(x): return 'a', 'b', ('a', 'b')")["f"]
    before = dumps_plain(function)
    kept = [function.__code__.co_consts, function.__code__.co_names, *function.__code__.co_consts]
    assert dumps_plain(function) == before and kept


def test_code_of_another_python_is_refused() -> None:
    data = dumps_plain(script("def f(x): return x")["f"])
    assert data is not None
    with pytest.raises(pickle.UnpicklingError, match="another version of Python"):
        loads(b"\0" + b"\x01\x02\r\n" + data[len(MARK) :])


def test_a_module_that_is_not_there_is_named() -> None:
    data = dumps_plain(script("import textwrap as t\ndef f(x): return t")["f"])
    assert data is not None
    with pytest.raises(ModuleNotFoundError, match="no_such_"):
        loads(data.replace(b"textwrap", b"no_such_"))
