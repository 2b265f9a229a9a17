"""The names by which classes of errors are compared across processes."""

from __future__ import annotations

from palpable import TaskTimeout
from palpable._wire.error_names import class_name, names_of_bases


class Outer:
    class Refused(ConnectionError):
        pass


def test_a_name_says_module_and_place() -> None:
    assert class_name(Outer.Refused) == f"{__name__}.Outer.Refused"
    assert class_name(ValueError) == "builtins.ValueError"


def test_bases_are_named_in_order_down_to_the_root_of_all_exceptions() -> None:
    assert names_of_bases(Outer.Refused) == (
        f"{__name__}.Outer.Refused",
        "builtins.ConnectionError",
        "builtins.OSError",
        "builtins.Exception",
        "builtins.BaseException",
    )


def test_every_base_is_named_also_where_there_are_several() -> None:
    class Both(ValueError, TaskTimeout):
        pass

    assert {"builtins.ValueError", "palpable.units.task_exceptions.TaskTimeout"} < set(names_of_bases(Both))


def test_a_name_can_always_be_encoded() -> None:
    renamed = type("Renamed", (Exception,), {})
    renamed.__qualname__ = "Renamed \udcff"
    assert class_name(renamed).endswith("Renamed \\udcff")
