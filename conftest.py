"""The pytest interface, see src/opspec/tests/plugin.py."""


def pytest_addoption(parser, pluginmanager):
    """Not by `pytest_plugins`, which pytest refuses here once a run from another directory collects below this file."""
    pluginmanager.import_plugin("opspec.tests.plugin")
