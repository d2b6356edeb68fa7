"""`python -m opspec.tests.museum`: see museum."""

import sys

from .museum import main

sys.exit(main())
