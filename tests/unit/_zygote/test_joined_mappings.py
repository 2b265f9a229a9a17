"""Which mappings of a library are joined, and that all goes on as before when they are."""

from __future__ import annotations

import _decimal
import subprocess
import sys
from textwrap import dedent

import pytest

from palpable._zygote.joined_mappings import _own_addresses, to_change
from palpable._zygote.memory_map import Mapping, read_mappings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is joined")


def run(script: str) -> str:
    """Run `script` in a process of its own, since what it does can't be taken back; return what it prints."""
    done = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_five_parts_of_a_library_become_two_and_it_works_as_before() -> None:
    script = """
        import _decimal, os, zlib
        from palpable._zygote import joined_mappings
        from palpable._zygote.memory_map import read_mappings
        def parts():
            return [mapping.rights for mapping in read_mappings() if mapping.name == _decimal.__file__]
        before = parts()
        joined_mappings.join()
        third = str(_decimal.Decimal(1) / 3)
        import _lzma, decimal
        assert _lzma.FORMAT_AUTO == 0 and zlib.decompress(zlib.compress(b"a" * 9999)) == b"a" * 9999
        pid = os.fork()
        if pid == 0:
            os._exit(str(decimal.Decimal(1) / 3) != third)
        assert os.waitpid(pid, 0)[1] == 0
        assert joined_mappings.join() > 0  # what was loaded since
        assert joined_mappings.join() == 0
        print(len(before), " ".join(parts()), third)
    """
    before, *after = run(script).split()
    assert after.pop() == "0." + 28 * "3"
    assert set(after) == {"r-xp", "rw-p"}
    if before == "5":  # other linkers make other parts
        assert len(after) == 2


def test_the_interpreter_the_c_library_and_the_linker_stay_as_they_are() -> None:
    mappings = read_mappings()
    addresses = _own_addresses()
    own = {part.name for part in mappings for address in addresses if part.start <= address < part.end}
    assert len(own) >= 3
    changed = {mapping.name for mapping, _ in to_change(mappings, addresses)}
    assert not own & changed
    assert _decimal.__file__ in changed


def test_a_file_that_is_no_library_is_left_alone() -> None:
    script = """
        import mmap, sys, tempfile
        from palpable._zygote.joined_mappings import to_change
        from palpable._zygote.memory_map import read_mappings
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"\\x7fELF\\x02\\x01" + b"\\xff" * 9000)
            file.flush()
            kept = [
                mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | also)
                for also in (0, mmap.PROT_EXEC)
            ]
            mine = [mapping for mapping in read_mappings() if mapping.name == file.name]
            assert {mapping.rights for mapping in mine} == {"r--p", "r-xp"}, mine
            print([mapping for mapping, _ in to_change(mine, [])])
    """
    assert run(script) == "[]\n"


def test_what_begins_elsewhere_than_at_the_beginning_of_its_file_is_left_alone() -> None:
    parts = [Mapping(0x1000, 0x2000, "r--p", 0x1000, "/lib/a.so"), Mapping(0x2000, 0x3000, "r-xp", 0x2000, "/lib/a.so")]
    assert list(to_change(parts, [])) == []


def test_what_has_no_code_is_left_alone() -> None:
    parts = [Mapping(0x1000, 0x2000, "r--p", 0, "/lib/a.dat"), Mapping(0x2000, 0x3000, "r--p", 0x1000, "/lib/a.dat")]
    assert list(to_change(parts, [])) == []
