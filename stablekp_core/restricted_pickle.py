"""Tables of labels that come as pandas pickles, read without running what a pickle could contain.

A pickle is a program. The reader here lets it use nothing but the constructors of tables, indices and arrays
that are listed below; any other name ends the reading before anything of it is called.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

from .errors import KeypointError

#: module -> names in it that a table may be made of
ALLOWED: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "builtins": "object slice bytearray list tuple dict set complex",
        "__builtin__": "object slice bytearray list tuple dict set complex",
        "_codecs": "encode",
        "copyreg": "_reconstructor",
        "copy_reg": "_reconstructor",
        "numpy": "ndarray dtype float64 float32 int64 int32 bool_ str_",
        "numpy.core.multiarray": "_reconstruct scalar",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.numeric": "_frombuffer",
        "numpy._core.numeric": "_frombuffer",
        "pandas": "DataFrame Series Index RangeIndex StringDtype",
        "pandas.arrays": "ArrowStringArray StringArray NumpyExtensionArray",
        "pandas.core.frame": "DataFrame",
        "pandas.core.series": "Series",
        "pandas.core.internals": "BlockManager",
        "pandas.core.internals.managers": "BlockManager",
        "pandas.core.internals.blocks": "new_block",
        "pandas._libs.internals": "_unpickle_block",
        "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
        "pandas.core.indexes.base": "_new_Index Index",
        "pandas.core.indexes.range": "RangeIndex",
        "pandas.core.indexes.numeric": "Int64Index",
        "pandas.core.arrays.string_": "StringArray StringDtype",
        "pandas.core.arrays.string_arrow": "ArrowStringArray",
        "pyarrow.lib": "_restore_array type_for_alias py_buffer chunked_array",
    }.items()
}


def read_frame(path: str | Path, columns: Sequence[str]):
    """The pandas table in a pickle file, checked to have these columns.

    Raises KeypointError when the file wants anything that a table of labels does not need (a malicious
    pickle), when it is no pickled table, and when pandas is not installed.
    """
    path = Path(path)
    try:
        import pandas
        from pandas.compat.pickle_compat import Unpickler
    except ImportError as error:
        raise KeypointError(
            f"{path.name} needs pandas, which is not installed; install it with: pip install "
            '"stable-keypoints[eval]".'
        ) from error

    class Restricted(Unpickler):
        """pandas' own reader, which knows where classes of older versions went, behind the list of names."""

        def find_class(self, module: str, name: str):
            if name not in ALLOWED.get(module, ()):
                raise KeypointError(
                    f"{path} asks for {module}.{name}, which a table of labels does not need; it was not "
                    "read, because it could run any program. Download it again from its source."
                )
            return super().find_class(module, name)

    try:
        frame = Restricted(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except KeypointError:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        ImportError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        AssertionError,
        NotImplementedError,
        OverflowError,
        MemoryError,
    ) as error:
        raise KeypointError(
            f"{path} cannot be read as a pickled table ({type(error).__name__}: {error}); download it again."
        ) from error
    if not isinstance(frame, pandas.DataFrame) or any(c not in frame.columns for c in columns):
        raise KeypointError(
            f"{path} is not a table with the columns {', '.join(columns)}; download it again."
        )
    return frame
