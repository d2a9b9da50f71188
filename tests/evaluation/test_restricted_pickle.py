"""Reading pickled tables: whatever pandas wrote, and nothing that could run or forge memory."""

import base64
import builtins
import codecs
import os
import pickle
import sys
import zlib

import numpy as np
import pytest
from pickled_tables import TABLES

from stablekp_core.errors import KeypointError
from stablekp_core.evaluation.restricted_pickle import ALLOWED, read_table

COLUMNS = ("file_name", "value")


def save(tmp_path, content):
    path = tmp_path / "taichi_train_gt.pkl"
    path.write_bytes(content)
    return path


# Tables


@pytest.mark.parametrize("version", TABLES, ids=lambda v: " ".join(map(str, v)))
def test_tables_of_every_pandas_are_read_without_pandas(tmp_path, monkeypatch, version):
    monkeypatch.setitem(sys.modules, "pandas", None)
    path = save(tmp_path, zlib.decompress(base64.b85decode(TABLES[version])))
    table = read_table(path, ("file_name", "value", "n"))
    assert table["file_name"] == ["a.png", "b.png"] and table["n"] == [1, 2]
    np.testing.assert_array_equal(np.array(table["value"]), [[[1, 2], [3, 4]], [[5, -1], [7, 8]]])


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("text", ["str", "object", "string"])
def test_tables_of_every_protocol_are_read(tmp_path, protocol, text):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"x": [0.5, 1], "file_name": pandas.Series(["a", "é"], dtype=text), "value": [np.eye(2), -np.eye(2)]}
    )
    table.to_pickle(tmp_path / "x.pkl", protocol=protocol)
    read = read_table(tmp_path / "x.pkl", COLUMNS)
    assert read["file_name"] == ["a", "é"]
    np.testing.assert_array_equal(np.array(read["value"]), [np.eye(2), -np.eye(2)])


@pytest.mark.parametrize(
    "values",
    [
        [np.arange(4.0).reshape(2, 2), np.ones((2, 2))],
        [np.asfortranarray(np.arange(4.0).reshape(2, 2)), np.ones((2, 2), "f4")],
        [np.arange(4, dtype=">f8").reshape(2, 2), np.ones((2, 2), ">i2")],
        [[[0, 1], [2, 3]], [[1.0, 1], [1, 1]]],
        [[[np.float64(0), np.float32(1)], [np.int64(2), 3]], [(1, 1), (1, 1)]],
        [[np.array([0.0, 1]), np.array([2, 3])], [np.ones(2), np.ones(2)]],
        [np.array([[0, 1], [2, 3]], object), np.array([np.ones(2), np.ones(2)], object)],
    ],
    ids=["floats", "transposed", "big-endian", "lists", "numbers", "rows", "objects"],
)
def test_cells_may_be_arrays_lists_and_numbers(tmp_path, values):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"file_name": ["a", "b"], "value": values}).to_pickle(tmp_path / "x.pkl")
    read = read_table(tmp_path / "x.pkl", COLUMNS)["value"]
    np.testing.assert_array_equal(np.array(read, float), [[[0, 1], [2, 3]], [[1, 1], [1, 1]]])


def test_rows_taken_from_a_table_and_joined_ones(tmp_path):
    pandas = pytest.importorskip("pandas")
    whole = pandas.DataFrame({"file_name": list("abcd"), "k": range(4), "value": [[i, i] for i in range(4)]})
    for some, names in ((whole.iloc[[3, 1]], "db"), (pandas.concat([whole[2:], whole[:1]]), "cda")):
        some.to_pickle(tmp_path / "x.pkl")
        read = read_table(tmp_path / "x.pkl", ("value", "file_name"))
        assert read["file_name"] == list(names)
        assert read["value"] == [["abcd".index(c)] * 2 for c in names]


# Malice


