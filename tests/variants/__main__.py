"""`python -m opspec.tests.variants`: see long_run, which worker processes can import by that name."""

import signal
import sys

from .long_run import main

signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run in the background is interrupted so
sys.exit(main())
