"""Traits tell implementations apart that are known to differ, are shown with their values, and fail no run."""

import itertools
import json

import numpy as np
import pytest

from opspec import OPERATIONS
from opspec.impls import load
from opspec.spec.arithmetic import Format, round_to
from opspec.tests.compare import main as compare
from opspec.tests.conformance import Cell, Runner
from opspec.tests.planted import backend
from opspec.tests.plugin import conclude
from opspec.tests.report import Report, matrix, summary
from opspec.tests.traits import CASES, TRAITS, cases

correct = load("numpy").module


def measure(trait, operation, dtype="float32", **functions):
    cell = Cell(backend(dtypes=(dtype,), **functions), OPERATIONS[operation], dtype, f"trait:{trait}")
    result = Runner(0).run(cell)
    conclude(result, lambda *_: None)
    return result


def shuffled(function, seed=0):
    """Adds up in another order at every call."""
    rng = np.random.default_rng(seed)

    def dense(x, W, *rest, **activation):
        order = rng.permutation(len(W))
        return function(x[:, order], W[order], *rest, **activation)

    return dense


def one_row_goes_another_way(x, W, b, **activation):
    if len(x) > 1:
        return correct.dense(x, W, b, **activation)
    return correct.dense(x[:, ::-1], W[::-1], b, **activation)


def dense_in(p):
    """Every operand, partial sum and intermediate rounded to p bits."""

    def rounded(a):
        return round_to(a.astype(float), Format(f"{p} bits", p, -126, 127))

    def dense(x, W, b, activation="identity"):
        x_, W_, z = rounded(x), rounded(W), np.zeros((len(x), W.shape[1]))
        for i in range(len(W)):
            z = rounded(z + x_[:, i : i + 1] * W_[i])
        z = rounded(z + b)
        return rounded(np.tanh(z) if activation == "tanh" else z).astype(x.dtype)

    return dense


def dense_in_float64(x, W, b, **activation):
    return correct.dense(x.astype(float), W.astype(float), b.astype(float), **activation).astype(x.dtype)


def test_repeatable():
    assert measure("repeatable", "dense").value == "yes"
    assert measure("repeatable", "dense", dense=shuffled(correct.dense)).value == "no"
    assert measure("gradient_repeatable", "dense", dense=shuffled(correct.dense)).value == "yes"


def test_gradient_repeatable():
    rng = np.random.default_rng(0)

    def dense_vjp(x, W, b, dy, **activation):
        order = rng.permutation(len(x))
        dx, dW, db = correct.dense_vjp(x[order], W, b, dy[order], **activation)
        return dx[np.argsort(order)], dW, db

    assert measure("gradient_repeatable", "dense", dense_vjp=dense_vjp).value == "no"
    assert measure("gradient_repeatable", "softmax").value == "yes"


def test_batch_invariant():
    assert measure("batch_invariant", "softmax").value == "yes"
    assert measure("batch_invariant", "dense", dense=one_row_goes_another_way).value == "no"


@pytest.mark.parametrize("p", [10, 14, 18, 22])
def test_effective_bits_are_those_computed_with(p):
    """Or up to two more: a tolerance holds several of the errors that it allows for."""
    assert p <= int(measure("effective_bits", "dense", dense=dense_in(p)).value) <= p + 2


def test_effective_bits_end_where_the_storage_hides_them():
    assert measure("effective_bits", "dense", dense=dense_in_float64).value.startswith("≥3")
    assert measure("effective_bits", "dense", "float16").value.startswith("≥2")
    assert measure("effective_bits", "dense", "float16", dense=dense_in(13)).value in ("13", "14", "15")
    assert measure("effective_bits", "dense", "float64").value == "≥53"


def test_what_is_wrong_has_no_bits():
    assert measure("effective_bits", "softmax", softmax=lambda x: np.full_like(x, 1e9)).value == "0"


def test_the_gradient_has_bits_of_its_own():
    def softmax_vjp(x, dp):
        return tuple(a.astype(np.float16).astype(np.float32) for a in correct.softmax_vjp(x, dp))

    assert int(measure("effective_bits", "softmax", softmax_vjp=softmax_vjp).value) >= 24
    assert int(measure("gradient_effective_bits", "softmax", softmax_vjp=softmax_vjp).value) <= 16


@pytest.mark.parametrize("trait", TRAITS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_trait_of_every_operation_is_measured_alike_in_every_run(operation, trait):
    if not TRAITS[trait].applies(OPERATIONS[operation]):
        pytest.skip("this operation's output has no batch")
    cell = Cell(load("numpy"), OPERATIONS[operation], "float32", trait)
    first, second = (Runner(seed).run(cell) for seed in (0, 1))
    assert first == second and first.verdict == "pass" and first.value and first.examples == len(CASES[operation])
    case = first.reproduce.split(" --case ")[1].strip("'")
    assert Runner(0, case).run(cell).value == first.value


def raises(x):
    raise OSError("no such device")


def refuses(x):
    raise NotImplementedError("not before spring")


@pytest.mark.parametrize("softmax", [raises, refuses])
def test_what_raises_has_no_traits_and_fails_elsewhere(softmax):
    for trait, row in TRAITS.items():
        if not row.needs_gradient:
            cell = Cell(backend(softmax=softmax), OPERATIONS["softmax"], "float32", trait)
            result = Runner(0).run(cell)
            assert (result.verdict, result.value) == ("unsupported", "")
            assert result.reason in ("OSError: no such device", "not before spring")


def test_parameters_that_an_implementation_lacks_are_left_alone():
    assert {k for case in cases(OPERATIONS["conv2d"], ()) for k in case.parameters} == set()
    assert {case.mask for case in cases(OPERATIONS["attention"], ("causal",))} == {"none"}
    given = itertools.chain.from_iterable(cases(op, op.parameters) for op in OPERATIONS.values())
    assert {k for case in given for k in case.parameters} >= {"activation", "stride", "padding", "dilation", "causal"}


def test_values_are_shown_wherever_cells_are(tmp_path, capsys):
    results = [measure(t.name, "dense", dense=one_row_goes_another_way) for t in TRAITS.values()]
    lines = "\n".join(matrix(results, 120, colour=False))
    bits = [r.value for r in results[-2:]]
    assert f"==≠ {' '.join(bits)}" in lines and "traits are reported, not judged" in lines
    assert summary(results) == "5 cells: 5 reported; 0 examples judged"
    paths = [tmp_path / f"out.{suffix}" for suffix in ("json", "md", "html")]
    report = Report({}, paths)
    for result in results:
        report.add(result)
    report.write()
    assert [c["value"] for c in json.loads(paths[0].read_text("utf-8"))["cells"]] == ["yes", "yes", "no", *bits]
    for path in paths[1:]:
        text = path.read_text("utf-8")
        assert "trait:batch_invariant" in text and "raits are reported, not judged" in text
        assert all(value in text for value in bits)
    before = tmp_path / "before.json"
    before.write_text(paths[0].read_text("utf-8").replace('"no"', '"yes"'), "utf-8")
    assert compare(["compare", str(before), str(paths[0])]) == 0
    assert "value yes → no" in capsys.readouterr().out
    nothing = tmp_path / "nothing.json"
    nothing.write_text('{"opspec": 1, "cells": []}')
    assert compare(["compare", str(before), str(nothing)]) == 0, "a trait that vanished made nothing worse"
