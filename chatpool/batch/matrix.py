"""Embeddings as a matrix in a file of numpy's."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from typing import Any, Iterable, List, Optional

from ..errors import ConfigurationError
from ..journal import decode, replacing
from .lines import vector_in

__all__ = ["check_numpy", "write_matrix"]

_ROWS_AT_ONCE = 4096


def check_numpy() -> Any:
    """numpy.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise ConfigurationError("an output that ends in .npy needs numpy: pip install numpy") from None


def write_matrix(path: str, lines: Iterable[Optional[bytes]]) -> None:
    """Write one row of 32-bit floats per line of a journal; NaN where there is no vector.

    The file takes its name when it is whole.

    Raises:
        ConfigurationError: the vectors have different lengths, or there is none.
        OSError: it could not be written.
    """
    numpy: Any = check_numpy()
    width, count = 0, 0
    waiting: List[Any] = []
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(path))) as raw:
        for line in lines:
            vector = None if line is None else vector_in(decode(line))
            if vector is not None:
                if width and len(vector) != width:
                    raise ConfigurationError(
                        f"{path}: row {count} has {len(vector)} numbers, those before have {width}"
                    )
                width = len(vector)
            waiting.append(vector)
            count += 1
            if width and len(waiting) >= _ROWS_AT_ONCE:
                _flush(numpy, waiting, width, raw)
        if not width:
            raise ConfigurationError(f"{path}: there is no vector to put into it")
        _flush(numpy, waiting, width, raw)
        _with_header(numpy, path, raw, (count, width))


def _flush(numpy: Any, waiting: List[Any], width: int, raw: Any) -> None:
    nothing = [float("nan")] * width
    rows = numpy.asarray([nothing if vector is None else vector for vector in waiting], dtype="<f4")
    raw.write(rows.tobytes())
    waiting.clear()


def _with_header(numpy: Any, path: str, raw: Any, shape: Any) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    raw.seek(0)
    with replacing(path) as file:
        numpy.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(raw, file, 1 << 20)
