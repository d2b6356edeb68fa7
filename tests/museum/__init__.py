"""A museum of known positives: released wheels that are known to be wrong on the CPU, and whether the suite finds it.

`python -m opspec.tests.museum` installs each into a throw-away environment, judges it through a backend of backends/, and
writes docs/museum.md. It is no part of the default run.
"""
