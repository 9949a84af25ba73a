"""Ctrl-C at any moment, from the first import to the last file: one line, and exit code 130.

Interrupted compiled code may raise another error instead: a ValueError in matplotlib, an ImportError while a module is
loaded. So the signal itself is remembered, and any later error is taken for its consequence. Or the interrupt may get
lost: after long imports, `heed` checks for it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CtrlC:
    """A handler of SIGINT that raises KeyboardInterrupt and remembers that it came."""

    came = False
    then = ""  # what to do after it, once that is known

    def __call__(self, *_: Any) -> None:
        self.came = True
        raise KeyboardInterrupt


ctrl_c = CtrlC()


def interrupted(error: BaseException) -> bool:
    """Whether an error is Ctrl-C, or follows from one."""
    return ctrl_c.came or isinstance(error, KeyboardInterrupt)


def heed() -> None:
    """Raises KeyboardInterrupt if a Ctrl-C was lost."""
    if ctrl_c.came:
        raise KeyboardInterrupt


@contextmanager
def interruptible(then: str = "") -> Iterator[None]:
    """Let Ctrl-C end the program with one line, which says what to do `then`, unless a KeyboardInterrupt(then) does.

    If SIGINT is ignored, as for background jobs of a shell, it stays ignored.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, ctrl_c)
    try:
        yield
    except BaseException as error:
        if not interrupted(error):
            raise
        said = str(error) if isinstance(error, KeyboardInterrupt) else ""
        print("\n" + "; ".join(filter(None, ("interrupted", said or ctrl_c.then or then))), file=sys.stderr)
        sys.exit(130)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
