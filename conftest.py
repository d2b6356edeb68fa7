"""The pytest interface, see src/opspec/tests/plugin.py."""

pytest_plugins = ["opspec.tests.plugin"]
