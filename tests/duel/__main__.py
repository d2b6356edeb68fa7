"""`python -m opspec.tests.duel`: see duel, which worker processes can import by that name."""

import sys

from .duel import main

sys.exit(main())
