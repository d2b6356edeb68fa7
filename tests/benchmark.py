"""Speed: what is timed, on which inputs, by which clock and against which roofline, and the table of it all."""

import io
import os
import shutil
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, groupby, islice, zip_longest
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from ..impls import Backend
from .threads import processors
from .workloads import BEYOND_CACHES

LIBRARIES = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "ONEDNN_")  # whose environment variables change speeds
NOTICEABLE = 0.05  # share of the processors; threads that wait for one another lose many times what others take
WARM = 24  # calls, after which an allocator asks for fresh pages no more


def call(backend: Backend, op: str, property_: str) -> Callable[..., Any]:
    """What is timed, of arrays, cotangents and parameters in the backend's own: from the call until its results are there."""
    function: Any = backend.function(op)
    gradient: Any = backend.gradient(op)
    if property_ == "gradient":
        return lambda *inputs: settle(gradient(*inputs))
    return lambda arrays, cotangents, parameters: settle(function(*arrays, **parameters))


def settle(result: Any) -> Any:
    """Wait for arrays that are promises, as JAX's are. CUDA's are waited for by the clock."""
    for array in result if isinstance(result, tuple | list) else (result,):
        if hasattr(array, "block_until_ready"):
            array.block_until_ready()
    return result


class Moment:
    """A moment in PyTorch's CUDA stream; the difference of two is the device's time between them, in seconds."""

    def __init__(self):
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: "Moment") -> float:
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1e3


@dataclass(frozen=True)
class Device:
    """Where a backend's arrays live. The CUDA half is for kernels launched into PyTorch's stream."""

    kind: str

    @classmethod
    def of(cls, array: Any) -> "Device":
        return cls("cuda" if isinstance(array, torch.Tensor) and array.is_cuda else "cpu")

    @property
    def timer(self) -> Callable[[], Any]:
        return Moment if self.kind == "cuda" else time.perf_counter

    def flush(self) -> None:
        """Empty the GPU's L2, and keep it busy while what is timed is launched; a CPU's caches are left by cycling."""
        if self.kind == "cuda":
            torch.empty(1 << 30, dtype=torch.int8, device="cuda").zero_()

    def seconds(self, function: Callable[[], Any], rounds: int) -> list[float]:
        durations = []
        for _ in range(rounds):
            self.flush()
            start = self.timer()
            function()
            durations.append(self.timer() - start)
        return durations


