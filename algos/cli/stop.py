"""Ctrl-C and SIGTERM end the program within seconds, wherever it is: importing, compiling, on the device, writing.

Nothing is unwound and no library is waited for: what is on disk is whole at any moment, as a kill or a power failure
asks nobody. What comes before `install`, while Python itself starts, is Python's own: there is nothing to lose.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

PATIENCE = 1.5
"""Seconds for the main thread to come out of a library, and as many for a checkpoint that is being written."""

_ending = threading.RLock()  # never given back
_words = ""
_out, _err = 1, 2
_last_acts: list[Callable[[], None]] = []


def last_words(text: str, finish: Callable[[float], None]) -> None:
    """What is said at the end, and what may still be done, in so many seconds at most."""
    global _words
    _words = f"; {text}"
    _last_acts.insert(0, lambda: finish(PATIENCE))


def write_to(out: int, err: int) -> None:
    """Descriptors of stdout and stderr, if they are no longer 1 and 2."""
    global _out, _err
    _out, _err = out, err


def install() -> None:
    """Watch for the signals in this process, from its main thread. Those that it ignores, as a shell's background job
    does Ctrl-C, stay ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender)
    threading.Thread(target=_watch, args=(receiver,), daemon=True).start()
    from mec_jax.files import abandon_files  # a package of others: importing it takes long

    _last_acts.append(abandon_files)


def _watch(receiver: int) -> None:
    """Handlers run in the main thread between two steps of Python: a library may keep it from that for minutes."""
    number = os.read(receiver, 1)[0]
    time.sleep(PATIENCE)
    _end(number)


def _end(number: int, _: FrameType | None = None) -> None:
    with _ending:
        try:
            for act in _last_acts:
                with contextlib.suppress(ValueError):
                    act()
            if os.isatty(_out):
                os.write(_out, b"\x1b[?25h\n")  # the cursor, which a progress bar hides, and its line
            os.write(_err, f"mec-jax: stopped{_words}\n".encode())
        finally:
            os._exit(128 + number)
