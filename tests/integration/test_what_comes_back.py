"""What a program's own functions and classes are when they come back from a task: still its own, and unchanged.

Every test is a program of a user's, run as `__main__`, whose tasks run in another process.
"""

from __future__ import annotations

from pathlib import Path

from support.scripts import run_script
from support.task_peer import put_task_peer


def run_program(folder: Path, source: str) -> None:
    put_task_peer(folder)
    assert run_script(folder, source) == "done\n"


def test_instances_are_of_the_callers_class_and_leave_it_unchanged(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        import threading
        from task_peer import TaskPeer

        class Shape:
            made = []
            limit = 3

            def __init__(self, side):
                self.side = side
                Shape.made.append(side)

            def area(self):
                return self.side ** 2

            @staticmethod
            def unit():
                return Shape(1)

        class Square(Shape):
            def area(self):
                return super().area()

            def as_shape(self):
                return Shape(self.side)

        def scale(shape, factor):
            shape.side *= factor
            type(shape).limit = 99
            return [shape, Square(5), Shape, (Square, shape)]

        def spoil(shape):
            Shape.lock = threading.Lock()
            return shape

        with TaskPeer() as peer:
            made, area, unit = Shape.made, vars(Shape)["area"], vars(Shape)["unit"]
            before = {name: value for name, value in vars(Shape).items()}
            shape, square, shape_class, (square_class, same) = peer.run(scale, Shape(2), factor=3)
            assert type(shape) is Shape and shape.side == 6 and shape is same
            assert type(square) is Square and square.area() == 25
            assert shape_class is Shape and square_class is Square
            assert Shape.made is made == [2], made
            assert Shape.limit == 3
            assert vars(Shape)["area"] is area and vars(Shape)["unit"] is unit
            after = {name: value for name, value in vars(Shape).items() if name != "__slotnames__"}  # copyreg's cache
            assert before == after

            # What a task puts into the class there does not come here, even where it can't be pickled.
            assert type(peer.run(spoil, Shape(2))) is Shape and not hasattr(Shape, "lock")

            # The next task sees the class as its caller has it now.
            Shape.limit = 4
            assert peer.run(lambda: Shape.limit) == 4
            Shape.area = lambda self: -1
            assert peer.run(lambda shape: shape.area(), Shape(2)) == -1
        print("done")
        """,
    )


def test_dataclasses_enums_namedtuples_and_nested_classes_keep_their_identity(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        import abc
        import collections
        import dataclasses
        import enum
        import functools
        import typing
        from task_peer import TaskPeer

        @dataclasses.dataclass
        class Point:
            x: int
            tags: list = dataclasses.field(default_factory=list)

        @dataclasses.dataclass(frozen=True, slots=True)
        class Fixed:
            x: int

        class Colour(enum.Enum):
            RED = 1
            GREEN = [2]

            def shout(self):
                return self.name

        class Access(enum.Flag):
            READ = enum.auto()
            WRITE = enum.auto()

        class Level(enum.IntEnum):
            LOW = 1

        Pair = collections.namedtuple("Pair", "left right")

        class Typed(typing.NamedTuple):
            left: int
            right: str = "r"

        class Outer:
            class Inner:
                def outer(self):
                    return Outer

        class Base(abc.ABC):
            @abc.abstractmethod
            def go(self): ...

        class Concrete(Base):
            def go(self):
                return 7

        T = typing.TypeVar("T")

        class Box(typing.Generic[T]):
            def __init__(self, content: T):
                self.content = content

        class Slotted:
            __slots__ = ("a", "b")

        class Meta(type):
            pass

        class OfMeta(metaclass=Meta):
            pass

        class Lazy:
            @functools.cached_property
            def value(self):
                return 5

            @property
            def twice(self):
                return 2 * self.value

            @classmethod
            def make(cls):
                return cls()

        def local():
            class Local:
                pass
            return Local

        Local = local()

        def make():
            slotted = Slotted()
            slotted.a = 1
            return [
                Point(1), Fixed(2), Colour.RED, Colour.GREEN, Access.READ | Access.WRITE, Level.LOW, Pair(1, 2),
                Typed(1), Outer.Inner(), Concrete(), Box(3), slotted, OfMeta(), Lazy.make(), Local(),
            ]

        with TaskPeer() as peer:
            for _ in range(2):
                results = peer.run(make)
                classes = [Point, Fixed, Colour, Colour, Access, Level, Pair, Typed, Outer.Inner, Concrete, Box,
                           Slotted, OfMeta, Lazy, Local]
                assert [type(result) for result in results] == classes, results
                assert results[2] is Colour.RED and results[3] is Colour.GREEN and results[5] is Level.LOW
                assert results[2].shout() == "RED"
                assert results[4] is Access.READ | Access.WRITE
                assert results[0] == Point(1) and results[1] == Fixed(2)
                assert results[6] == Pair(1, 2) and results[7] == Typed(1)
                assert results[8].outer() is Outer
                assert isinstance(results[9], Base) and results[9].go() == 7
                assert results[11].a == 1 and not hasattr(results[11], "b")
                assert results[13].twice == 10
            assert peer.run(lambda colour: colour is Colour.RED, Colour.RED)
            assert peer.run(lambda: [Colour, Point, Outer.Inner]) == [Colour, Point, Outer.Inner]
            assert peer.run(lambda members: {m: m.name for m in members}, list(Level)) == {Level.LOW: "LOW"}
            try:
                peer.run(lambda slotted: setattr(slotted, "c", 1), results[11])
            except AttributeError:
                pass
            else:
                raise AssertionError("a class with slots took another attribute")
        print("done")
        """,
    )


