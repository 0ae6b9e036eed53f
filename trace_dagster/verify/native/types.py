"""Argument types of compiled functions. Each alias contains the type that numba compiles for."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
from numba import types
from numpy.typing import NDArray

Text: TypeAlias = Annotated[NDArray[np.uint8], types.Array(types.uint8, 1, "C", readonly=True)]
"""Read-only bytes."""
Bytes: TypeAlias = Annotated[NDArray[np.uint8], types.uint8[::1]]
ByteRows: TypeAlias = Annotated[NDArray[np.uint8], types.uint8[:, ::1]]
"""Rows of bytes of fixed size."""
Words: TypeAlias = Annotated[NDArray[np.uint64], types.uint64[::1]]
Numbers: TypeAlias = Annotated[NDArray[np.uint64], types.uint64[:, ::1]]
"""Rows of numbers of at most 64 bits."""
Ends: TypeAlias = Annotated[NDArray[np.int64], types.Array(types.int64, 1, "C", readonly=True)]
Places: TypeAlias = Annotated[NDArray[np.int64], types.int64[::1]]
Found: TypeAlias = Annotated[NDArray[np.int64], types.int64[:, ::1]]
"""Start and end of the value of each member of an object, or -1 for a missing member."""
Objects: TypeAlias = Annotated[NDArray[np.int64], types.int64[:, :, ::1]]
"""The same for each object of a list."""
Table: TypeAlias = Annotated[NDArray[np.int64], types.Array(types.int64, 2, "C", readonly=True)]
Word: TypeAlias = Annotated[np.uint64, types.uint64]
