"""Pages of the user guide as something that can be run: their programs, files and shell sessions, from top to bottom.

What is run, of the fenced blocks of a page:

    python      a program of its own; a `text` block right below it is what it prints
    console     lines that begin with `$ ` are typed into one shell, what follows is what they print
    any other   after a line that ends with a name in backticks and a colon, `tasks.py`: a file of that name

In what is printed, `...` stands for anything. Blocks of another kind, and `sh`, are shown and not run.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.wait import wait_until

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"`(\w[\w-]*\.\w+)`:\n+\Z")  # a plain name: a page may speak of `/etc/...`, but writes nothing there
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@dataclass
class Program:
    """A whole program, and what it prints."""

    text: str
    output: str


@dataclass
class File:
    """A file that the reader saves."""

    name: str
    text: str


@dataclass
class Session:
    """What the reader types, and sees."""

    commands: list[tuple[str, str]]


def blocks_of(page: str) -> Iterator[Program | File | Session]:
    """Yield what of a page can be run, in its order."""
    for match in BLOCK.finditer(page):
        kind, text, output = match.groups()
        name = NAMED.search(page[: match.start()])
        if name is not None:
            yield File(name[1], text)
        elif kind == "python":
            yield Program(text, output or "")
        elif kind == "console":
            yield Session(COMMAND.findall(text))


def is_as_shown(shown: str, printed: str) -> bool:
    """Whether this was printed, or something that `...` allows for. How wide columns are does not count."""
    pattern = re.escape(_with_single_spaces(shown)).replace(re.escape("..."), ".*?")
    return re.fullmatch(pattern, _with_single_spaces(printed), re.DOTALL) is not None


def _with_single_spaces(text: str) -> str:
    return re.sub(" +", " ", text).strip()


def run_page(page: str, folder: Path) -> None:
    """Run a page in an empty folder. Raises AssertionError where something is not as the page shows it."""
    with _shell(folder) as shell:
        for block in blocks_of(page):
            match block:
                case File(name, text):
                    (folder / name).write_text(text)
                case Program(text, output):
                    (folder / "program.py").write_text(text)
                    shell.type("python program.py", output)
                case Session(commands):
                    for command, output in commands:
                        shell.type(command, output)


class _Shell:
    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._count = 0
        self.background: list[int] = []

    def type(self, command: str, shown: str) -> None:
        """Have a command executed. One that ends with `&` goes on; all it has to do is to print what is shown."""
        self._count += 1
        output, ended = (self._folder / f"{what}-{self._count}" for what in ("output", "ended"))
        is_background = command.endswith("&")
        # Disowned, so that the shell says nothing when it ends.
        after = 'disown -a; echo "$!"' if is_background else "echo"
        script = f"{{ {command}\n}} > '{output}' 2>&1 < /dev/null\n{{ {after}\n}} > '{ended}.new'\n"
        script += f"mv '{ended}.new' '{ended}'\n"
        assert self._process.stdin is not None
        self._process.stdin.write(script)
        self._process.stdin.flush()
        wait_until(ended.exists, 40)
        if is_background:
            self.background.append(int(ended.read_text()))
            with contextlib.suppress(AssertionError):  # told below, with what was printed
                wait_until(lambda: is_as_shown(shown, output.read_text()), 20)
        printed = output.read_text()
        assert is_as_shown(shown, printed), f"$ {command}\n{printed}\n--- the page shows:\n{shown}"


@contextmanager
def _shell(folder: Path) -> Iterator[_Shell]:
    with tempfile.TemporaryDirectory(prefix="page") as home:
        files = Path(home)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PALPABLE_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": home,
            "PALPABLE_HOME": f"{home}/run",  # short: it holds a socket
            "XDG_STATE_HOME": f"{home}/state",
            "TMPDIR": home,  # a server that a page kills leaves its private folder there
            "PYTHONWARNINGS": "error",
        }
        process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        shell = _Shell(process, files)
        try:
            yield shell
        finally:
            for pid in shell.background:
                _end(pid)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(20)


def _end(pid: int) -> None:
    """End what the page left running, and wait until it, and its children, are gone."""
    try:
        process = psutil.Process(pid)
        children = process.children(recursive=True)
        process.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs([process, *children], timeout=20)
    for left in alive:
        left.kill()
    assert not alive, f"still there: {alive}"