def test_functions_of_every_kind_run_and_recur(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        import functools
        from task_peer import TaskPeer

        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        @functools.lru_cache(maxsize=None)
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        def traced(function):
            @functools.wraps(function)
            def wrapper(*args):
                return ("traced", function(*args))
            return wrapper

        @traced
        def decorated(x):
            return x * 2

        def counter():
            count = 0
            def add(n):
                nonlocal count
                count += n
                return count
            return add

        class Adder:
            def __init__(self, n):
                self.n = n
            def add(self, x):
                return self.n + x
            def __call__(self, x):
                return self.add(x)
            @classmethod
            def build(cls, n):
                return cls(n)
            @functools.lru_cache
            def slow(self, x):
                return x

        def keyword_only(*, a, b=2):
            return a + b

        def generator_inside(n):
            return sum(x for x in range(n))

        def annotated(x: "Adder", y: Adder | None = None) -> list[Adder]:
            return [x]

        with TaskPeer() as peer:
            assert peer.run(even, 10) is True
            assert peer.run(fib, 30) == 832040
            assert peer.run(decorated, 4) == ("traced", 8)
            assert decorated.__name__ == "decorated"
            add = counter()
            assert peer.run(add, 2) == 2 and peer.run(add, 3) == 3, "the caller's variable has not changed"
            assert peer.run(functools.partial(even, 3)) is False
            assert peer.run(functools.partial(keyword_only, b=5), a=1) == 6
            assert peer.run(Adder(2).add, 3) == 5
            assert peer.run(Adder(2), 3) == 5
            assert type(peer.run(Adder.build, 3)) is Adder
            assert peer.run(Adder(2).slow, 3) == 3
            assert peer.run(generator_inside, 4) == 6
            assert peer.run(annotated, 1) == [1]
            assert peer.run((lambda f: lambda x: f(f(x)))(lambda x: x + 1), 1) == 3
            # Functions that come back work here.
            assert peer.run(counter)(4) == 4
            assert peer.run(lambda: fib)(10) == 55
            method = peer.run(lambda: Adder(1).add)
            assert method(2) == 3 and type(method.__self__) is Adder
        print("done")
        """,
    )


def test_what_a_function_refers_to_is_as_it_is_at_each_submit(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        import functools
        from task_peer import TaskPeer

        N = 1
        seen = []

        class Config:
            limit = 1

        def inner():
            return N

        def outer():
            return inner(), list(seen), Config.limit

        def with_default(x=[]):
            return x

        def with_keyword(*, x=1):
            return x

        with TaskPeer() as peer:
            assert peer.run(outer) == (1, [], 1)
            assert peer.run(outer) == (1, [], 1)
            N = 2
            assert peer.run(outer) == (2, [], 1)
            seen.append(5)
            assert peer.run(outer) == (2, [5], 1)
            Config.limit = 9
            assert peer.run(outer) == (2, [5], 9)
            Config.extra = 1
            assert peer.run(lambda: Config.extra) == 1

            def inner():
                return "new"

            assert peer.run(outer) == ("new", [5], 9)
            inner.__code__ = (lambda: "newer").__code__
            assert peer.run(outer) == ("newer", [5], 9)

            assert peer.run(with_default) == []
            with_default.__defaults__[0].append(1)
            assert peer.run(with_default) == [1]
            with_default.__defaults__ = (3,)
            assert peer.run(with_default) == 3
            assert peer.run(with_keyword) == 1
            with_keyword.__kwdefaults__["x"] = 2
            assert peer.run(with_keyword) == 2

            def reads_attribute():
                return reads_attribute.tag

            reads_attribute.tag = "a"
            assert peer.run(reads_attribute) == "a"
            reads_attribute.tag = "b"
            assert peer.run(reads_attribute) == "b"

            def make(value):
                def get():
                    return value
                def put(new):
                    nonlocal value
                    value = new
                return get, put

            get, put = make(1)
            assert peer.run(get) == 1
            put(2)
            assert peer.run(get) == 2

            part = functools.partial(dict, a=1)
            assert peer.run(part) == {"a": 1}
            part.keywords["a"] = 2
            assert peer.run(part) == {"a": 2}

            def undefined():
                try:
                    return LATER
                except NameError:
                    return "no such name"

            assert peer.run(undefined) == "no such name"
            LATER = 1
            assert peer.run(undefined) == 1
            del LATER
            assert peer.run(undefined) == "no such name"
        print("done")
        """,
    )


