from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = ["stac_fixtures"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real stacks that lie beside the checkout and are not part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data are not here: {folder}")
    return folder
