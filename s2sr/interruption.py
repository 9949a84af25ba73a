"""Ctrl-C at any moment, from the first import to the last file: one line, and exit code 130.

Compiled code that is interrupted may end with an error of its own: a ValueError where matplotlib draws, an ImportError
where a module is loaded. So the signal itself is remembered; what comes after it is its consequence. Or it may go on as
if nothing had been: where much is loaded, `heed` asks afterwards.
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
    """Whether an error is Ctrl-C or what something has made of it."""
    return ctrl_c.came or isinstance(error, KeyboardInterrupt)


def heed() -> None:
    """Raises KeyboardInterrupt where Ctrl-C came and was lost."""
    if ctrl_c.came:
        raise KeyboardInterrupt


@contextmanager
def interruptible(then: str = "") -> Iterator[None]:
    """A program that Ctrl-C ends in one line, which says what to do `then`, unless a KeyboardInterrupt(then) does.

    In the background, where a shell has SIGINT ignored, it stays so.
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
