"""`python -m opspec`: what needs no pytest."""

import sys

from opspec.tests.compare import main

sys.exit(main())
