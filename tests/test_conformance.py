"""The conformance matrix: each cell of backend × operation × dtype × property is a test."""

from opspec.tests.plugin import conclude


def test_conforms(cell, suite, record_property):
    conclude(suite.judge(cell), record_property)
