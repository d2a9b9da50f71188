"""Tables of labels that come as pandas pickles, read without running what a pickle could contain.

A pickle is a program: it names functions and classes and calls them. Here the few names that a table needs
stand for inert records of what they were called with, any other name ends the reading, and the columns are
then taken out of the records by the code below. Not even the constructors of numpy and pandas get to see
what the file says: they trust it with memory (an array of objects over raw bytes is an array of pointers).
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import KeypointError


class _Record:
    """What the pickle called something with: args, and state where it set one."""

    def __new__(cls, *args: Any):
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Encode(_Record):
    """_codecs.encode, which the older protocols spell bytes with."""

    def __new__(cls, text: str, encoding: str):
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
        return text.encode("latin1")


class _NoBytes(_Record):
    """bytes(), the older protocols' empty bytes."""

    def __new__(cls):
        return b""


def _record(made: Any, *args: Any) -> Any:
    if not isinstance(made, type) or not issubclass(made, _Record):
        raise pickle.UnpicklingError("an object of no class")
    return made(*args)


class _Reconstructor(_Record):
    """copyreg._reconstructor, by which the older protocols make an empty object of a class."""

    def __new__(cls, made: Any, *rest: Any):
        return _record(made)


class _Partial(_Record):
    """functools.partial, which pandas 1.3 binds a block's number of dimensions with."""

    def __call__(self, *args: Any):
        return _record(self.args[0], *args)


_MODULES = {
    "builtins __builtin__": "object slice bytearray bytes",
    "_codecs": "encode",
    "copyreg copy_reg": "_reconstructor",
    "functools": "partial",
    "numpy": "ndarray dtype",
    "numpy.core.multiarray numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric numpy._core.numeric": "_frombuffer",
    "pandas": "DataFrame Index RangeIndex StringDtype NA",
    "pandas.arrays": "ArrowStringArray StringArray",
    "pandas.core.frame": "DataFrame",
    "pandas.core.internals pandas.core.internals.managers": "BlockManager",
    "pandas.core.internals.blocks": "new_block",
    "pandas._libs.internals": "_unpickle_block",
    "pandas._libs.missing": "NA",
    "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
    "pandas.core.indexes.base": "_new_Index Index",
    "pandas.core.indexes.range": "RangeIndex",
    "pandas.core.indexes.numeric": "Int64Index",
    "pandas.core.arrays.string_": "StringArray StringDtype",
    "pandas.core.arrays.string_arrow": "ArrowStringArray",
    "pyarrow.lib": "_restore_array type_for_alias py_buffer chunked_array",
}
_SPECIAL = {"encode": _Encode, "bytes": _NoBytes, "_reconstructor": _Reconstructor, "partial": _Partial}
#: (module, name) -> the class of records that stands for it
ALLOWED: dict[tuple[str, str], type[_Record]] = {
    (module, name): _SPECIAL.get(name) or type(name, (_Record,), {})
    for modules, names in _MODULES.items()
    for module in modules.split()
    for name in names.split()
}


def read_table(path: str | Path, columns: Sequence[str]) -> dict[str, list]:
    """The named columns of a pandas table in a pickle file: strings, numbers, lists and arrays, one per row.

    Raises KeypointError when the file wants anything that a table of labels does not need (a malicious
    pickle), and when it is no pickled table with these columns. pandas itself is not needed.
    """
    path = Path(path)

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> type[_Record]:
            if (module, name) not in ALLOWED:
                raise KeypointError(
                    f"{path} asks for {module}.{name}, which a table of labels does not need; it was not "
                    "read, because it could run any program. Download it again from its source."
                )
            return ALLOWED[module, name]

    try:
        with path.open("rb") as file:
            return _columns(Restricted(file, encoding="latin1").load(), columns)
    except KeypointError:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        raise KeypointError(
            f"{path} cannot be read as a pickled table with the columns {', '.join(columns)} "
            f"({type(error).__name__}: {error}); download it again."
        ) from error


def _is(value: Any, *names: str) -> bool:
    return isinstance(value, _Record) and type(value).__name__ in names


