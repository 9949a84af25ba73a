"""A folder for one program at a time: two that write there at once would leave a mixture."""

from __future__ import annotations

import fcntl
import os
from itertools import count
from pathlib import Path

_held: list[int] = []  # until the program ends, however it does


def claimed(folder: Path) -> bool:
    """Makes the folder and holds it; False if another program does.

    Where it cannot be made, or the file system has no locks, it passes for free: who writes there will say why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = os.open(folder, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(place)
        return False
    except OSError:
        os.close(place)
        return True
    _held.append(place)
    return True


def first_free(folder: Path) -> Path:
    """The folder, held, or the first of those beside it, `folder`_2 and so on, that no other program holds."""
    names = (folder if k == 1 else folder.with_name(f"{folder.name}_{k}") for k in count(1))
    return next(name for name in names if claimed(name))
