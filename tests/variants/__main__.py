"""`python -m opspec.tests.variants`: see long_run, which worker processes can import by that name."""

import sys

from .long_run import main

sys.exit(main())
