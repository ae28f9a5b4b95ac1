"""Ends a process that is stuck in a call of TensorFlow that nothing else can interrupt.

The constructor of a strategy waits more than ten minutes for a worker that has died, and Python
runs the handlers of signals only when such a call returns.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

from support import cli
from support.errors import UserError

# How long the main thread has to handle a signal itself.
GRACE_SECONDS = 2.0


@contextlib.contextmanager
def watched(seconds: float, message: str, screen: int) -> Iterator[None]:
    """Ends the process if the block takes too long, or does not react to a signal.

    Args:
        seconds: how long the block may take.
        message: the last line if it takes longer.
        screen: the descriptor to write that line to; descriptor 2 may be redirected meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        # Python handles signals only in the main thread.
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    finished = threading.Event()
    # Python writes the number of each signal there, even if no handler can run.
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    arguments = (reader, seconds, message, screen, finished)
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        signal.set_wakeup_fd(before)
        # Wakes the thread.
        writer.close()
        thread.join()
        reader.close()


def _watch(
    reader: socket.socket, seconds: float, message: str, screen: int, finished: threading.Event
) -> None:
    """Waits for the end of the block, a signal, or the timeout."""
    reader.settimeout(seconds)
    ending = {signal.SIGINT, *cli.TERMINATION}
    while not finished.is_set():
        try:
            received = reader.recv(1)
        except TimeoutError:
            _end(UserError.code, f"error: {message}", screen)
        else:
            is_ending = bool(received) and received[0] in ending
            if is_ending and not finished.wait(GRACE_SECONDS):
                _end(128 + received[0], cli.INTERRUPTED, screen)


def _end(code: int, message: str, screen: int) -> None:
    os.write(screen, f"train.py: {message}\n".encode())
    os._exit(code)
