"""Children of fork: what the parent has open is the parent's.

DuckDB's threads and locks do not come along into a child. Where the child closed a connection of the parent's, or only
let go of it when it ends, it would wait for them for ever, or die.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

_opened: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: weakref.WeakSet[Any] = weakref.WeakSet()


def leave_to_parent(opened: Any) -> None:
    """Let children of this process neither close something that is opened here, nor let go of it."""
    _opened.add(opened)


def is_inherited(opened: Any) -> bool:
    """Tell whether something was opened by the parent of this process."""
    return opened in _inherited


def _hold() -> None:
    import ctypes

    for opened in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))  # for ever: a list of them would go when Python ends
        _inherited.add(opened)
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold)