def _columns(frame: Any, columns: Sequence[str]) -> dict[str, list]:
    if not _is(frame, "DataFrame"):
        raise ValueError("it holds something else")
    manager = frame.state["_mgr"] if "_mgr" in frame.state else frame.state["_data"]
    if manager.args:  # since pandas 1.3: blocks and axes
        blocks, axes = [block.args[:2] for block in manager.args[0]], manager.args[1]
    else:
        content = manager.state[3]["0.14.1"]  # the format's name since that version
        blocks, axes = [(b["values"], b["mgr_locs"]) for b in content["blocks"]], content["axes"]
    names = _row(axes[0].args[1]["data"])
    found = {column: _column(blocks, names.index(column)) for column in columns}
    if len({len(values) for values in found.values()}) > 1:
        raise ValueError("its columns differ in length")
    return found


def _column(blocks: list[tuple[Any, Any]], position: int) -> list:
    """Values of a column; a block holds the columns in its slice or index array, one per row."""
    for values, places in blocks:
        where = range(*_slice(places)) if _is(places, "slice") else _array(places).tolist()
        if position in where:
            values = _array(values) if _is(values, "_reconstruct", "_frombuffer") else [values]
            return _row(values[where.index(position)])
    raise ValueError("a column has no values")


def _slice(places: _Record) -> tuple[int, int, int]:
    start, stop, step = places.args
    return start or 0, stop, 1 if step is None else step


def _row(values: Any) -> list:
    """One-dimensional values as a list, whatever they are kept in."""
    if _is(values, "ArrowStringArray"):
        return _arrow_strings(values.state["_pa_array"])
    if _is(values, "StringArray", "__pyx_unpickle_NDArrayBacked"):
        state = values.state[0] if isinstance(values.state, tuple) else values.state
        values = state["_ndarray"] if isinstance(state, dict) else values.state[1]
    return [_plain(value) for value in (_array(values) if isinstance(values, _Record) else values)]


def _plain(value: Any) -> Any:
    """A cell: arrays and numbers of numpy, in lists too."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if _is(value, "scalar"):
        return np.frombuffer(_bytes(value.args[1]), _dtype(value.args[0]), 1)[0]
    if _is(value, "_reconstruct", "_frombuffer"):
        array = _array(value)
        return array if not array.dtype.hasobject else np.array(_plain(array.tolist()))
    if isinstance(value, (_Record, type)):
        raise ValueError(f"{getattr(value, '__name__', type(value).__name__)} in a cell")
    return value


def _array(record: Any) -> np.ndarray:
    """The array that numpy would make; of the objects in it, records stay records."""
    if _is(record, "_frombuffer"):
        raw, dtype, shape, order = record.args
    else:
        _, shape, dtype, fortran, raw = record.state
        order = "F" if fortran else "C"
    kind = _dtype(dtype)
    if not kind.hasobject:
        return np.frombuffer(_bytes(raw), kind).reshape(shape, order=order)
    if not isinstance(raw, list) or len(raw) != math.prod(shape):
        raise ValueError("an array of another size")
    flat = np.empty(len(raw), object)
    for i, value in enumerate(raw):  # one by one: numpy would look into the values
        flat[i] = value
    return flat.reshape(shape, order=order)


def _dtype(record: Any) -> np.dtype:
    """Numbers, truth values, text and objects; nothing composed of these."""
    text = record.args[0] if _is(record, "dtype") else ""
    if not re.fullmatch(r"[biuf][1248]|O8?|[US]\d{1,4}", text):
        raise ValueError(f"values of type {text!r}")
    order = record.state[1] if record.state else "="
    return np.dtype(text).newbyteorder(order if order in ("<", ">") else "=")


def _bytes(raw: Any) -> bytes:
    """Raw data; Python 2 wrote it as text."""
    while _is(raw, "py_buffer", "bytearray"):
        (raw,) = raw.args
    return raw.encode("latin1") if isinstance(raw, str) else memoryview(raw).tobytes()


def _arrow_strings(record: Any) -> list[str]:
    """Text as pandas 3 keeps it: one run of UTF-8, and where each string begins in it."""
    if _is(record, "chunked_array"):
        return [text for chunk in record.args[0] for text in _arrow_strings(chunk)]
    kind, length, nulls, offset, buffers = record.args[0][:5]
    if nulls > 0:
        raise ValueError("missing text")
    wide = {"string": "<i4", "large_string": "<i8"}[kind.args[0]]
    starts = np.frombuffer(_bytes(buffers[1]), wide)[offset : offset + length + 1].tolist()
    data = _bytes(buffers[2])
    if len(starts) != length + 1 or any(s < 0 or s > len(data) for s in starts):
        raise ValueError("text of another size")
    return [data[a:b].decode() for a, b in zip(starts, starts[1:], strict=False)]