class Roofline:
    """The best rates seen in this run of a large matrix product (FLOP/s) and of a copy (bytes/s, read and written).

    Measured again beside every benchmark, so that a moment in which the machine was busy does not lower it. The product
    is PyTorch's `@` and, on the CPU, a 1×1 convolution, which comes from another library and may be twice as fast. The
    copy is as an operation's: its source lies beyond the caches, its target where the allocator puts it.
    """

    def __init__(self, device: Device, dtype: str):
        self.device, self.dtype = device, dtype
        n, size = (8192, 1 << 28) if device.kind == "cuda" else (2048, 1 << 24)
        self.n, (a, b) = n, torch.randn(2, n, n, device=device.kind).to(getattr(torch, dtype))
        self.products: list[Callable[[], Any]] = [lambda: a @ b]
        if device.kind == "cpu":
            image, weight = a.view(1, 1, n, n).permute(0, 3, 1, 2), b.view(n, n, 1, 1)
            self.products.append(lambda: F.conv2d(image, weight))
        self.sources = cycle(torch.ones(BEYOND_CACHES // (1 << 24), size, dtype=torch.int8, device=device.kind))
        self.flops = self.bytes = 0.0
        for _ in range(WARM):
            next(self.sources).clone()

    def measure(self) -> None:
        product = min(min(self.device.seconds(product, 2)) for product in self.products)
        copies = [self.device.seconds(source.clone, 1)[0] for source in islice(self.sources, 12)]
        self.flops = max(self.flops, 2 * self.n**3 / product)
        self.bytes = max(self.bytes, 2 * next(self.sources).nbytes / median(copies))

    def fraction(self, row: dict[str, Any]) -> float:
        return max(row["flops"] / self.flops, row["bytes"] / self.bytes) / row["median"]

    def __str__(self) -> str:
        rates = f"product {self.flops / 1e9:.0f} GFLOP/s, copy {self.bytes / 1e9:.1f} GB/s"
        return f"roofline, {self.device.kind} {self.dtype}: {rates}"


class Speeds:
    """What a session has timed: a pytest plugin that shows it in place of pytest-benchmark's table, and saves it."""

    def __init__(self, environment: dict[str, Any]):
        tuned = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(LIBRARIES)]
        self.environment = environment | {"threads": f"{processors()} threads", "libraries": " ".join(tuned)}
        self.before = _worked()
        self.peers: dict[tuple[str, str, str], list[dict[str, Any]]] = {}  # rows by workload, property and dtype
        self.rooflines: dict[tuple[str, str], Roofline] = {}
        self.notes: list[str] = []

    def roofline(self, device: Device, dtype: str) -> Roofline:
        if (device.kind, dtype) not in self.rooflines:
            self.rooflines[device.kind, dtype] = Roofline(device, dtype)
        return self.rooflines[device.kind, dtype]

    def add(self, row: dict[str, Any]) -> None:
        """A benchmark's extra_info. What compares it with others follows them, to the end of the session."""
        self.peers.setdefault((row["workload"], row["property"], row["dtype"]), []).append(row)
        for peers in self.peers.values():
            for one in peers:
                one["roofline"] = self.rooflines[one["device"], one["dtype"]].fraction(one)
                if others := [other for other in peers if other is not one]:
                    best = min(others, key=lambda other: other["median"])
                    one["best_peer"], one["times_best_peer"] = best["impl"], best["median"] / one["median"]

    def skip(self, task: object, *why: str) -> NoReturn:
        """Skip a test, and say so beside the table."""
        reason = "; ".join(filter(None, why))
        self.notes.append(f"not timed: {task}: {reason}")
        pytest.skip(reason)

    def pytest_benchmark_group_stats(self, config: pytest.Config) -> list | None:
        """Nothing for pytest-benchmark's own table, unless an option asks for what it alone can show."""
        asked = ("benchmark_compare", "benchmark_histogram", "benchmark_cprofile", "benchmark_verbose")
        return None if any(config.getoption(option) for option in asked) else []

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        rooflines = [str(r) for r in self.rooflines.values()]
        found = {"rooflines": rooflines, "notes": self.notes, "others": self.others()}
        output_json["opspec"] = {"environment": self.environment, **found}

    def others(self) -> float:
        """The share of the processors that other processes have taken since the beginning; 0 where nobody can say."""
        wall, everybody, own = (now - before for now, before in zip(_worked(), self.before, strict=True))
        return max(everybody - own, 0.0) / (wall * (os.cpu_count() or 1))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.ensure_newline()
        terminalreporter.section("speed")
        for line in self.lines(max(shutil.get_terminal_size().columns, 120)):  # broken lines rather than lost figures
            terminalreporter.write_line(line)

    def lines(self, width: int) -> list[str]:
        lines = [", ".join(filter(None, (self.environment[key] for key in ("date", "device", "threads", "libraries"))))]
        if (others := self.others()) > NOTICEABLE:
            lines.append(f"DISTRUST THESE TIMES: {others:.0%} of the processors worked for other processes meanwhile")
        lines += map(str, self.rooflines.values())
        if self.peers:
            console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
            console.print(self._table())
            lines += console.file.getvalue().splitlines()  # type: ignore[attr-defined]
            lines += [
                "median and best of the rounds, iqr: interquartile range over median; rate: at the median",
                "roofline: the least time that products and bytes take at the roofline's rates, over the median",
                "peer: the best other backend's median over this one's; over 1 is faster",
            ]
        return lines + self.notes

    def _table(self) -> Table:
        table = Table(pad_edge=False)
        for heading in ("operation", "", "backend"):
            table.add_column(heading, no_wrap=True)
        for heading in ("median, ms", "iqr", "best, ms", "rate", "roofline", "peer"):
            table.add_column(heading, justify="right", no_wrap=True)
        for _, groups in groupby(self.peers.values(), key=lambda peers: (peers[0]["workload"], peers[0]["dtype"])):
            rows = [(row["property"] if n == 0 else "", row) for peers in groups for n, row in enumerate(peers)]
            first = rows[0][1]
            words = [first["op"], *textwrap.wrap(f"{first['dtype']} {first['sizes']}", 28)]
            words = [*words[: len(rows) - 1], "\n".join(words[len(rows) - 1 :])]  # beside the rows, as far as they go
            for word, (property_, row) in zip_longest(words, rows):
                table.add_row(word, property_, row["impl"], *_figures(row))
            table.add_section()
        return table


def _figures(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['median'] * 1e3:.3f}",
        f"{row['iqr'] / row['median']:.0%}",
        f"{row['best'] * 1e3:.3f}",
        f"{row['rate'] / 1e9:.1f} {row['unit']}",
        f"{row['roofline']:.0%}",
        f"{row['times_best_peer']:.2f}" if "times_best_peer" in row else "",
    ]


def _worked() -> tuple[float, float, float]:
    """Seconds by the clock, of work of all processors, and of this process and its children; Linux tells."""
    own = sum(os.times()[:4])
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        return time.monotonic(), own, own
    return time.monotonic(), (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), own  # less idle and iowait
