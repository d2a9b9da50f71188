"""MATLAB files (version 5) without the fields of their structures that nobody wants.

scipy reads a file whole: the label file of CUB holds a mask for each of its 5964 birds, 1.2 GB, beside the 15 points
that are wanted. Here the file goes by as a stream, what is not wanted is passed over, and scipy reads the rest.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

_HEADER, _MATRIX, _COMPRESSED, _STRUCT = 128, 14, 15, 2
_VERSION = 0x0100
_CHUNK = 1 << 16


def without_fields(path: str | Path, unwanted: Collection[str]) -> io.BytesIO:
    """The file at `path` without the fields named `unwanted` of its structure arrays, ready for scipy's loadmat.

    Raises ValueError for what is not a MATLAB 5 file.
    """
    with Path(path).open("rb") as file:
        header = file.read(_HEADER)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if order is None or struct.unpack(order + "H", header[124:126])[0] != _VERSION:
            raise ValueError("it is not of MATLAB's version 5 to 7")
        parts = [header]
        while tag := file.read(8):
            kind, size = _unpack(order, tag)
            start = file.tell()
            if kind == _COMPRESSED:
                stream = _Stream(file, order, size, compressed=True)
                kind, size = _unpack(order, stream.read(8))
            else:
                stream = _Stream(file, order, size, compressed=False)
            body = stream.matrix(size, unwanted) if kind == _MATRIX else stream.read(size)
            parts.append(struct.pack(order + "II", kind, len(body)) + body)
            file.seek(start + _unpack(order, tag)[1])
    return io.BytesIO(b"".join(parts))


def _unpack(order: str, tag: bytes) -> tuple[int, int]:
    if len(tag) != 8:
        raise ValueError("it ends in the middle")
    return struct.unpack(order + "II", tag)


class _Stream:
    """The bytes of one variable, inflated as they are asked for."""

    def __init__(self, file: BinaryIO, order: str, size: int, compressed: bool):
        self.file, self.order, self.left = file, order, size
        self.inflate = zlib.decompressobj() if compressed else None

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        parts = []
        while count > 0:
            parts.append(self._some(count))
            count -= len(parts[-1])
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Pass over `count` bytes without keeping them."""
        while count > 0:
            count -= len(self._some(min(count, _CHUNK)))

    def _some(self, count: int) -> bytes:
        if self.inflate is None:
            data = self.file.read(min(count, self.left))
            self.left -= len(data)
        else:
            waiting = self.inflate.unconsumed_tail
            if not waiting:
                waiting = self.file.read(min(_CHUNK, self.left))
                self.left -= len(waiting)
            data = self.inflate.decompress(waiting, count)
            if not data and waiting:
                return data  # a few bytes of input may give nothing yet
        if not data:
            raise ValueError("it ends in the middle")
        return data

    def _element(self) -> tuple[bytes, bytes]:
        """(all bytes, the data alone) of the next small element."""
        tag = self.read(8)
        first = struct.unpack(self.order + "I", tag[:4])[0]
        if first >> 16:  # the short form: up to four bytes within the tag
            return tag, tag[4 : 4 + (first >> 16)]
        size = _unpack(self.order, tag)[1]
        data = self.read(size + -size % 8)
        return tag + data, data[:size]

    def matrix(self, size: int, unwanted: Collection[str]) -> bytes:
        """The body of a matrix of `size` bytes; of a structure array only the wanted fields."""
        flags, content = self._element()
        kind = struct.unpack(self.order + "I", content[:4])[0] & 0xFF
        if kind != _STRUCT:
            return flags + self.read(size - len(flags))
        shape, dims = self._element()
        name, _ = self._element()
        _, length = self._element()
        (length,) = struct.unpack(self.order + "i", length[:4])
        _, names = self._element()
        fields = [names[i : i + length] for i in range(0, len(names), length)]
        wanted = [field.split(b"\0")[0].decode("latin1") not in unwanted for field in fields]
        kept = b"".join(field for field, keep in zip(fields, wanted, strict=True) if keep)
        head = struct.pack(self.order + "HHi", 5, 4, length) + struct.pack(self.order + "II", 1, len(kept))
        parts = [flags, shape, name, _short(self.order, head), kept + b"\0" * (-len(kept) % 8)]
        count = 1
        for side in struct.unpack(f"{self.order}{len(dims) // 4}i", dims):
            count *= side
        for _ in range(count):
            for keep in wanted:
                tag = self.read(8)
                field_size = _unpack(self.order, tag)[1]
                if keep:
                    parts.append(tag + self.read(field_size))
                else:
                    self.skip(field_size)
        return b"".join(parts)


def _short(order: str, head: bytes) -> bytes:
    """The short form has its size in the upper half of the first word, whichever way the bytes go."""
    kind, size = struct.unpack(order + "HH", head[:4])
    return struct.pack(order + "I", size << 16 | kind) + head[4:]