class _Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_malicious_pickle_is_refused_before_it_runs(tmp_path, protocol):
    pandas = pytest.importorskip("pandas")
    mark = tmp_path / "ran"
    for evil in (
        _Evil(os.system, f"touch {mark}"),
        _Evil(builtins.eval, f"open({str(mark)!r}, 'w')"),
        _Evil(getattr, pandas.DataFrame, "to_csv"),
        _Evil(np.load, str(mark), None, True),
    ):
        table = pandas.DataFrame({"file_name": ["a.png"], "value": [evil]})
        for content in (table, evil):
            path = save(tmp_path, pickle.dumps(content, protocol=protocol))
            with pytest.raises(KeypointError, match="asks for .*does not need"):
                read_table(path, COLUMNS)
    assert not mark.exists()


def test_dotted_names_do_not_slip_through(tmp_path):
    # Protocol 4 resolves "DataFrame.to_csv" as attributes; only whole names of the list may pass.
    path = save(tmp_path, b"\x80\x04\x8c\x11pandas.core.frame\x8c\x10DataFrame.to_csv\x93.")
    with pytest.raises(KeypointError, match="DataFrame.to_csv"):
        read_table(path, ("value",))


class _Forged:
    """Pickles as what __reduce__ is told: a function, its arguments, and a state to set."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def forged_array(shape, dtype, raw):
    made = np.zeros(1).__reduce__()[0]  # numpy's _reconstruct, wherever this version keeps it
    return _Forged(made, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, raw))


LOOP = []
LOOP.append(LOOP)
FORGED = {
    "pointers": forged_array((1,), np.dtype(object), b"A" * 8),
    "pointers in fields": forged_array((1,), np.dtype([("a", object)]), b"A" * 8),
    "objects said to be numbers": forged_array(
        (1,), _Forged(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)), b"A" * 8
    ),
    "too few objects": forged_array((5,), np.dtype(object), [1]),
    "too few bytes": forged_array((5,), np.dtype(float), b"12345678"),
    "a huge shape": forged_array((2**62, 4), np.dtype(float), b""),
    "a view of memory": _Forged(np.ndarray, ((1,), np.dtype(object), bytearray(8))),
    "a loop": LOOP,
    "a class": np.ndarray,
    "bytes by rot13": _Forged(codecs.encode, ("a", "rot13")),
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("what", FORGED)
def test_forged_cells_are_refused(tmp_path, what, protocol):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"file_name": ["a.png"], "value": pandas.Series([FORGED[what]], dtype=object)})
    path = save(tmp_path, pickle.dumps(table, protocol=protocol))
    with pytest.raises(KeypointError, match="taichi_train_gt.pkl cannot be read"):
        read_table(path, COLUMNS)


def test_what_a_name_stands_for_cannot_be_changed(tmp_path):
    # BUILD on the class itself: state (None, {"to_csv": 1}) would set an attribute of it.
    path = save(tmp_path, b"\x80\x04cpandas\nDataFrame\nN}\x8c\x06to_csvK\x01s\x86b.")
    with pytest.raises(KeypointError, match="cannot be read"):
        read_table(path, COLUMNS)
    assert not hasattr(ALLOWED["pandas", "DataFrame"], "to_csv")


def test_nothing_that_is_allowed_is_the_real_thing():
    for (module, name), stands_for in ALLOWED.items():
        assert stands_for.__module__ == "stablekp_core.evaluation.restricted_pickle", (module, name)


# Files that are no such tables


def test_pickles_that_are_no_tables(tmp_path):
    for content in (b"", b"garbage", pickle.dumps({"value": [1]}), pickle.dumps([1, 2])[:-3], b"\x80\x04N."):
        with pytest.raises(KeypointError, match="taichi_train_gt.pkl cannot be read"):
            read_table(save(tmp_path, content), COLUMNS)


def test_missing_columns_and_missing_text_are_named(tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"file_name": ["a"]}).to_pickle(tmp_path / "x.pkl")
    with pytest.raises(KeypointError, match="x.pkl cannot be read .* columns file_name, value"):
        read_table(tmp_path / "x.pkl", COLUMNS)
    pandas.DataFrame({"file_name": ["a", None], "value": [1, 2]}).astype({"file_name": "string"}).to_pickle(
        tmp_path / "x.pkl"
    )
    with pytest.raises(KeypointError, match="x.pkl cannot be read"):
        read_table(tmp_path / "x.pkl", COLUMNS)
