"""How many threads the libraries compute with: one while examples are judged, all processors for benchmarks.

Examples are tiny: more threads than one cost more than they give, on a busy machine a hundred times more.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


def one_thread() -> None:
    """From now on, for NumPy's BLAS and, where it is loaded, PyTorch."""
    threadpool_limits(limits=1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def machine_threads() -> Iterator[None]:
    """Within, as many threads as this process has processors."""
    import torch

    before = torch.get_num_threads()
    with threadpool_limits(limits=processors()):
        torch.set_num_threads(processors())
        try:
            yield
        finally:
            torch.set_num_threads(before)


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
