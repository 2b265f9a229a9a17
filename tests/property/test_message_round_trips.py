"""Frames: whatever a stream is cut into, what was sent arrives; whatever else comes, only `FrameError` does."""

from __future__ import annotations

import itertools
import struct
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palpable._wire import handshake, messages
from palpable._wire.framing import FrameError, FrameReader, encode_frame

MANY = settings(max_examples=60)
FEW = settings(max_examples=15)

CONVERSATIONS: dict[str, Any] = {
    "client to server": messages.ClientRequest,
    "server to client": messages.ServerAnswer,
    "from a task process": messages.FromTaskProcess,
    "to a task process": messages.ToTaskProcess,
    "from a zygote": messages.FromZygote,
    "to a zygote": messages.ToZygote,
    "handshake, to the server": handshake.HandshakeToServer,
    "handshake, to the client": handshake.HandshakeToClient,
}

text = st.text(st.characters(codec="utf-8"), max_size=20)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a type that occurs in the messages."""
    if kind is Any:
        return json_like
    if kind is type(None):
        return st.none()
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(-(2**63), 2**64 - 1)
    if kind is float:
        return st.floats(allow_nan=False)
    if kind is str:
        return text
    if kind is bytes:
        return st.binary(max_size=200)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin is typing.Annotated:
        least, too_many = args[1].ge, args[1].lt
        if args[0] is float:
            return st.floats(min_value=least, allow_nan=False)
        return st.integers(least, too_many - 1)
    if origin is list:
        return st.lists(values_of(args[0]), max_size=4)
    if origin is dict:
        return st.dictionaries(values_of(args[0]), values_of(args[1]), max_size=4)
    if origin is tuple:
        if args[-1] is ...:
            return st.lists(values_of(args[0]), max_size=4).map(tuple)
        return st.tuples(*map(values_of, args))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        return st.fixed_dictionaries({field.name: values_of(field.type) for field in fields}).map(
            lambda values: kind(**values)
        )
    return st.one_of(*map(values_of, args))


def messages_of(conversation: Any) -> st.SearchStrategy[Any]:
    return st.one_of(*(values_of(kind) for kind in typing.get_args(conversation)))


def feed_in_pieces(reader: FrameReader[Any], data: bytes, cuts: list[int]) -> list[Any]:
    received = []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        received += reader.feed(data[start:end])
    return received


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
@MANY
@given(data=st.data(), cuts=st.lists(st.integers(0, 10**6), max_size=30))
def test_messages_arrive_in_order_however_the_stream_is_cut(conversation: Any, data: Any, cuts: list[int]) -> None:
    sent = data.draw(st.lists(messages_of(conversation), min_size=1, max_size=5))
    reader: FrameReader[Any] = FrameReader(conversation)
    assert feed_in_pieces(reader, b"".join(map(encode_frame, sent)), cuts) == sent
    assert not reader.has_partial


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
@given(data=st.data())
@FEW
def test_messages_arrive_byte_by_byte(conversation: Any, data: Any) -> None:
    sent = data.draw(messages_of(conversation))
    reader: FrameReader[Any] = FrameReader(conversation)
    frame = bytes(encode_frame(sent))
    for end in range(1, len(frame)):
        assert reader.feed(frame[end - 1 : end]) == []
        assert reader.has_partial
    assert reader.feed(frame[-1:]) == [sent]


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
@MANY
@given(pieces=st.lists(st.binary(max_size=60), max_size=6))
@example(pieces=[b"\x00\x00\x00\x00"])
@example(pieces=[b"\x01\x00\x00\x00\xc1"])
@example(pieces=[b"\x05\x00\x00\x00\x81\xa4type"])
@example(pieces=[b"\xff\xff\xff\xff"])
def test_garbage_is_a_frame_error_and_nothing_else(conversation: Any, pieces: list[bytes]) -> None:
    reader: FrameReader[Any] = FrameReader(conversation, limit_bytes=4096)
    try:
        for piece in pieces:
            for message in reader.feed(piece):
                assert isinstance(message, typing.get_args(conversation))
    except FrameError as error:
        assert len(str(error)) < 500


@MANY
@given(message=messages_of(messages.ClientRequest), place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_byte_changed_on_the_way_is_another_message_or_a_frame_error(message: Any, place: int, value: int) -> None:
    frame = encode_frame(message)
    frame[place % len(frame)] = value
    reader: FrameReader[Any] = FrameReader(messages.ClientRequest, limit_bytes=1 << 20)
    try:
        assert len(reader.feed(frame)) <= 1 + len(frame) // 4
    except FrameError:
        pass


@MANY
@given(size=st.integers(0, 2**32 - 1), limit=st.integers(0, 2**20))
def test_a_frame_over_the_limit_is_refused_by_its_length_alone(size: int, limit: int) -> None:
    reader: FrameReader[Any] = FrameReader(messages.ClientRequest, limit_bytes=limit)
    header = struct.pack("<I", size)
    if size > limit:
        with pytest.raises(FrameError, match=str(size)):
            reader.feed(header)
    elif size:
        assert reader.feed(header) == [] and reader.has_partial


@MANY
@given(first=messages_of(messages.ClientRequest), second=messages_of(messages.ClientRequest))
def test_what_came_before_an_oversized_frame_was_delivered(first: Any, second: Any) -> None:
    frame = encode_frame(first)
    reader: FrameReader[Any] = FrameReader(messages.ClientRequest, limit_bytes=len(frame) - 4)
    assert reader.feed(frame) == [first]
    with pytest.raises(FrameError):
        reader.feed(struct.pack("<I", len(frame) - 3) + b"x" * (len(frame) - 3))


@pytest.mark.parametrize("conversation", CONVERSATIONS.values(), ids=CONVERSATIONS)
@given(data=st.data())
@FEW
def test_fields_of_a_later_version_are_passed_over(conversation: Any, data: Any) -> None:
    sent = data.draw(messages_of(conversation))
    fields = msgspec.to_builtins(sent, builtin_types=(bytes,))
    body = msgspec.msgpack.encode({**fields, "a_field_of_a_later_version": [1, {"x": None}]})
    reader: FrameReader[Any] = FrameReader(conversation)
    assert reader.feed(struct.pack("<I", len(body)) + body) == [sent]


def test_tags_are_never_shared() -> None:
    tags: dict[str, type] = {}
    for conversation in CONVERSATIONS.values():
        for kind in typing.get_args(conversation):
            tag = kind.__struct_config__.tag
            assert tags.setdefault(tag, kind) is kind, f"{tag} is used by {kind} and {tags[tag]}"