def test_exceptions_keep_their_type_whatever_their_class_does(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        import threading
        from task_peer import TaskPeer
        from palpable.units.task_exceptions import RemoteTaskError, RemoteTraceback, TaskFailed

        class Needy(Exception):
            def __init__(self, code, reason):
                super().__init__(f"{code}: {reason}")
                self.code = code

        class Holder(Exception):
            def __init__(self, text):
                super().__init__(text)
                self.lock = threading.Lock()
                self.kept = [1, 2]

        class NoReduce(Exception):
            def __reduce__(self):
                raise RuntimeError("no")

        class NoText(Exception):
            def __str__(self):
                raise RuntimeError("no")

        class Sly(Exception):
            def __reduce__(self):
                return str, ("not an exception",)

        class OwnReduce(Exception):
            def __init__(self, a, b):
                super().__init__("text")
                self.a, self.b = a, b
            def __reduce__(self):
                return OwnReduce, (self.a, self.b)

        class NeedyOS(OSError):
            def __init__(self, path):
                super().__init__(2, "gone", path)

        class Refusal(TaskFailed):
            def __init__(self, *, why):
                super().__init__(why)
                self.why = why

        def fail(error_class, *args, **kwargs):
            raise error_class(*args, **kwargs)

        def noted():
            error = OwnReduce(1, 2)
            error.add_note("first")
            error.add_note("second")
            raise error

        def chained():
            try:
                try:
                    {}["missing"]
                except KeyError as error:
                    raise Needy(1, "in between") from error
            except Needy:
                raise ValueError("at last")

        def grouped():
            raise ExceptionGroup("several", [Needy(1, "a"), ExceptionGroup("more", [Holder("b"), ValueError("c")])])

        def local_class():
            class Mine(Exception):
                def __init__(self, a):
                    self.a = threading.Lock()
            raise Mine(1)

        def caught(*args, **kwargs):
            try:
                peer.run(*args, **kwargs)
            except BaseException as error:
                return error
            raise AssertionError("nothing raised")

        with TaskPeer() as peer:
            error = caught(fail, Needy, 3, "why")
            assert type(error) is Needy and error.args == ("3: why",) and error.code == 3
            assert isinstance(error.__cause__, RemoteTraceback)
            text = str(error.__cause__)
            assert "in fail" in text and "Needy: 3: why" in text and "task_peer" in text, text
            assert "_wire" not in text

            error = caught(fail, Holder, "held")
            assert type(error) is Holder and error.kept == [1, 2] and not hasattr(error, "lock")
            assert "lock" in error.__notes__[0], error.__notes__

            assert type(caught(fail, NoReduce, 1)) is NoReduce
            error = caught(fail, NoText, 1)
            assert type(error) is NoText and error.args == (1,)
            assert type(caught(fail, Sly, 1)) is Sly
            error = caught(fail, NeedyOS, "/x")
            assert type(error) is NeedyOS and error.errno == 2 and error.filename == "/x", vars(error)
            error = caught(fail, Refusal, why="not today")
            assert type(error) is Refusal and error.why == str(error) == "not today"
            error = caught(noted)
            assert type(error) is OwnReduce and error.b == 2 and error.__notes__ == ["first", "second"]

            error = caught(chained)
            assert type(error) is ValueError
            text = str(error.__cause__)
            assert text.index("KeyError") < text.index("direct cause") < text.index("Needy: 1: in between")
            assert text.index("During handling") < text.index("ValueError: at last")

            error = caught(grouped)
            assert type(error) is ExceptionGroup and type(error.exceptions[0]) is Needy
            holder, value_error = error.exceptions[1].exceptions
            assert type(holder) is Holder and holder.kept == [1, 2] and type(value_error) is ValueError

            error = caught(local_class)
            assert type(error) is RemoteTaskError and "Mine" in error.type_name, error
            error = caught(fail, SystemExit, 3)
            assert type(error) is RemoteTaskError and error.type_name == "SystemExit" and error.message == "3"
            error = caught(fail, KeyboardInterrupt)
            assert type(error) is RemoteTaskError

            error = caught(fail, UnicodeDecodeError, "utf-8", b"a", 0, 1, "bad")
            assert type(error) is UnicodeDecodeError and error.reason == "bad"
            error = caught(fail, ImportError, "m", name="mod")
            assert error.name == "mod"
            error = caught(lambda: (lambda: 1 / 0)())
            assert type(error) is ZeroDivisionError

            deep = lambda n: deep(n + 1)
            error = caught(deep, 0)
            assert type(error) is RecursionError and len(str(error.__cause__)) < 5000
        print("done")
        """,
    )


def test_a_class_made_in_a_task_is_built_here_with_the_callers_own_classes_in_it(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        from task_peer import TaskPeer

        class Base:
            count = 0
            def hello(self):
                return "hello"

        class Other:
            def base(self):
                return Base

        def derive():
            class Derived(Base):
                other = Other
                def pair(self):
                    return Partner, Derived
            class Partner:
                def partner(self):
                    return Derived
            return Derived(), Partner()

        with TaskPeer() as peer:
            hello = vars(Base)["hello"]
            Base.count = 1
            derived, partner = peer.run(derive)
            assert isinstance(derived, Base) and derived.hello() == "hello"
            assert type(derived).other is Other
            assert derived.pair() == (type(partner), type(derived))
            assert partner.partner() is type(derived)
            assert vars(Base)["hello"] is hello and Base.count == 1
            again = peer.run(lambda thing: thing, derived)
            assert type(again) is type(derived)
        print("done")
        """,
    )


