"""The pytest interface: options, parametrisation, header, the conformance matrix and the reports."""

import bisect
import json
import random
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ..impls import SHIPPED, Backend, UnknownBackend, load
from ..spec import DTYPES, OPERATIONS
from .cases import Case
from .conformance import BAD_INPUT, EVERY_PROPERTY, BrokenBackend, Cell, Result, Runner, cells
from .report import Report, environment, explain, matrix
from .threads import one_thread

PROFILES = {"quick": 30, "ci": 100, "thorough": 2000}
DEFAULT_PROFILE = "ci"
CONFORMANCE = Path(__file__).with_name("test_conformance.py")
BENCHMARK = Path(__file__).with_name("test_benchmark.py")
SUITE: pytest.StashKey["Suite"] = pytest.StashKey()
JUDGED = "opspec"  # the property of a test's report that holds its cell's result


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of those among which pytest-xdist shares a run out."""
    return hasattr(config, "workerinput")


class Suite:
    """What one session of pytest judges: its backends and cells, and the report they go to.

    Where pytest-xdist shares the session out, its workers judge, and the process that started them has the report.
    """

    def __init__(self, config: pytest.Config):
        self.chosen = bool(config.getoption("impl"))
        self.profile, self.seed = config.option.hypothesis_profile, int(config.getoption("hypothesis_seed"))
        self.backends = _load_all(dict.fromkeys(config.getoption("impl") or SHIPPED))
        operations = _known(config, "op", OPERATIONS)
        dtypes = _known(config, "dtype", DTYPES)
        properties = _known(config, "property", EVERY_PROPERTY)
        self.cells = list(cells(self.backends, operations, dtypes, properties))
        if self.chosen and not any(isinstance(c, BrokenBackend) or c.dtype != "-" for c in self.cells):
            # Cells of operations that no backend defines may be left: worth showing where just those were asked for.
            sound = [b for b in self.backends if isinstance(b, Backend)]
            if not self.cells or any(b.function(op) for b in sound for op in operations or OPERATIONS):
                have = "; ".join(f"{b.name} has {_operations_in_dtypes(b)}" for b in sound)
                raise pytest.UsageError(f"nothing to judge with these operations, dtypes and properties: {have}")
        self._places = {_key(cell): n for n, cell in enumerate(self.cells)}
        self.runner = Runner(self.seed, _case(config))
        writes = not config.option.collectonly and not is_worker(config)
        paths = [Path(p) for p in config.getoption("conformance_report")] if writes else []
        try:
            self.report = Report(environment(config, self.seed), paths)
        except OSError as error:
            raise pytest.UsageError(f"--conformance-report: cannot be written: {error}") from None

    def judge(self, cell: Cell | BrokenBackend) -> Result:
        result = self.runner.run(cell)
        if (
            isinstance(cell, Cell)
            and cell.property != BAD_INPUT
            and result.reproduce
            and "--case" not in result.reproduce
        ):
            # no one case shows it (a bias over all examples, say): the same examples do
            profile = shlex.quote(self.profile)
            result.reproduce += f" --hypothesis-profile {profile} --hypothesis-seed={self.seed}"
        return result

    def add(self, result: Result) -> None:
        """To the report, in the order of the cells, in whatever order they are judged."""
        results = self.report.results
        self.report.add(result, bisect.bisect(results, self._number(result), key=self._number))

    def _number(self, result: Result) -> int:
        return self._places[_key(result)]


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.import_plugin("opspec.tests.beside")
    group = parser.getgroup("opspec", "conformance of implementations to opspec's specifications")
    group.addoption(
        "--impl",
        action="append",
        default=[],
        metavar="NAME",
        help="backend to judge, and nothing else: a shipped one ("
        + ", ".join(SHIPPED)
        + "), a dotted module or a path to a .py file; repeatable",
    )
    group.addoption("--op", action="append", default=[], metavar="OPERATION", help="only this operation; repeatable")
    group.addoption("--dtype", action="append", default=[], metavar="DTYPE", help="only this dtype; repeatable")
    group.addoption(
        "--property", action="append", default=[], metavar="PROPERTY", help="only this property; repeatable"
    )
    group.addoption(
        "--case",
        metavar="WORDS",
        help="judge this one case, as a failure prints it; needs --impl, --op, --dtype and --property",
    )
    group.addoption(
        "--conformance-report",
        action="append",
        default=[],
        metavar="FILE",
        help="write the matrix to a .json, .html or .md file; repeatable",
    )


@pytest.hookimpl(tryfirst=True)  # before Hypothesis's own, which loads the profile
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "beside: what another process finds out, see beside.py")
    for path in config.getoption("conformance_report"):
        if Path(path).suffix not in Report.WRITERS:
            raise pytest.UsageError(f"--conformance-report: {path!r} must end in one of {', '.join(Report.WRITERS)}")
        if not Path(path).absolute().parent.is_dir():
            raise pytest.UsageError(f"--conformance-report: no such directory: {Path(path).absolute().parent}")
    if config.getoption("case") is not None and not all(
        len(config.getoption(o)) == 1 for o in ("impl", "op", "dtype", "property")
    ):
        raise pytest.UsageError("--case needs exactly one each of --impl, --op, --dtype and --property")
    for name, examples in PROFILES.items():
        settings.register_profile(
            name,
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
    profile = config.getoption("--hypothesis-profile") or DEFAULT_PROFILE
    try:
        settings.get_profile(profile)  # first: what cannot be loaded would stay the current profile
    except Exception:
        raise pytest.UsageError(
            f"--hypothesis-profile: unknown profile {profile!r}; known: {', '.join(PROFILES)}"
        ) from None
    settings.load_profile(profile)
    config.option.hypothesis_profile = profile
    if config.getoption("hypothesis_seed") is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))
    try:
        int(config.option.hypothesis_seed)
    except ValueError:
        seed = config.option.hypothesis_seed
        raise pytest.UsageError(f"--hypothesis-seed: {seed!r} must be an integer") from None
    if config.getoption("impl") and (here := str(config.invocation_params.dir)) not in sys.path:
        sys.path.append(here)  # as `python -m pytest` does; last, so that it hides nothing
    suite = Suite(config)
    one_thread()
    config.stash[SUITE] = suite
    config.pluginmanager.register(Collector(suite), "opspec-collector")
    if suite.chosen:
        config.args[:] = [str(BENCHMARK if config.getoption("benchmark_only", False) else CONFORMANCE)]


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Cells are named alike from wherever they are run, not by the way from there to where opspec is installed."""
    if parent.config.stash[SUITE].chosen and module_path == CONFORMANCE:
        return pytest.Module.from_parent(parent, path=module_path, nodeid="opspec")
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        suite = metafunc.config.stash[SUITE]
        metafunc.parametrize("cell", suite.cells, ids=[str(c) for c in suite.cells])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Benchmarks run where --benchmark-only asks for them, and nothing beside them then."""
    only = config.getoption("benchmark_only", False)
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        (chosen if ("benchmark" in getattr(item, "fixturenames", ())) == only else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = chosen


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> Suite:
    return pytestconfig.stash[SUITE]


class Collector:
    """Takes the results of cells out of the tests' reports, from wherever they come."""

    def __init__(self, suite: Suite):
        self.suite = suite

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for result in (json.loads(str(value)) for name, value in report.user_properties if name == JUDGED):
                self.suite.add(Result(**result))
        elif report.when not in ("setup", "teardown"):  # pytest-xdist's: the worker is no more
            for cell in self.suite.cells:
                if isinstance(cell, Cell) and report.nodeid.endswith(f"::test_conforms[{cell}]"):
                    self.suite.add(self.suite.runner.crashed(cell, str(report.longrepr)))


