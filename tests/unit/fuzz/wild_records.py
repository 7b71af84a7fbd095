"""Records as nobody should send them: near to right ones, and far from them, in MessagePack and JSON."""

import types
import typing
from typing import Annotated, Any, Literal, Union

import msgspec
from hypothesis import strategies as st

_TIMES = st.one_of(st.integers(0, 60).map(lambda hop: hop * 500), st.integers(-(2**63), 2**64 - 1))
_TEXT = st.one_of(
    st.sampled_from(["room", "red", "teapot", "", "en", "zh", "a.mp4", "rtmp://h/a", "gopher://h", "\0", "💡" * 40]),
    st.text(max_size=12),
    st.integers(1, 4_000).map(lambda n: "x" * n),
)
_VECTOR = st.sampled_from([b"", b"\0", b"\0\x3c" * 12, b"\0\x3c" * 24, b"\xff\x7f" * 12, b"\0\x3c" * 11, b"\0" * 25])
_BYTES = st.one_of(_VECTOR, st.binary(max_size=30))
_FLOATS = st.one_of(st.floats(0, 1), st.floats())
_ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), _TIMES, _FLOATS, _TEXT, _BYTES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=4,
)


def fields(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as plain data: mostly what the type says."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return fields(args[0])
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(fields, args))
    if origin is tuple and Ellipsis in args:
        return st.lists(fields(args[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(fields, args))
    if origin is dict:
        return st.dictionaries(fields(args[0]), fields(args[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return struct(kind)
    plain = {int: _TIMES, str: _TEXT, bytes: _BYTES, float: _FLOATS, bool: st.booleans(), type(None): st.none()}
    return plain[kind]


def struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """A struct's fields, most of them; now and then one holds something else."""
    hints = typing.get_type_hints(kind, include_extras=True)
    needed = {f.name for f in msgspec.structs.fields(kind) if f.required}
    each = {name: fields(hint) for name, hint in hints.items() if name != "v"}
    if kind.__struct_config__.array_like:
        return st.tuples(*each.values())
    usual = st.fixed_dictionaries(
        {name: one for name, one in each.items() if name in needed},
        optional={name: one for name, one in each.items() if name not in needed},
    )
    spoilt = st.tuples(usual, st.sampled_from([*each, "v"]), _ANYTHING).map(lambda one: {**one[0], one[1]: one[2]})
    return st.one_of(usual, usual, usual, spoilt)


def _encoded(data: Any, in_json: bool) -> bytes:
    try:
        return msgspec.json.encode(data) if in_json else msgspec.msgpack.encode(data)
    except (ValueError, TypeError, OverflowError):  # no such JSON
        return msgspec.msgpack.encode(None)


def _changed(value: bytes, at: int, by: bytes) -> bytes:
    at %= len(value) + 1
    return value[:at] + by + value[at + len(by) :]


def values(kind: type[msgspec.Struct]) -> st.SearchStrategy[bytes | None]:
    """The bytes of a record of that kind, or of something that claims to be one."""
    whole = st.builds(_encoded, struct(kind), st.booleans())
    damaged = st.builds(_changed, whole, st.integers(0, 2**16), st.binary(min_size=1, max_size=3))
    cut = st.builds(lambda value, at: value[: at % (len(value) + 1)], whole, st.integers(0, 2**16))
    deep = st.integers(1, 5_000).flatmap(lambda n: st.sampled_from([b"\x91" * n, b"[" * n, b'{"a":' * n]))
    return st.one_of(whole, whole, whole, whole, damaged, cut, deep, st.binary(max_size=20), st.none())


def keys(value: bytes | None) -> bytes | None:
    """The key that the record should have, if it can be told."""
    for decode in (msgspec.msgpack.decode, msgspec.json.decode):
        try:
            record = decode(value or b"")
            return str(record.get("product_id", record.get("stream_id", ""))).encode()
        except Exception:  # noqa: BLE001 - it is not that kind of record
            continue
    return b"room"
