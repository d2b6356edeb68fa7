"""`python -m opspec.tests.mutants`: see kill_matrix, which worker processes can import by that name."""

import sys

from .kill_matrix import main

sys.exit(main())
