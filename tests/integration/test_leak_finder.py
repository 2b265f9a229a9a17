"""The proof itself is tested: whatever a test could leave behind is found."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

from support.leaks import find_leaks, take_stock
from support.processes import wait_gone
from support.wait import wait_until


def test_nothing_is_found_where_nothing_was_left(tmp_path: Path) -> None:
    before = take_stock([tmp_path])
    assert find_leaks(before, [tmp_path], timeout_seconds=0) == []


def test_a_child_is_found_dead_or_alive(tmp_path: Path) -> None:
    before = take_stock([tmp_path])
    with subprocess.Popen(["sleep", "1000"]) as child:
        leaks = find_leaks(before, [tmp_path], timeout_seconds=0)
        child.kill()
    assert len(leaks) == 1 and f"process {child.pid}" in leaks[0] and "sleep" in leaks[0]
    assert find_leaks(before, [tmp_path], timeout_seconds=0) == []


def test_a_daemon_that_left_its_parent_and_its_session_is_found(tmp_path: Path) -> None:
    before = take_stock([tmp_path])
    script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' &"
    subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.DEVNULL)
    pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    leaks = find_leaks(before, [tmp_path], timeout_seconds=0)
    os.kill(pid, 9)
    wait_gone([pid])
    assert [leak for leak in leaks if f"process {pid}" in leak]


def test_a_thread_is_found_by_name(tmp_path: Path) -> None:
    before = take_stock([tmp_path])
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="the thread that stayed")
    thread.start()
    leaks = find_leaks(before, [tmp_path], timeout_seconds=0)
    go.set()
    thread.join()
    assert leaks == ["thread the thread that stayed"]


def test_a_file_descriptor_is_found_with_what_it_leads_to(tmp_path: Path) -> None:
    before = take_stock([tmp_path])
    with open(tmp_path / "a file", "w"):
        leaks = find_leaks(before, [tmp_path], timeout_seconds=0)
    assert len(leaks) == 1 and leaks[0].endswith("a file")


def test_a_socket_file_is_found(tmp_path: Path) -> None:
    before = take_stock([tmp_path])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a socket"))
    assert find_leaks(before, [tmp_path], timeout_seconds=0) == [f"file {tmp_path / 'a socket'}"]
    (tmp_path / "a socket").unlink()


def test_what_goes_away_by_itself_is_waited_for(tmp_path: Path) -> None:
    before = take_stock([tmp_path])
    child = subprocess.Popen(["sleep", "0.3"])
    waiter = threading.Thread(target=child.wait)
    waiter.start()
    assert find_leaks(before, [tmp_path], timeout_seconds=10) == []
    waiter.join()
