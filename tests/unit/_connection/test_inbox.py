"""Bytes become messages, also when the thread that reads is interrupted between any two steps."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from palpable._connection.inbox import Inbox
from palpable._wire.framing import FrameError, encode_frame


def _recv_of(*pieces: bytes) -> Any:
    left = list(pieces)
    return lambda size, flags: left.pop(0) if left else b""


@pytest.mark.parametrize("cut", range(11))
def test_a_message_cut_anywhere_comes_whole(cut: int) -> None:
    data = bytes(encode_frame("first") + encode_frame("x"))
    inbox, found = Inbox(str), list[str]()
    recv = _recv_of(*(piece for piece in (data[:cut], data[cut:]) if piece))
    while inbox.receive(recv):
        inbox.dispatch_each(found.append)
    assert found == ["first", "x"]


def test_the_end_of_the_stream_is_told() -> None:
    assert not Inbox(str).receive(_recv_of())


def test_bytes_from_before_come_first() -> None:
    frame = bytes(encode_frame("early"))
    inbox, found = Inbox(str, frame[:3]), list[str]()
    assert inbox.may_hold_messages
    inbox.receive(_recv_of(frame[3:]))
    inbox.dispatch_each(found.append)
    assert found == ["early"]


def test_what_comes_after_a_reader_in_the_middle_of_recv_is_kept() -> None:
    first, second = (bytes(encode_frame(word)) for word in ("first", "second"))
    inbox, found = Inbox(str), list[str]()

    def recv(size: int, flags: int) -> bytes:
        """A signal handler comes while nothing is there to be received, and reads; then there is more."""
        assert inbox.receive(_recv_of(first))
        inbox.dispatch_each(found.append)
        return second

    assert inbox.receive(recv)
    inbox.dispatch_each(found.append)
    assert found == ["first", "second"]


def test_the_end_of_the_stream_is_told_after_a_reader_in_the_middle_of_recv() -> None:
    inbox, found = Inbox(str), list[str]()

    def recv(size: int, flags: int) -> bytes:
        inbox.receive(_recv_of(bytes(encode_frame("last"))))
        inbox.dispatch_each(found.append)
        return b""

    while inbox.receive(recv if not found else _recv_of()):
        inbox.dispatch_each(found.append)
    assert found == ["last"]


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    inbox = Inbox(str, bytes(encode_frame("x" * 100)), limit_bytes=50)
    with pytest.raises(FrameError, match="over the limit of 50 bytes"):
        inbox.dispatch_each(print)


def test_garbage_is_refused() -> None:
    inbox = Inbox(str, b"\x01\x00\x00\x00\xc1")
    with pytest.raises(FrameError, match="not a message"):
        inbox.dispatch_each(print)


def test_a_dispatch_that_was_interrupted_is_done_again_and_nothing_is_lost() -> None:
    inbox, found = Inbox(int), list[int]()
    inbox.receive(_recv_of(b"".join(bytes(encode_frame(number)) for number in range(5))))
    is_interrupted = False

    def dispatch(number: int) -> None:
        nonlocal is_interrupted
        found.append(number)
        if number == 2 and not is_interrupted:
            is_interrupted = True
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inbox.dispatch_each(dispatch)
    assert inbox.may_hold_messages
    inbox.dispatch_each(dispatch)
    assert found == [0, 1, 2, 2, 3, 4]
    assert not inbox.may_hold_messages


def test_a_receive_that_fails_changes_nothing() -> None:
    inbox, found = Inbox(str, bytes(encode_frame("kept"))[:4]), list[str]()

    def interrupted(size: int, flags: int) -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inbox.receive(interrupted)
    inbox.receive(_recv_of(bytes(encode_frame("kept"))[4:]))
    inbox.dispatch_each(found.append)
    assert found == ["kept"]


def test_a_handler_that_reads_itself_while_a_message_is_dispatched_loses_nothing() -> None:
    inbox, found = Inbox(int), list[int]()
    frames = [bytes(encode_frame(number)) for number in range(4)]
    inbox.receive(_recv_of(frames[0] + frames[1]))

    def dispatch(number: int) -> None:
        if number == 0 and not found:
            found.append(number)
            inbox.receive(_recv_of(frames[2] + frames[3]))
            inbox.dispatch_each(dispatch)
        else:
            found.append(number)

    inbox.dispatch_each(dispatch)
    assert sorted(set(found)) == [0, 1, 2, 3]


def test_large_messages_are_read_in_large_pieces() -> None:
    sizes = []
    frame = bytes(encode_frame("x" * 300_000))
    position = 0

    def recv(size: int, flags: int) -> bytes:
        nonlocal position
        sizes.append(size)
        piece = frame[position : position + size]
        position += len(piece)
        return piece

    inbox, found = Inbox(str), list[str]()
    while inbox.receive(recv):
        inbox.dispatch_each(found.append)
    assert found == ["x" * 300_000]
    assert sizes[0] < sizes[1]


def test_a_message_that_is_dispatched_again_is_the_same_object() -> None:
    inbox, found = Inbox(list), list[Any]()
    inbox.receive(_recv_of(bytes(encode_frame([1])) + bytes(encode_frame([1]))))

    def dispatch(message: Any) -> None:
        found.append(message)
        if len(found) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inbox.dispatch_each(dispatch)
    inbox.dispatch_each(dispatch)
    assert found == [[1]] * 3
    assert [message is found[0] for message in found] == [True, True, False]


def test_a_message_that_is_dispatched_is_held_no_longer() -> None:
    inbox = Inbox(set)
    inbox.receive(_recv_of(bytes(encode_frame([1]))))
    gone: list[weakref.ref[Any]] = []
    inbox.dispatch_each(lambda message: gone.append(weakref.ref(message)))
    assert gone[0]() is None


def test_what_a_signal_handler_dispatches_while_a_message_is_decoded_is_not_dispatched_again() -> None:
    inbox, found = Inbox(int), list[int]()
    inbox.receive(_recv_of(bytes(encode_frame(1)) + bytes(encode_frame(2))))
    decoder = inbox._decoder

    class Handled:
        """A decoder that is interrupted by the handler before it returns."""

        def decode(self, data: Any) -> Any:
            inbox._decoder = decoder
            message = decoder.decode(data)
            inbox.receive(_recv_of(bytes(encode_frame(3))))
            inbox.dispatch_each(found.append)
            return message

    inbox._decoder = Handled()  # type: ignore[assignment]
    inbox.dispatch_each(found.append)
    assert found == [1, 2, 3]
