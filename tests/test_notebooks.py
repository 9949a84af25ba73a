"""Every notebook runs from top to bottom, in a folder of its own."""

from __future__ import annotations

import jupytext
import nbclient
import pytest
from runs import ROOT, environment

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def test_there_are_five():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_its_pair_has_the_same_cells_and_no_outputs(path):
    script, notebook = jupytext.read(path), jupytext.read(path.with_suffix(".ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in pair.cells] for pair in (script, notebook)]
    assert cells[0] == cells[1], "they differ: `jupytext --sync notebooks/*.py`"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_it_runs(path, tmp_path, monkeypatch):
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    notebook = jupytext.read(path)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert any("image/png" in o.get("data", {}) for o in shown), "a notebook shows a picture"
