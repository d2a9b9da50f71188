"""What a big detection run reads: folders of images, tar shards, Parquet files, here or behind any fsspec
URL.

The input is cut into pieces, each of which one worker reads from beginning to end. A piece is described by
plain values, so that it can be sent to another machine and kept in a file."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from ..errors import KeypointError
from ..images.files import IMAGE_SUFFIXES, BrokenImage, decode_image, reason_of
from .storage import file_system, list_files

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PARQUET_SUFFIXES = (".parquet", ".pq")
# Kinds of Parquet columns, as pyarrow.types names them; views came with pyarrow 16.
_BYTES = ("binary", "large_binary", "binary_view", "fixed_size_binary")
_LISTS = ("list", "large_list", "list_view", "large_list_view", "fixed_size_list")
_TEXTS = ("string", "large_string", "string_view")
Fetch = Callable[[], np.ndarray]  # reads and decodes one image: uint8 [H, W, 3]; BrokenImage, SmallImage


@dataclass(frozen=True)
class Piece:
    """Part of an input. kind "files": images `names` under the URL `place`. "tar": the shard at the URL `place`.
    "rows": rows `start` to `stop` of row group `group` of the Parquet file at the URL `place`; the first row of the
    group is number `first` of the file; images in column `image`, ids in column `id` ("" = none). For the latter two
    names[0] is the beginning of ids."""

    kind: str
    place: str
    names: tuple[str, ...]
    group: int = 0
    first: int = 0
    start: int = 0
    stop: int = 0
    image: str = ""
    id: str = ""

    def to_json(self) -> str:
        """One line of JSON, from which `from_json` makes the same piece."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Piece:
        """The piece that `to_json` wrote."""
        values = json.loads(text)
        return Piece(**{**values, "names": tuple(values["names"])})

    def urls(self) -> list[str]:
        """What of the input this piece covers: image files, or the file it is in."""
        return [f"{self.place}/{name}" for name in self.names] if self.kind == "files" else [self.place]


def find_pieces(
    source: str,
    rows: int,
    column: str | None = None,
    id_column: str | None = None,
    known: frozenset[str] | set[str] = frozenset(),
    leave_out: str = "",
) -> list[Piece]:
    """Cut an input into pieces of about `rows` images; a tar shard, and a row group with image bytes,
    stays whole.

    source: a folder (searched with its sub-folders), a file, or a pattern with `*`; a path or any fsspec URL.
    It may hold images, tar shards or Parquet files, but not several of these. column, id_column: of Parquet
    files. known: URLs that are not wanted again; leave_out: URL of a folder to ignore. Raises KeypointError
    when nothing is found."""
    fs, root, files, base = list_files(source)
    ignored = leave_out.rstrip("/") + "/" if leave_out else None
    kinds: dict[str, list[str]] = {}
    for path in files:
        name = PurePosixPath(path).name.lower()
        if name.startswith(".") or (ignored and fs.unstrip_protocol(path).startswith(ignored)):
            continue
        for kind, suffixes in (("files", IMAGE_SUFFIXES), ("tar", TAR_SUFFIXES), ("rows", PARQUET_SUFFIXES)):
            if name.endswith(suffixes):
                kinds.setdefault(kind, []).append(path)
    if not kinds:
        raise KeypointError(
            f"{source} has no images ({', '.join(s[1:] for s in IMAGE_SUFFIXES)}), no .tar and no "
            ".parquet files; give a folder, a file or a pattern."
        )
    if len(kinds) > 1:
        raise KeypointError(
            f"{source} holds {' and '.join(f'{len(v)} {_KINDS[k]}' for k, v in kinds.items())}; give one "
            "kind alone, for instance with a pattern like FOLDER/*.parquet."
        )
    kind, found = next(iter(kinds.items()))
    wanted = [p for p in sorted(found) if fs.unstrip_protocol(p) not in known]
    cut = {"files": _cut_files, "tar": _cut_tars, "rows": _cut_parquet}[kind]
    return cut(fs, base, wanted, rows, column, id_column)


_KINDS = {"files": "image files", "tar": "tar shards", "rows": "Parquet files"}


def _cut_files(fs, base, paths, rows, *_) -> list[Piece]:
    place, names = fs.unstrip_protocol(base), [p[len(base) + 1 :] for p in paths]
    return [Piece("files", place, tuple(names[i : i + rows])) for i in range(0, len(names), rows)]


def _cut_tars(fs, base, paths, *_) -> list[Piece]:
    return [Piece("tar", fs.unstrip_protocol(p), (p[len(base) + 1 :],)) for p in paths]


