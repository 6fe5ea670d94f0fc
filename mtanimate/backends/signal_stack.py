"""Signals that still arrive after OpenVINO has been used."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def own_signal_stack() -> Iterator[None]:
    """This thread's alternative signal stack is afterwards what it was before.

    OpenVINO sets one for each graph that it compiles, and puts back the former one when the graph goes. If graphs go in
    the order in which they came, that one is gone already, and the next signal, Ctrl-C too, ends the process.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