def test_things_of_functools_and_typing_that_a_script_defines_travel(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        import functools
        import sys
        import typing
        from task_peer import TaskPeer

        UserId = typing.NewType("UserId", int)
        P = typing.ParamSpec("P")
        T = typing.TypeVar("T")
        Ts = typing.TypeVarTuple("Ts")

        def traced(function: typing.Callable[P, T]) -> typing.Callable[P, T]:
            @functools.wraps(function)
            def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
                return function(*args, **kwargs)
            return wrapper

        @traced
        def following(user: UserId) -> UserId:
            return UserId(user + 1)

        class Row(typing.Generic[*Ts]):
            def __init__(self, *cells: *Ts):
                self.cells = cells

        @functools.singledispatch
        def flat(thing):
            return [thing]

        @flat.register
        def _(thing: list):
            return [inner for part in thing for inner in flat(part)]

        class Shower:
            @functools.singledispatchmethod
            def show(self, thing):
                return "thing"

            @show.register
            def _(self, thing: int):
                return "number"

            @functools.lru_cache(maxsize=4)
            def slow(self, x):
                return x

            double = functools.partialmethod(lambda self, a, b: a * b, 2)

        def use_shower():
            shower = Shower()
            return shower.show(1), shower.show("a"), shower.slow(3), shower.double(4)

        with TaskPeer() as peer:
            assert peer.run(following, 1) == 2
            assert peer.run(lambda: UserId.__name__) == "UserId"
            row = peer.run(Row, 1, "a")
            assert type(row) is Row and row.cells == (1, "a")
            assert peer.run(flat, [1, [2, [3]]]) == [1, 2, 3]
            for _ in range(2):
                assert peer.run(use_shower) == use_shower() == ("number", "thing", 3, 8)
            if sys.version_info >= (3, 12):
                exec('''
        type Json = dict[str, Json] | list[Json] | str
        type Pair[V] = tuple[V, V]

        class Box[V]:
            def __init__(self, content: V):
                self.content = content

        def pack(thing: Json, pair: Pair[int] | None = None) -> Box[Json]:
            return Box(thing)

        def value_of_alias():
            return str(Json.__value__), Json.__name__
        ''', globals())
                box = peer.run(pack, ["a"])
                assert type(box) is Box and box.content == ["a"]
                assert peer.run(value_of_alias) == ("dict[str, Json] | list[Json] | str", "Json")
        print("done")
        """,
    )
