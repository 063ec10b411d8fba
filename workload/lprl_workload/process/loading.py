"""Large libraries into a process, for what they cost at least.

torch and transformers bring a million objects that live as long as the process. Python's collector walks through them again and
again while they come, at every full collection of the run, and twice at the end: a third of what a short process costs. None of
them is ever garbage.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading(keep: bool = False) -> Iterator[None]:
    """Import inside: nothing is collected meanwhile.

    `keep`: what there is then is not looked through again (gc.freeze). Only where a process begins: what it holds by then and throws
    away later stays, should it refer to itself. Where everything was imported before, nothing is kept.
    """
    collects, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if keep and len(sys.modules) > before:
            gc.freeze()
        if collects:
            gc.enable()
