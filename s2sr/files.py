"""Files that appear whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A place of the same name to write to; it becomes `path` at the end, or vanishes on an error.

    What a killed program left there is replaced.
    """
    # a folder of its own on the same file system: drivers keep the suffix, and their side files go with it
    folder = Path(path).with_name(f".{Path(path).name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder / Path(path).name
        (folder / Path(path).name).replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
