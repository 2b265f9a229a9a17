"""Output: what is kept of what a task printed."""

from __future__ import annotations

from pathlib import Path

from palpable.servants.output_store import OutputStore, empty_spool, spool_size


def test_output_below_the_limit_is_kept_whole(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(b"hello\nworld\n")
    store = OutputStore(limit_bytes=100)
    assert store.collect("t", str(spool), 0) == 12
    assert store.data("t") == b"hello\nworld\n"


def test_output_above_the_limit_keeps_head_and_tail_and_says_what_was_cut(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(b"a" * 50 + b"b" * 1000 + b"c" * 50)
    store = OutputStore(limit_bytes=100)
    store.collect("t", str(spool), 0)
    data = store.data("t")
    assert data.startswith(b"a" * 50)
    assert data.endswith(b"c" * 50)
    assert b"1000 bytes were cut here" in data


def test_output_collected_in_pieces_is_the_same_as_at_once(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    text = bytes(range(256)) * 3
    spool.write_bytes(text)
    whole, pieces = OutputStore(200), OutputStore(200)
    whole.collect("t", str(spool), 0)
    for start in range(0, len(text), 37):
        pieces.collect("t", str(spool), start, min(start + 37, len(text)))
    assert pieces.data("t") == whole.data("t")


def test_a_reader_that_followed_gets_the_rest_without_a_gap(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(b"0123456789" * 30)
    store = OutputStore(limit_bytes=100)
    store.collect("t", str(spool), 0)
    assert store.after("t", 290) == b"0123456789"
    assert store.after("t", 300) == b""


def test_pieces_make_up_what_is_kept_each_byte_once(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    for text in (b"", b"x" * 70, b"0123456789" * 10, b"a" * 50 + b"b" * 1000 + b"c" * 50):
        spool.write_bytes(text)
        store = OutputStore(limit_bytes=100)
        store.collect("t", str(spool), 0)
        for size in (1, 7, 50, 2000):
            position, pieces = 0, b""
            while position < len(text):
                data, position = store.piece("t", position, size)
                assert data
                pieces += data
            assert (pieces, position) == (store.data("t"), len(text))


def test_who_has_seen_some_of_what_was_cut_is_told_how_much_is_missing(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_bytes(b"a" * 50 + b"b" * 1000 + b"c" * 50)
    store = OutputStore(limit_bytes=100)
    store.collect("t", str(spool), 0)
    data, position = store.piece("t", 450, 10)
    assert data == b"\n[... 600 bytes were cut here ...]\n" + b"c" * 10
    assert position == 1060


def test_a_silent_task_has_no_entry(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.touch()
    store = OutputStore(limit_bytes=100)
    assert store.collect("t", str(spool), 0) == 0
    assert store.data("t") == b""
    assert store.last_lines("t") == ""


def test_a_spool_file_that_is_gone_is_an_empty_output(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert OutputStore(100).collect("t", missing, 0) == 0
    assert spool_size(missing) == 0
    empty_spool(missing)


def test_the_last_lines_are_the_last_twenty(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.write_text("".join(f"line {number}\n" for number in range(100)))
    store = OutputStore(limit_bytes=10_000)
    store.collect("t", str(spool), 0)
    lines = store.last_lines("t").splitlines()
    assert (len(lines), lines[0], lines[-1]) == (20, "line 80", "line 99")
