"""What pytest loads wherever opspec is installed: the interface itself, but only for a run that asks for opspec.

So the options --op, --dtype and the like come into no other project's way.
"""

import sys


def pytest_addoption(parser, pluginmanager):
    """Early, so that the path behind --impl is not taken for a path to tests."""
    if _asks_for_opspec(sys.argv):
        pluginmanager.import_plugin("opspec.tests.plugin")


def pytest_load_initial_conftests(early_config, args):
    """For runs that pytest.main starts, whose arguments are not the process's."""
    if _asks_for_opspec(args):
        early_config.pluginmanager.import_plugin("opspec.tests.plugin")


def _asks_for_opspec(args):
    return any(a == "--impl" or a.startswith(("--impl=", "opspec.tests")) for a in args)