def _cut_parquet(fs, base, paths, rows, column, id_column) -> list[Piece]:
    from pyarrow import ArrowInvalid, parquet

    pieces = []
    for path in paths:
        with fs.open(path, "rb") as file:
            try:
                opened = parquet.ParquetFile(file)
            except ArrowInvalid as error:
                raise KeypointError(
                    f"{path} is not a complete Parquet file ({error}); take it out or write it again."
                ) from error
            image, small = _image_column(opened.schema_arrow, column, path)
            if id_column and id_column not in opened.schema_arrow.names:
                raise KeypointError(
                    f"{path} has no column {id_column!r}; its columns are {', '.join(opened.schema_arrow.names)}."
                )
            counts = [opened.metadata.row_group(i).num_rows for i in range(opened.metadata.num_row_groups)]
        for group, count in enumerate(counts):
            step = rows if small else max(count, 1)  # skipping rows of images would mean reading them
            pieces += [
                Piece(
                    "rows",
                    fs.unstrip_protocol(path),
                    (path[len(base) + 1 :],),
                    group,
                    sum(counts[:group]),
                    start,
                    min(start + step, count),
                    image,
                    id_column or "",
                )
                for start in range(0, count, step)
            ]
    return pieces


def _image_column(schema, given: str | None, path: str) -> tuple[str, bool]:
    """(name of the column with images, whether it holds paths): bytes, a Hugging Face `image` struct, or
    paths."""
    from pyarrow import types

    def kind(field) -> str:
        type = field.type.value_type if types.is_dictionary(field.type) else field.type
        if any(getattr(types, f"is_{name}", lambda _: False)(type) for name in _BYTES) or types.is_struct(type):
            return "bytes"
        if any(getattr(types, f"is_{name}", lambda _: False)(type) for name in _LISTS):
            return "bytes" if types.is_uint8(type.value_type) else ""
        return "path" if any(getattr(types, f"is_{name}", lambda _: False)(type) for name in _TEXTS) else ""

    if given:
        if given not in schema.names or not kind(schema.field(given)):
            raise KeypointError(
                f"{path} has no column {given!r} of bytes or paths; its columns are {', '.join(schema.names)}."
            )
        return given, kind(schema.field(given)) == "path"
    known = {
        "bytes": ("image", "img", "picture", "image_bytes", "bytes", "jpg", "jpeg", "png", "webp"),
        "path": ("image", "path", "image_path", "file_path", "file", "file_name", "filename", "url"),
    }
    for wanted, names in known.items():
        for name in names:
            if name in schema.names and kind(schema.field(name)) == wanted:
                return name, wanted == "path"
    raise KeypointError(
        f"None of the columns of {path} is known to hold images ({', '.join(schema.names)}); name one with --column."
    )


def piece_images(piece: Piece) -> Iterator[tuple[str, Fetch]]:
    """(id, function that reads it) of every image of a piece, in order. Ids: the path below the input;
    SHARD/MEMBER; the path in the row, or FILE#ROW for bytes, unless an id column was named. Raises OSError
    when storage fails."""
    return {"files": _files, "tar": _tar, "rows": _rows}[piece.kind](piece)


def _files(piece: Piece) -> Iterator[tuple[str, Fetch]]:
    for name in piece.names:
        yield name, partial(read, name, f"{piece.place}/{name}")


def _tar(piece: Piece) -> Iterator[tuple[str, Fetch]]:
    shard, (fs, path) = piece.names[0], file_system(piece.place)
    with fs.open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name.lower()
                    if member.isfile() and name.endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                        name = f"{shard}/{member.name}"
                        yield name, partial(decode_image, name, archive.extractfile(member).read())
        except (tarfile.TarError, EOFError, zlib.error) as error:
            yield shard, partial(_fail, shard, f"the archive is damaged from here on: {reason_of(error)}")


def _rows(piece: Piece) -> Iterator[tuple[str, Fetch]]:
    from pyarrow import parquet

    fs, path = file_system(piece.place)
    columns = [piece.image, *([piece.id] if piece.id else [])]
    with fs.open(path, "rb") as file:
        row = 0
        for batch in parquet.ParquetFile(file).iter_batches(64, row_groups=[piece.group], columns=columns):
            inside = range(max(piece.start, row), min(piece.stop, row + len(batch)))
            if inside:
                for number, values in zip(
                    inside, batch.slice(inside.start - row, len(inside)).to_pylist(), strict=True
                ):
                    yield _from_row(piece, number, values)
            row += len(batch)
            if row >= piece.stop:
                return


def _from_row(piece: Piece, row: int, values: dict) -> tuple[str, Fetch]:
    value = values[piece.image]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, list):
        value = bytes(value)
    name = f"{piece.names[0]}#{piece.first + row}" if not isinstance(value, str) else value
    name = str(values[piece.id]) if piece.id else name
    if not value:
        return name, partial(_fail, name, "the row has no image")
    if isinstance(value, bytes):
        return name, partial(decode_image, name, value)
    whole = "://" in value or value.startswith("/")
    return name, partial(read, name, value if whole else f"{piece.place.rpartition('/')[0]}/{value}")


def _fail(name: str, reason: str) -> np.ndarray:
    raise BrokenImage(name, reason)


def read(name: str, url: str) -> np.ndarray:
    """Decode the image at a URL. An absent file is a broken image; storage that fails raises OSError."""
    fs, path = file_system(url)
    try:
        data = fs.cat_file(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise BrokenImage(name, "no such file" if isinstance(error, FileNotFoundError) else reason_of(error)) from error
    return decode_image(name, data)
