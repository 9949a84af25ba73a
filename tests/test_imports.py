"""The structure of the house: imports point one way, and heavy ones come late where a command may not need them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "s2sr").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]

MAY_IMPORT = {  # parts of the house, besides themselves
    "errors": set(),
    "files": set(),
    "interruption": set(),
    "overrides": set(),
    "model": {"errors"},
    "raster": {"model"},
    "data": {"errors", "files", "model", "raster"},
    "fit": {"errors", "model"},
    "report": {"errors", "files", "model", "raster"},
    "observations": {"errors", "overrides", "raster", "model", "data"},
    "training": {"errors", "interruption", "fit", "observations"},
    "reconstruction": {"errors", "model", "data", "fit", "report", "observations", "training"},
    "experiment": {"raster", "model", "data", "fit", "report", "observations", "reconstruction"},
    "download": {"overrides", "cli"},
    "forecast": {"errors", "overrides", "model", "fit", "observations", "cli"},
    "claim": set(),
    "resume": {"errors"},
    "cli": {"claim", "errors", "interruption", "overrides", "report", "experiment", "resume"},
}
HYDRA = {
    "s2sr/overrides.py",
    "s2sr/observations.py",
    "s2sr/cli.py",
    "s2sr/download.py",
    "s2sr/report/sweep/__init__.py",
}
OMEGACONF = {
    f"s2sr/{name}.py"
    for name in ("observations", "training", "reconstruction", "experiment", "cli", "download", "forecast")
}
LIGHTNING = {
    *(f"s2sr/{name}.py" for name in ("training", "reconstruction", "fit/module", "fit/checkpoint", "fit/progress")),
    *(f"s2sr/report/{name}.py" for name in ("dashboard", "loggers")),
}


def modules(node: ast.AST) -> Iterator[str]:
    """The dotted names in an import statement: each name of `from x import y` may be a module as well."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where things come from"
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "s2sr")


def imports(path: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in modules(node)}


def imports_at_once(path: Path) -> set[str]:
    """The imports outside functions, which are those that importing the file executes."""

    def outside(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield child
                yield from outside(child)

    return {name for node in outside(ast.parse(path.read_text())) for name in modules(node)}


def part(path: Path) -> str:
    return path.relative_to(ROOT / "s2sr").with_suffix("").parts[0]


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_one_way(path):
    used = {name.split(".")[1] for name in imports(path) if name.startswith("s2sr.")}
    if part(path) != "__init__":  # the public names of the package come from anywhere
        assert used <= MAY_IMPORT[part(path)] | {part(path)}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_hydra_stays_at_the_door(path):
    name = str(path.relative_to(ROOT))
    assert "hydra" not in tops(imports(path)) or name in HYDRA
    assert "omegaconf" not in tops(imports(path)) or name in OMEGACONF


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_what_is_minimised_and_how_knows_no_lightning(path):
    assert "lightning" not in tops(imports(path)) or str(path.relative_to(ROOT)) in LIGHTNING


@pytest.mark.parametrize("path", sorted((ROOT / "s2sr" / "model").glob("*.py")), ids=lambda path: path.name)
def test_the_model_needs_torch_and_numpy_only(path):
    assert tops(imports(path)) <= {"torch", "numpy", "s2sr"} | sys.stdlib_module_names


def test_the_command_line_imports_what_is_heavy_late():
    heavy = {"torch", "lightning", "rasterio", "matplotlib", "wandb"}
    assert not heavy & tops(imports_at_once(ROOT / "s2sr" / "cli.py"))
    command = f"import sys, s2sr.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_scripts_only_open_the_door():
    for script in ROOT.glob("*.py"):
        assert tops(imports(script)) <= {"s2sr"} | sys.stdlib_module_names, script.name


def declared(*names: str) -> set[str]:
    """The distributions that pyproject.toml asks for: those of the package, and those of these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for name in names for line in project["optional-dependencies"][name]]
    return {re.match(r"[\w-]+", line)[0].lower() for line in lines}


@pytest.mark.parametrize(
    ("folders", "extras"), [(["s2sr"], []), (["tests", "benchmarks", "notebooks", "docs"], ["dev", "joblib"])]
)
def test_what_is_imported_is_declared_and_not_left_to_others_dependencies(folders, extras):
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    own = {path.stem for path in paths} | {"s2sr"} | sys.stdlib_module_names
    used = set().union(*(tops(imports(path)) for path in paths)) - own
    offered = packages_distributions()
    missing = {name for name in used if not {d.lower() for d in offered[name]} & declared(*extras)}
    assert not missing


def test_a_folder_of_the_packages_name_does_not_hide_it(tmp_path):
    """The clone is such a folder, in the folder that holds it."""
    (tmp_path / "s2sr").mkdir()
    command = [sys.executable, "-c", "import s2sr; print(s2sr.InputError.__module__)"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("s2sr.errors", "")


def test_the_package_names_what_it_offers():
    command = [
        sys.executable,
        "-c",
        "import s2sr; print(s2sr.__version__, *dir(s2sr), *(getattr(s2sr, n) for n in dir(s2sr)))",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("0.")
    assert {"Demo", "InputError", "Scene", "configuration", "load_scene", "super_resolve"} <= set(done.stdout.split())


def test_the_reader_of_imports_sees_them():
    tree = ast.parse("from s2sr import data\nimport os.path\ndef f():\n    from s2sr.fit.losses import Huber")
    seen = {name for node in ast.walk(tree) for name in modules(node)}
    assert seen == {"s2sr", "s2sr.data", "os.path", "s2sr.fit.losses"}
