import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = ["stac_fixtures"]


def pytest_configure() -> None:
    # A shell ignores SIGINT for what it runs in the background, and the programs that the tests interrupt inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real stacks that lie beside the checkout and are not part of the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data are not here: {folder}")
    return folder
