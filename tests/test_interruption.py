"""Ctrl-C while programs load, while compiled code runs, and after the fit: one line, exit code 130."""

import signal
import subprocess
import sys

import pytest
from runs import ROOT, SCENE, environment

from s2sr import interruption
from s2sr.interruption import CtrlC, interrupted, interruptible


@pytest.fixture
def ctrl_c(monkeypatch):
    """A handler that has not been called, as at the start of a program."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(interruption, "ctrl_c", handler := CtrlC())
    yield handler
    signal.signal(signal.SIGINT, before)


def drawn():
    """What compiled code does that calls Python and finds an error set."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("Invalid affine transformation matrix") from None


def test_an_interruption_that_passes_for_another_error_is_one(ctrl_c, capsys):
    with pytest.raises(SystemExit) as exit, interruptible("the same command continues"):
        drawn()
    assert exit.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command continues\n"


def caught():
    try:
        drawn()
    except ValueError as error:
        raise KeyboardInterrupt("continue with: python train.py resume=out") from error


def test_what_is_said_where_it_was_caught_counts_more(ctrl_c, capsys):
    with pytest.raises(SystemExit) as exit, interruptible("the same command continues"):
        caught()
    assert exit.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; continue with: python train.py resume=out\n"
    assert interrupted(ValueError())


def test_other_errors_pass(ctrl_c):
    with pytest.raises(ValueError, match="of its own"), interruptible():
        raise ValueError("of its own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_the_background_it_stays_ignored(ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


# Ctrl-C at the import of a module, then the script; LOST: as where compiled code clears whatever error is set
AT_IMPORT = """
import runpy, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == MODULE:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                if not LOST:
                    raise
sys.meta_path.insert(0, Finder())
sys.argv = [SCRIPT, *ARGUMENTS]
sys.path.insert(0, ROOT)
runpy.run_path(SCRIPT, run_name="__main__")
"""
CARRY_ON = "interrupted; continue with: python train.py resume=out"


@pytest.mark.parametrize(
    ("module", "lost", "said"),
    [
        ("hydra", False, "interrupted"),
        ("torch", False, CARRY_ON),
        ("torch", True, CARRY_ON),
        ("matplotlib.image", False, CARRY_ON),
        ("wandb", True, CARRY_ON),
    ],
)
def test_while_it_loads(module, lost, said, tmp_path):
    given = {"MODULE": module, "LOST": lost, "SCRIPT": str(ROOT / "train.py"), "ROOT": str(ROOT)}
    given["ARGUMENTS"] = [*SCENE, "logger.mode=offline", "threads=1", "hydra.run.dir=out"]
    program = "\n".join(f"{name} = {value!r}" for name, value in given.items()) + AT_IMPORT
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (130, said)
    assert "Traceback" not in done.stdout
