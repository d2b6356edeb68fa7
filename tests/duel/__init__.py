"""The duel: mutants and correct variants, judged on the same inputs by the criteria that others publish and by opspec.

`python -m opspec.tests.duel` prints the table and writes docs/duel.md and docs/duel.png.
"""
