"""Which part of the program code goes to huge pages."""

import subprocess
import sys

import pytest

from palpable._zygote.huge_code import movable
from palpable._zygote.memory_map import Mapping

MB = 1 << 20
LIBRARY = "/lib/libpython.so"


def mappings(*parts: tuple[int, int, str, str]) -> list[Mapping]:
    return [Mapping(start, end, rights, 0, name) for start, end, rights, name in parts]


def test_the_first_part_of_the_code_stays_where_profilers_look_for_it() -> None:
    found = mappings(
        (2 * MB, 3 * MB, "r--p", LIBRARY), (3 * MB, 7 * MB, "r-xp", LIBRARY), (7 * MB, 8 * MB, "r--p", LIBRARY)
    )
    assert movable(found, 5 * MB) == [4 * MB, 6 * MB]


def test_what_can_be_written_to_stays() -> None:
    found = mappings((0, 5 * MB, "r-xp", LIBRARY), (5 * MB, 8 * MB, "rw-p", LIBRARY))
    assert movable(found, MB) == [2 * MB]


@pytest.mark.parametrize("gap", [(5 * MB, 8 * MB, "r--p", "/other"), (6 * MB, 9 * MB, "r--p", LIBRARY)])
def test_only_what_follows_at_once_of_the_same_file_is_moved(gap: tuple[int, int, str, str]) -> None:
    assert movable(mappings((0, 5 * MB, "r-xp", LIBRARY), gap), MB) == [2 * MB]


def test_code_in_no_file_is_left_alone() -> None:
    assert movable(mappings((0, 8 * MB, "r-xp", "")), MB) == []
    assert movable(mappings((0, 8 * MB, "r-xp", LIBRARY)), 9 * MB) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is moved")
def test_the_interpreter_runs_on_from_where_its_code_was_moved() -> None:
    """In a process of its own. Also where the system does not allow it, which must be seen in time."""
    program = (
        "from palpable._zygote.huge_code import move_there, movable, _address_of_code\n"
        "from palpable._zygote.memory_map import read_mappings\n"
        "could = movable(read_mappings(), _address_of_code())\n"
        "moved = move_there()\n"
        "assert set(moved) <= set(could)\n"
        "anonymous = [m for m in read_mappings() if not m.name and m.rights == 'r-xp']\n"
        "assert all(any(m.start <= address < m.end for m in anonymous) for address in moved)\n"
        "import ast, decimal, json, re\n"
        "assert re.sub('a+', 'b', 'caat') == 'cbt' and json.loads('[1.5]') == [1.5]\n"
        "assert eval(compile(ast.parse('2 ** 50', mode='eval'), '', 'eval')) == int(decimal.Decimal(2) ** 50)\n"
        "import os\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(7 if sorted([3, 1, 2]) == [1, 2, 3] else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
