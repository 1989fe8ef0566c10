"""Children of fork: what the parent has open belongs to the parent.

DuckDB's threads do not exist in a child. If the child closed one of the parent's connections, or merely released it on
exit, it would wait for those threads forever, or die.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

_opened: weakref.WeakSet[Any] = weakref.WeakSet()
_inherited: weakref.WeakSet[Any] = weakref.WeakSet()


def leave_to_parent(opened: Any) -> None:
    """Make children of this process neither close nor release something that is opened here."""
    _opened.add(opened)


def is_inherited(opened: Any) -> bool:
    """Tell whether something was opened by the parent of this process."""
    return opened in _inherited


def _hold() -> None:
    import ctypes

    for opened in list(_opened):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened))  # forever: a list of them would be freed on exit
        _inherited.add(opened)
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold)
