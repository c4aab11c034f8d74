"""Files of samples for networks with any number of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...isa.errors import DataError
from .run import DAMAGED

NPY = b"\x93NUMPY"
"""What a .npy begins with."""


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """An array for each of the inputs ``names``: of one input a ``.npy``, or an ``.npz`` by name.

    A ``.npy`` is mapped, not read: it may be larger than memory. An ``.npz`` with one array serves
    the one input of a network whatever its name.

    Raises
    ------
    DataError
        If the file cannot be read or holds no plain arrays, or if it is not clear which is whose.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(NPY)) == NPY:
                if len(names) != 1:
                    raise DataError(
                        f"{path}: one array for {len(names)} inputs; an .npz holds one for each of "
                        f"{', '.join(names)}"
                    )
                return {names[0]: np.load(path, mmap_mode="r", allow_pickle=False)}
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            keys = list(loaded)
            if len(keys) == len(names) == 1:
                return {names[0]: np.asarray(loaded[keys[0]])}
            missing = [name for name in names if name not in keys]
            if missing:
                held = ", ".join(keys) or "none"
                raise DataError(f"{path}: no array {missing[0]!r}; its arrays are {held}")
            return {name: np.asarray(loaded[name]) for name in names}
    except DAMAGED as error:
        raise DataError(f"{path}: not a .npy or .npz file of plain arrays ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