def pytest_report_header(config: pytest.Config) -> list[str]:
    suite = config.stash[SUITE]
    lines = [
        f"opspec: {len(suite.cells)} cells, profile {config.option.hypothesis_profile}, "
        f"seed {suite.seed} (repeat with --hypothesis-seed={suite.seed})"
    ]
    for backend in suite.backends:
        if isinstance(backend, BrokenBackend):
            lines.append(f"opspec backend {backend.name}: cannot be used: {backend.reason}")
        else:
            note = f"; {backend.note}" if backend.note else ""
            lines.append(f"opspec backend {backend.name}: {', '.join(backend.operations)}{_missing(backend)}{note}")
    lines += [
        f"opspec {key}: {value}" for key, value in suite.report.environment.items() if key in ("device", "versions")
    ]
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    suite = config.stash.get(SUITE, None)
    if suite and suite.report.results:
        terminalreporter.ensure_newline()
        terminalreporter.section("conformance")
        columns = shutil.get_terminal_size((120, 24)).columns
        for line in matrix(suite.report.results, columns, terminalreporter.hasmarkup):
            terminalreporter.write_line(line)
        for path in suite.report.paths:
            terminalreporter.write_line(f"report: {path}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    suite = session.config.stash.get(SUITE, None)
    if suite:
        suite.report.write()


def conclude(result: Result, record_property: Callable[[str, object], None]) -> None:
    """A cell's verdict as pytest's outcome, and all of it as a property of the test, which goes to the report."""
    record_property(JUDGED, json.dumps(asdict(result), default=lambda number: number.item()))
    if result.verdict == "unsupported":
        pytest.skip(result.reason)
    if result.verdict == "known":
        pytest.xfail(result.reason)
    if result.verdict != "pass":
        pytest.fail(explain(result), pytrace=False)


def _load_all(names: Iterable[str]) -> list[Backend | BrokenBackend]:
    """Each backend once, under a name of its own; one that cannot be imported is a red cell, whatever it raised."""
    backends: list[Backend | BrokenBackend] = []
    files = set()
    for name in names:
        try:
            if not (name.endswith(".py") or all(part.isidentifier() for part in name.split("."))):
                known = f"a shipped one ({', '.join(SHIPPED)}), a dotted module or a path to a .py file"
                raise UnknownBackend(f"unknown backend {name!r}: expected {known}")
            backend = load(name)
            for operation in backend.operations:
                backend.dtypes(operation)  # raises for one that is none
        except UnknownBackend as error:
            raise pytest.UsageError(str(error)) from None
        except KeyboardInterrupt:
            raise
        except Exception as error:
            backends.append(BrokenBackend.of(name, error))
            continue
        except BaseException as error:  # sys.exit and pytest.skip are no way out either
            failure = ImportError(f"{type(error).__name__}: {error}")
            backends.append(BrokenBackend.of(name, failure.with_traceback(error.__traceback__)))
            continue
        if not backend.operations:
            raise pytest.UsageError(f"backend {name!r} defines none of the operations: {', '.join(OPERATIONS)}")
        file = getattr(backend.module, "__file__", None)
        file = Path(file).resolve() if file else backend.module
        if file not in files:
            backends.append(backend)
            files.add(file)
    called = Counter(b.name for b in backends)
    for namesake in [b for b in backends if isinstance(b, Backend) and called[b.name] > 1]:
        namesake.module.NAME = namesake.given  # type: ignore[attr-defined]
    return backends


def _case(config: pytest.Config) -> str | None:
    """The words of --case, which must make arrays: what is wrong with them is no fault of the backend."""
    words = config.getoption("case")
    if words is not None:
        (op,), (dtype,) = config.getoption("op"), config.getoption("dtype")
        try:
            Case.parse(OPERATIONS[op], words).draw(dtype)
        except Exception as error:
            raise pytest.UsageError(f"--case {words!r}: {error}") from None
    return words


def _key(cell: Cell | BrokenBackend | Result) -> tuple[str, ...]:
    if isinstance(cell, BrokenBackend):
        return cell.name, "-", "-", "import"
    if isinstance(cell, Cell):
        return cell.backend.name, cell.operation.name, cell.dtype, cell.property
    return cell.impl, cell.op, cell.dtype, cell.property


def _operations_in_dtypes(backend: Backend) -> str:
    return ", ".join(f"{name} in {'/'.join(backend.dtypes(name))}" for name in backend.operations)


def _missing(backend: Backend) -> str:
    missing = [name for name in OPERATIONS if name not in backend.operations]
    without = [name for name in backend.operations if backend.gradient(name) is None]
    words = [f"not defined: {', '.join(missing)}"] if missing else []
    words += [f"no gradient: {', '.join(without)}"] if without else []
    return f" ({'; '.join(words)})" if words else ""


def _known(config: pytest.Config, option: str, known: Sequence[str] | dict) -> list[str]:
    chosen = config.getoption(option)
    for name in chosen:
        if name not in known:
            raise pytest.UsageError(f"--{option}: unknown {option} {name!r}; known: {', '.join(known)}")
    return chosen
