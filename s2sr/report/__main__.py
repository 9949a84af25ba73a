"""python -m s2sr.report FOLDER: rewrite report.html of a run or a sweep from the files in its folder."""

from __future__ import annotations

import sys
from pathlib import Path

from s2sr.errors import InputError


def main(folder: Path) -> str:
    """Write the report; returns its path and what is missing.

    Raises InputError for a folder that is neither of a run nor of a sweep, and for a file that cannot be read.
    """
    try:
        return _write(folder)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: {error}") from error


def _write(folder: Path) -> str:
    from s2sr.report.jobs import read_jobs
    from s2sr.report.run_page import write_run_page

    if (folder / "metrics.json").is_file() or (folder / ".hydra").is_dir():
        missing = write_run_page(folder)
        left_out = f"; the run is not complete: no {', no '.join(missing)}" if missing else ""
        return f"{folder / 'report.html'}{left_out}"
    if folder.is_dir() and read_jobs(folder):
        from s2sr.report.sweep import collate

        failed = collate(folder)
        return "\n".join([str(folder / "report.html"), *(f"failed job {line}" for line in failed)])
    raise InputError(f"{folder}: not the folder of a run or of a sweep, it has no metrics.json, .hydra or job folders")


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit()
    if len(sys.argv) != 2:
        sys.exit("usage: python -m s2sr.report FOLDER, the folder of a run or of a sweep")
    try:
        print(main(Path(sys.argv[1])))
    except InputError as error:
        sys.exit(f"error: {error}")
