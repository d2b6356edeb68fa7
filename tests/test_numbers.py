"""The number systems: one spec evaluated unchanged in each, the formats, the simulated population against real code.

`python -m opspec.tests.test_numbers` prints the figures: the root mean square of a real evaluation's errors over that
of its declared arithmetic's population, the storage's rounding included, for each output and each gradient.

Where the storage's rounding is all there is, the figure is 1. Elsewhere the model leaves a margin. A rounding is drawn
from ±u|x|, while half an ulp is on average 0.73 of that. The order of a sum is unknown, and blocked sums do better than
one term after another: 0.4 to 0.7 in float32 and float64. Elementary functions are drawn within function_ulps, though
good libraries keep half an ulp: softmax 0.2 to 0.4, a 16-bit LSTM 0.2 to 0.6. Operands declared as rounded all are.
"""

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opspec.spec import DTYPES, FORMATS, OPERATIONS, Arithmetic, format_of
from opspec.spec.arithmetic import round_to
from opspec.spec.certified import Certified, certify, evaluate, precision
from opspec.spec.rational import rational
from opspec.spec.simulated import REPLICATES, Simulated, Simulation
from opspec.spec.softmax import softmax, softmax_vjp
from opspec.tests.test_spec import CASES, POLYNOMIAL, call, outputs, settled

# One spec in every system


def simulated(array):
    return Simulation(Arithmetic("float64")).exactly(array)


def computed(array):
    """Simulated, with noise in it already."""
    return simulated(array) + 0.0


SYSTEMS = {"rational": rational, "certified": Certified.exactly, "simulated": simulated, "computed": computed}
EXPRESSIONS = {
    "matrices": (lambda a, b: a @ b, (3, 4), (4, 5)),
    "batch @ matrix": (lambda a, b: a @ b, (2, 2, 3, 4), (4, 5)),
    "matrix @ batch": (lambda a, b: a @ b, (3, 4), (2, 4, 5)),
    "batches broadcast": (lambda a, b: a @ b, (2, 1, 3, 4), (5, 4, 6)),
    "inner size 1": (lambda a, b: a @ b, (3, 1), (1, 5)),
    "strided operands": (lambda a, b: a.mT @ b[::-1, ::2], (4, 3), (4, 5)),
    "row and column": (lambda a, b: a + b, (3, 1), (4,)),
    "fewer axes": (lambda a, b: a * b - b, (2, 3, 4), (3, 1)),
    "scalar array": (lambda a, b: a * b, (2, 3), ()),
    "numbers": (lambda a: 2 * a - 1 + a / 4 - (-a), (2, 3)),
    "NumPy's numbers on the left": (lambda a: np.float64(2) * a + np.arange(3.0) * a, (2, 3)),
    "swapped axes": (lambda a: a.swapaxes(0, 2).swapaxes(-1, 1), (2, 3, 4)),
    "reshaped": (lambda a: a.mT.reshape((-1, 4)).reshape((a.shape[0] * a.shape[1], 4)), (2, 3, 4)),
    "indexed": (lambda a: a[:, None, 1] + a[::-1, ::2][..., :1], (4, 4)),
    "iterated": (lambda a: np.stack([row * len(a) for row in a][::-1]), (3, 2)),
    "sums": (
        lambda a: np.sum(a, axis=0) + np.sum(a, axis=-1, keepdims=True)[0] + np.sum(a, axis=(0, -1))[:, None],
        (2, 3, 4),
    ),
    "sum to a scalar": (lambda a: np.sum(a, axis=(0, 1)) / 2, (2, 3)),
    "maxima": (lambda a: np.max(a, axis=1) - np.max(a, axis=-1, keepdims=True)[:, 0], (2, 3, 4)),
    "maximum": (lambda a, b: np.maximum(np.maximum(a, b), 0), (2, 3), (3,)),
    "choice by a comparison": (lambda a, b: np.where(a > b, a, b) + np.where(a < b, 1, 0), (3, 4), (4,)),
    "choice by equality": (lambda a: np.where(a == np.max(a, axis=0), a, 0), (3, 4)),
    "choice by a mask": (lambda a, b: np.where(np.array([[True], [False]]), a, b), (2, 3), (4, 1, 1)),
    "stacked": (lambda a, b: np.stack([a, b, a * b], axis=1), (2, 3), (2, 3)),
    "joined": (lambda a, b: np.concatenate([a, np.ones((2, 1)), b], axis=-1), (2, 3), (2, 4)),
    "padded": (lambda a: np.pad(a, ((1, 0), (0, 2))), (2, 3)),
}


def plain(y):
    """The values as float64, of replicate 0 where there are replicates."""
    values = y.values[0] if isinstance(y, Simulated) else getattr(y, "values", y)
    return np.vectorize(float, otypes=[float])(values)


@pytest.mark.parametrize("expression, shapes", [(f, s) for f, *s in EXPRESSIONS.values()], ids=EXPRESSIONS)
@pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)
def test_shapes_and_values_are_numpys(system, expression, shapes):
    """Small quarters: float64 is exact on them, so are all systems' midpoints."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-8, 9, shape) / 4 for shape in shapes]
    expected, got = expression(*arrays), expression(*map(system, arrays))
    assert np.array_equal(plain(got), expected)


@pytest.mark.parametrize("kind", ["function", "vjp"])
@pytest.mark.parametrize("name", CASES)
def test_every_spec_runs_unchanged_in_every_system(name, kind):
    function, arrays, parameters = call(name, kind)
    expected = outputs(function, arrays, parameters)
    results = [
        evaluate(function, arrays, parameters, 128),
        Simulation(Arithmetic("float32")).evaluate(function, arrays, parameters),
    ]
    if name in POLYNOMIAL:
        results.append(outputs(function, map(rational, arrays), parameters))
    for result in results:
        for y, value in zip(result, expected, strict=True):
            assert plain(y).shape == np.shape(value)
            assert np.allclose(plain(y), value, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("system", [Certified.exactly, simulated], ids=["certified", "simulated"])
def test_what_a_system_lacks_is_refused_not_guessed(system):
    for unknown in (np.sin, np.cumsum, lambda a: np.add.reduce(a), lambda a: np.add(a, a, out=a)):
        with pytest.raises(TypeError):
            unknown(system(np.ones(3)))


def test_the_size_of_an_axis_has_its_root_in_the_system():
    with precision(256):
        root = np.sqrt(Certified.exactly(np.ones((2, 3))).shape[-1]).values.item()
        assert (root * root).contains(3)
        assert root.rad() < 1e-70
        assert not root.overlaps(Certified.exactly(np.sqrt(3.0)).values.item())
    simulation = Simulation(Arithmetic("float32"))
    root = np.sqrt(simulation.exactly(np.ones((2, 3))).shape[-1])
    assert root.shape == () and len(np.unique(root.values)) == REPLICATES
    size = simulation.exactly(np.ones((2, 3))).shape[1]
    assert size == 3 and isinstance(size, int) and [*range(size)] == [0, 1, 2]


# Formats and their roundings


@pytest.mark.parametrize("name", DTYPES)
def test_format_is_the_dtypes(name):
    fmt, info = FORMATS[name], (ml_dtypes if name == "bfloat16" else np).finfo(DTYPES[name])
    assert (fmt.p, fmt.dtype) == (info.nmant + 1, info.dtype)
    assert 2 * fmt.u == info.eps
    assert (fmt.largest, fmt.tiny) == (info.max, info.smallest_subnormal)
    assert fmt.smallest_normal == info.smallest_normal
    assert all(format_of(what) is fmt for what in (name, fmt, DTYPES[name], getattr(torch, name)))


def test_tf32_is_float32_with_float16s_significand():
    tf32, single, half = (FORMATS[name] for name in ("tf32", "float32", "float16"))
    assert (tf32.u, tf32.smallest_normal, tf32.e_max) == (half.u, single.smallest_normal, single.e_max)
    with pytest.raises(KeyError):
        _ = tf32.dtype


def about_the_ties(name):
    """Numbers of a format, the ties between neighbours and what lies next to these, in a finer format; and the ends."""
    if name == "float32":
        finer, bits = np.float64, np.random.default_rng(0).integers(1 << 32, size=1 << 16, dtype=np.uint32)
    else:
        finer, bits = np.float32, np.arange(1 << 16, dtype=np.uint16)
    every = bits.view(DTYPES[name])
    every = every[np.isfinite(every)]
    ties = (every.astype(finer) + np.nextafter(every, DTYPES[name].type(np.inf)).astype(finer)) / 2
    edge = finer(2.0 ** (FORMATS[name].e_max + 1) - 2.0 ** (FORMATS[name].e_max - FORMATS[name].p))
    near = np.array([*ties, edge, -edge, 0.0, -0.0, np.inf, -np.inf, np.nan], finer)
    beside = (np.nextafter(near, finer(end)) for end in (-np.inf, np.inf))
    return np.concatenate([every.astype(finer), near, *beside])


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
def test_rounding_is_the_dtypes_conversion(name):
    with np.errstate(all="ignore"):
        values = about_the_ties(name)
        expected = values.astype(DTYPES[name]).astype(np.float64)
        got = round_to(values.astype(np.float64), FORMATS[name])
    assert np.array_equal(got, expected, equal_nan=True)
    number = ~np.isnan(got)
    assert np.array_equal(np.signbit(got)[number], np.signbit(expected)[number])


def test_rounding_happens_once():
    """ml_dtypes rounds float64 to float32 first, where 2⁻⁴⁰ above the tie is lost."""
    value = np.array([1 + 2.0**-8 + 2.0**-40])
    assert round_to(value, FORMATS["bfloat16"]) == 1 + 2.0**-7
    assert value.astype(ml_dtypes.bfloat16) == 1


def test_tf32_rounds_to_ten_stored_bits():
    values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    bits = values.view(np.uint32)
    even = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1)) & np.uint32(0xFFFFE000)
    assert np.array_equal(round_to(values.astype(np.float64), FORMATS["tf32"]), even.view(np.float32))


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(sorted(FORMATS)))
def test_rounding_is_to_the_nearest_even(value, name):
    """Over the rationals: no number of the format is nearer, and of two as near the even one is taken."""
    fmt = FORMATS[name]
    with np.errstate(over="ignore"):
        rounded = float(round_to(np.array([value]), fmt)[0])
    x, bound = abs(Fraction(value)), Fraction(fmt.largest) + Fraction(2) ** (fmt.e_max - fmt.p)
    if x >= bound:
        assert rounded == np.copysign(np.inf, value)
        return
    step = Fraction(2) ** (max(int(np.frexp(value)[1]), fmt.e_min + 1) - fmt.p)
    below, rest = divmod(x, step)
    up = rest > step / 2 or (rest == step / 2 and below % 2)
    assert abs(Fraction(rounded)) == (below + bool(up)) * step


REFUSED = {
    "storage": ({"storage": "float8"}, r"unknown format 'float8'; known: .*bfloat16"),
    "accumulator": ({"storage": "float32", "accumulator": "int8"}, r"unknown format 'int8'"),
    "not a format": ({"storage": 32}, r"unknown format 32"),
    "ulps": ({"storage": "float32", "function_ulps": -1}, r"function_ulps must be at least 0, got -1"),
    "not a number of ulps": ({"storage": "float32", "function_ulps": float("nan")}, r"function_ulps .* got nan"),
    "rounding": ({"storage": "float32", "rounding": "up"}, r'rounding must be "nearest" or "truncate", got \'up\''),
}


@pytest.mark.parametrize("fields, message", REFUSED.values(), ids=REFUSED)
def test_arithmetic_names_what_is_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        Arithmetic(**fields)


@pytest.mark.parametrize(
    "declared, expected",
    [
        ({"storage": "bfloat16"}, ("float32", "float32", "float32")),
        ({"storage": "float32"}, ("float32", "float32", "float32")),
        ({"storage": "float64"}, ("float64", "float64", "float64")),
        ({"storage": "float16", "intermediates": "float16"}, ("float16", "float32", "float16")),
        ({"storage": "float32", "intermediates": "float64"}, ("float64", "float64", "float64")),
        ({"storage": "float32", "operands": "tf32"}, ("float32", "float32", "tf32")),
    ],
    ids=str,
)
def test_arithmetic_has_the_documented_defaults(declared, expected):
    a = Arithmetic(**declared)
    assert (a.intermediates.name, a.accumulator.name, a.operands.name) == expected
    assert replace(a) == a
    assert f"storage {a.storage.name}, intermediates {expected[0]}" in str(a)


# What the simulation draws


def relative(y):
    """Spread over magnitude, root mean square over the elements."""
    return float(np.sqrt(np.mean((y.spread() / np.abs(y.values[0])) ** 2)))


@pytest.fixture
def x():
    return np.random.default_rng(0).uniform(1, 2, (64, 64)).astype(ml_dtypes.bfloat16).astype(np.float64)


@pytest.mark.parametrize("intermediates", ["float32", "float64"])
def test_one_rounding_spreads_uniformly_within_u(intermediates, x):
    """In float64, too, whose noise is magnified to be seen."""
    u = FORMATS[intermediates].u
    a = Simulation(Arithmetic("bfloat16", intermediates)).exactly(x)
    for y in (a + 0.3, a * 0.3, a / 3, np.sqrt(a)):
        assert relative(y) == pytest.approx(u / np.sqrt(3), rel=0.02, abs=0)
        assert np.max(np.abs(y.deviations() / y.values[0])) <= u * (1 + 1e-3)
        assert len(y.values) == REPLICATES


def test_the_last_rounding_is_the_storages_and_no_noise(x):
    a = Simulation(Arithmetic("float32")).exactly(x)
    assert np.all((a * 0.3).spread() == 0)
    assert relative((a * 0.3) * 0.7) == pytest.approx(FORMATS["float32"].u / np.sqrt(3), rel=0.02, abs=0)


def test_a_last_rounding_coarser_than_the_storages_is_noise(x):
    a = Simulation(Arithmetic("float32", intermediates="bfloat16")).exactly(x)
    assert relative(a * 0.3) == pytest.approx(FORMATS["bfloat16"].u / np.sqrt(3), rel=0.02, abs=0)


def test_what_is_exact_has_no_spread(x):
    a = Simulation(Arithmetic("float32")).exactly(x)
    for y in (a, -a, a[::-1], np.maximum(a, 1.5), np.max(a, axis=0), 2 * a, a / 4, a * 0, np.where(a > 1.5, a, 0)):
        assert np.all(y.spread() == 0)
    assert a.exact and np.max(a, axis=0).exact and not (a * 3).exact
    (pooled,) = Simulation(Arithmetic("bfloat16")).evaluate(
        OPERATIONS["maxpool2d"].function, (x[None, :, :, None],), {"window": (2, 2)}
    )
    assert pooled.exact


@pytest.mark.parametrize("n", [2, 16, 256])
def test_a_sum_spreads_as_sequential_sums_do(n):
    """Terms of random sign and of one sign, against the errors of really adding one after another."""
    rng = np.random.default_rng(0)
    for terms in (rng.standard_normal((n, 4096)), rng.uniform(0, 1, (n, 4096))):
        terms = terms.astype(np.float32)
        total = np.add.accumulate(terms, axis=0)[-1].astype(np.float64)
        spread = np.sum(Simulation(Arithmetic("float32")).exactly(terms), axis=0).spread()
        real = total - terms.astype(np.float64).sum(axis=0)
        assert 0.5 < np.sqrt(np.mean(real**2) / np.mean(spread**2)) < 1.1


def test_a_functions_error_is_common_to_a_replicate_in_part(x):
    y = np.tanh(Simulation(Arithmetic("float32", function_ulps=4)).exactly(x))
    d = y.deviations() / y.values[0]
    assert np.max(np.abs(d)) <= 2 * 4 * FORMATS["float32"].u
    halves = np.mean(d[:, :32], axis=(1, 2)), np.mean(d[:, 32:], axis=(1, 2))
    assert np.corrcoef(*halves)[0, 1] > 0.99
    assert np.std(d - np.mean(d, axis=(1, 2), keepdims=True)) > FORMATS["float32"].u


def test_operands_are_rounded_where_they_are_finer(x):
    """All are finer than tf32; of those stored in bfloat16 only the computed ones, here the second half.

    The diagonal's numbers differ: the rounding errors of equal ones would be one.
    """
    diagonal = np.diag(1 + np.arange(64) / 64)
    for dtype, operands, rounded in (("float32", "tf32", 2), ("bfloat16", "bfloat16", 1)):
        simulation, u = Simulation(Arithmetic(dtype, operands=operands)), FORMATS[operands].u
        a, b = (simulation.exactly(v) for v in (x, diagonal))
        stored, computed = a @ b, np.concatenate([a, a * 0.3]) @ b
        assert relative(computed[64:]) == pytest.approx(u * np.sqrt(rounded / 3), rel=0.05)
        assert (relative(stored) > u / 2) == (rounded == 2)


def test_a_product_is_stored_before_its_bias_is_added_where_sums_are_stored_coarsely(x):
    """x W + b of an eager framework: b = −x W leaves the rounding error of what was stored."""
    a = Arithmetic("float16", sums="float16")
    for arithmetic, error in ((Arithmetic("float16"), 0.0), (a, a.sums.u / np.sqrt(3))):
        simulation = Simulation(arithmetic)
        product = simulation.exactly(x) @ simulation.exactly(x)
        left = (product - simulation.exactly(product.values[0])).values[1:]
        assert np.sqrt(np.mean(np.square(left / product.values[0]))) == pytest.approx(error, rel=0.1, abs=1e-6)


def test_equal_numbers_have_equal_rounding_errors(x):
    """Products by one factor: equal ones are off by the same; so are functions of equal arguments, but not of opposite ones.

    In every other replicate: some compute equal numbers in several ways.
    """
    a = Simulation(Arithmetic("float32")).exactly(np.concatenate([x, x, -x]))
    for y, opposite in ((a * 0.3, True), (np.tanh(a), False)):
        first, second, third = np.split(y.values[1:] / y.values[0] - 1, 3, axis=1)
        assert np.array_equal(first[::2], second[::2]) and np.array_equal(first[::2], third[::2]) == opposite
        assert len(np.unique(first[0])) >= 128
        assert np.mean(first[1::2] == second[1::2]) < 0.01


@pytest.mark.parametrize("bits", [8, 24])
def test_a_sum_of_equal_stored_terms(bits):
    """31 times one product: so are its rounding errors one, unless all partial sums are exact."""
    rng = np.random.default_rng(0)
    x, y = (np.round(rng.uniform(1, 2, (64, 1)) * 2 ** (bits - 1)) / 2 ** (bits - 1) for _ in range(2))
    simulation = Simulation(Arithmetic("float32"))
    together = (simulation.exactly(np.repeat(x, 31, 1)) @ np.repeat(y.T, 31, 0)).spread()
    real = np.add.accumulate(np.repeat((x @ y.T).astype(np.float32)[None], 31, 0))[-1] - 31 * (x @ y.T)
    assert np.sqrt(np.mean(real**2)) < np.sqrt(np.mean(together**2))
    terms = rng.uniform(1, 2, (64, 31))
    apart = (simulation.exactly(terms) @ np.repeat(y.T, 31, 0)).spread()
    assert (np.sqrt(np.mean(real**2)) > np.sqrt(np.mean(apart**2))) == (bits == 24)


def test_a_bias_that_is_added_to_rounded_sums():
    """What it loses is the same in all rows whose totals have one exponent; a bias of 0 loses nothing."""
    x = np.random.default_rng(0).uniform(1, 1.2, (4096, 1)).astype(np.float32)
    W, b = np.float32([[1.3]]), np.float32([0.3 + 2.0**-25])  # a quarter of an ulp beyond the totals' last place

    def lean(b):
        y = Simulation(Arithmetic("float32")).exactly(x) @ W + b
        return np.sqrt(np.mean(np.mean(y.deviations(), axis=1) ** 2)) / 2.0**-24

    real = np.mean(x @ W + b - (x.astype(float) @ W + b.astype(float))) / 2.0**-24
    assert 0.3 < abs(real) < 2 * lean(b)
    assert lean(0 * b) < 0.02


@pytest.mark.parametrize("bits", [8, 24])
def test_a_sum_of_equal_stored_numbers(bits):
    """One after another they are off by the same, while the partial sums keep their exponent; few bits are never off."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.round(rng.uniform(1, 2, (1, 256)) * 2 ** (bits - 1)) / 2 ** (bits - 1), 31, 0)
    simulated = np.sqrt(np.mean(np.sum(Simulation(Arithmetic("float32")).exactly(x), axis=0).spread() ** 2))
    real = np.sqrt(np.mean((np.add.accumulate(x.astype(np.float32))[-1] - np.sum(x, axis=0)) ** 2))
    apart = np.sum(Simulation(Arithmetic("float32")).exactly(x + np.linspace(0, 0.1, 31)[:, None]), axis=0).spread()
    if bits == 8:
        assert real == 0 and simulated < 2 * np.sqrt(np.mean(apart**2))
    else:
        assert 1.5 * np.sqrt(np.mean(apart**2)) < real < simulated < 3 * real


@pytest.mark.parametrize("storage", ["float32", "float64"])
def test_a_kink_that_noise_decides_is_decided_both_ways(storage):
    u = FORMATS[storage].u
    x = np.array([[1.0, -1.0], [1.0, -1.0 + 1e4 * u], [1.0, 1.0]])
    arrays = (x, np.array([[3.0], [3.0]]), np.array([u]), np.array([[1.0], [1.0], [1e4]]))
    dx, *_ = Simulation(Arithmetic(storage)).evaluate(OPERATIONS["dense"].vjp, arrays, {"activation": "relu"})
    open_, decided = dx.values[1:, 0, 0], dx.values[1:, 1, 0]
    assert np.all(abs(decided - 3) < 1e-3)
    closed = abs(open_) < 1e-3
    assert 4 < np.sum(closed) < REPLICATES - 4
    assert dx.spread()[0, 0] == pytest.approx(3 * np.sqrt(np.mean(closed)), rel=1e-3), "the whole branch"


@pytest.mark.parametrize(("gap", "linear"), [(100, False), (2000, True)])
def test_scores_that_noise_may_not_tell_apart_are_no_first_order(gap, linear):
    """10⁴ and 100 less, where bfloat16 steps by 64: few replicates show that either may be the larger one, or both
    the same, or none does. Where the difference is large against what is lost, e to its power is 0 for sure."""
    arithmetic = Arithmetic("bfloat16", intermediates="bfloat16")
    q, k = np.array([[100.0, 1.0]]), np.array([[100.0, 0.0], [100.0, -float(gap)]])
    judged = [Simulation(arithmetic, seed=seed) for seed in range(40)]
    for simulation in judged:
        simulation.evaluate(lambda q, k: softmax(q @ k.mT), (q, k), {})
    assert {s.first_order for s in judged} == {linear}


def test_truncation_cuts_off_the_first_product_where_it_does_not_fit():
    """x y alone: in float32 it loses up to an ulp towards zero; with few bits, nothing."""
    truncating = Arithmetic("float32", rounding="truncate")
    rng = np.random.default_rng(0)
    for bits, cut in ((24, True), (8, False)):
        x, y = (np.ldexp(np.rint(rng.uniform(2 ** (bits - 1), 2**bits, shape)), -bits) for shape in ((1, 1), (1, 400)))
        (product,) = Simulation(truncating).evaluate(np.matmul, (x, y), {})
        leaning = np.mean(product.deviations() / product.values[0], axis=-1) * 2.0**24
        assert np.all(leaning < 0.1) and (np.mean(leaning) < -0.3) == cut


def test_what_overflows_on_the_way_decides_no_comparison():
    """1 + 180 000 − 180 000 is positive, and no number in float16: either branch may be taken."""
    simulation = Simulation(Arithmetic("float16", "float16", accumulator="float16"))
    large, one = simulation.exactly(np.full((1, 1), 6e4)), simulation.exactly(np.ones((1, 1)))
    with np.errstate(all="ignore"):
        difference = large * 3 - large * 3 + one
    assert difference.values[0] == 1 and not np.isfinite(difference.values[1:]).any()
    taken = np.where(difference > 0, large, 0)
    assert 4 < np.sum(taken.values[1:] == 0) < REPLICATES - 4


def test_below_its_normal_numbers_float64_has_noise_too():
    """A product loses half of the least number, magnified, and a sum of 4096 products as many times as much."""
    simulation = Simulation(Arithmetic("float64"))
    least = simulation.magnification * 2.0**-1074
    small = simulation.exactly(np.full((1, 4096), 2.0**-1045))
    assert 0.5 * least < np.ptp((small * 0.3).values[1:]) < 1.5 * least
    assert np.ptp((small @ np.full((4096, 1), 0.3)).values[1:]) > 1000 * least


def test_the_ends_of_the_range():
    single = FORMATS["float32"]
    simulation, flushing = Simulation(Arithmetic("float32")), Simulation(Arithmetic("float32", flush=True))
    large = np.exp(simulation.exactly([80.0, np.log(single.largest), 100.0]))
    infinite = np.mean(np.isinf(large.values[1:]), axis=0)
    assert infinite[0] == 0 and 0 < infinite[1] < 1 and infinite[2] == 1
    assert np.all(np.isfinite(large.values[0]))
    small = simulation.exactly([2.0**-100]) * simulation.exactly([1.1 * 2.0**-40])
    assert (small * 3).spread() == pytest.approx(3 * single.tiny / 2 / np.sqrt(3), rel=0.3, abs=0)
    flushed = flushing.exactly([2.0**-100]) * flushing.exactly([1.1 * 2.0**-40])
    assert np.all(flushed.values[1:] == 0) and flushed.values[0] > 0
    assert (flushed * 3).spread() == 3 * flushed.values[0]
    (p,) = simulation.evaluate(OPERATIONS["dense"].function, ([[-89.0]], [[1.0]], [0.0]), {"activation": "sigmoid"})
    assert p.spread() > 0.99 * p.values[0] > 0, "1 / (1 + e⁸⁹) is 0 in float32, for e⁸⁹ overflows"


# The population against real evaluations


def lstm_shapes(T, N, I, H):
    return [(T, N, I), (N, H), (N, H), *[(H, H + I), (H,)] * 4]


REAL = {  # operation, shapes, parameters
    "dense": ("dense", [(16, 64), (64, 32), (32,)], {}),
    "dense-tanh": ("dense", [(16, 64), (64, 32), (32,)], {"activation": "tanh"}),
    "conv2d": ("conv2d", [(2, 9, 9, 8), (3, 3, 8, 16)], {"stride": (2, 1), "padding": (1, 1)}),
    "softmax": ("softmax", [(32, 65)], {}),
    "attention": ("attention", [(1, 2, 33, 16), (1, 2, 33, 16), (1, 2, 33, 8)], {}),
    "lstm": ("lstm", lstm_shapes(7, 4, 8, 16), {}),
    "long-sums": ("dense", [(8, 1024), (1024, 8), (8,)], {}),
}
SEEDS = range(3)
TORCH = {name: getattr(torch, name) for name in DTYPES}


@lru_cache
def stored(case, dtype, seed):
    """Arrays and cotangents in the dtype, of a size at which no φ saturates."""
    op, shapes, parameters = REAL[case]
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s) * (0.3 if op in ("dense", "lstm") else 1) for s in shapes]
    dy = [rng.standard_normal(y.shape) for y in outputs(OPERATIONS[op].function, arrays, parameters)]
    return tuple(tuple(a.astype(DTYPES[dtype]) for a in group) for group in (arrays, dy))


@lru_cache
def truth(case, kind, dtype, seed):
    op, _, parameters = REAL[case]
    arrays, dy = stored(case, dtype, seed)
    return certify(getattr(OPERATIONS[op], kind), arrays if kind == "function" else arrays + dy, parameters, settled)


def by_numpy(case, dtype, seed, inside):
    """The spec itself on NumPy's arrays of the format `inside`, the results rounded to the dtype."""
    op, _, parameters = REAL[case]
    function, vjp = NUMPY.get(op, (OPERATIONS[op].function, OPERATIONS[op].vjp))
    arrays, dy = ([a.astype(DTYPES[inside]) for a in group] for group in stored(case, dtype, seed))
    results = outputs(function, arrays, parameters), vjp(*arrays, *dy, **parameters)
    assert all(v.dtype == DTYPES[inside] for group in results for v in group)
    return [[v.astype(DTYPES[dtype]).astype(np.float64) for v in group] for group in results]


def numpy_attention(q, k, v):
    return softmax(q @ k.mT / q.dtype.type(np.sqrt(q.shape[-1]))) @ v


def numpy_attention_vjp(q, k, v, dy):
    root = q.dtype.type(np.sqrt(q.shape[-1]))
    z = q @ k.mT / root
    dS = softmax_vjp(z, dy @ v.mT)[0] / root
    return dS @ k, dS.mT @ q, softmax(z).mT @ dy


# NumPy's √ of an int is float64, and with it the rest of the spec
NUMPY = {"attention": (numpy_attention, numpy_attention_vjp)}


def by_torch(case, dtype, seed, inside=None):
    """PyTorch's own functions and derivatives on the CPU."""
    arrays, dy = (
        [torch.tensor(a.astype(np.float64)).to(TORCH[dtype]) for a in group] for group in stored(case, dtype, seed)
    )
    for a in arrays:
        a.requires_grad_(True)
    y = torch_function(case, arrays)
    return [[v.detach().double().numpy() for v in group] for group in (y, torch.autograd.grad(y, arrays, dy))]


def torch_function(case, arrays):
    F = torch.nn.functional
    if case == "lstm":
        x, h0, c0, *gates = arrays
        f, i, c, o = range(0, 8, 2)
        W, b = (torch.cat([gates[gate + n] for gate in (i, f, c, o)]) for n in (0, 1))
        W_h, W_x = W.split((h0.shape[1], x.shape[2]), dim=1)
        weights = [W_x.contiguous(), W_h.contiguous(), b, torch.zeros_like(b)]
        h, _, c_T = torch._VF.lstm(x, (h0[None], c0[None]), weights, True, 1, 0.0, False, False, False)
        return h, c_T[0]
    if case == "conv2d":
        x, w = arrays
        y = F.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), stride=(2, 1), padding=(1, 1))
        return (y.permute(0, 2, 3, 1),)
    if case == "softmax":
        return (torch.softmax(arrays[0], -1),)
    if case == "attention":
        return (F.scaled_dot_product_attention(*arrays),)
    z = F.linear(arrays[0], arrays[1].T, arrays[2])
    return (torch.tanh(z) if case == "dense-tanh" else z,)


def half_ulp(m, fmt):
    _, exponent = np.frexp(m)
    return np.ldexp(0.5, np.maximum(exponent - fmt.p, fmt.e_min - fmt.p + 1))


def errors(case, kind, dtype, arithmetic, got, seed):
    """Per output: the real errors, the population's spread and half an ulp of the storage format."""
    op, _, parameters = REAL[case]
    arrays, dy = stored(case, dtype, seed)
    population = Simulation(arithmetic).evaluate(
        getattr(OPERATIONS[op], kind), arrays if kind == "function" else arrays + dy, parameters
    )
    for y, values, m in zip(population, got, truth(case, kind, dtype, seed), strict=True):
        yield values - m.high - m.low, y.spread(), half_ulp(m.high, arithmetic.storage)


def figures(case, kind, dtype, arithmetic, run):
    """rms(real errors) / rms(spread ⊕ half ulp/√3) for each output, over all seeds."""
    ratios = []
    for per_output in zip(*(errors(case, kind, dtype, arithmetic, run(seed), seed) for seed in SEEDS), strict=True):
        real = sum(np.sum(e**2) for e, _, _ in per_output)
        expected = sum(np.sum(spread**2 + half**2 / 3) for _, spread, half in per_output)
        ratios.append(float(np.sqrt(real / expected)))
    return ratios


def rows():
    """Name: case, dtype, how it is run, the format inside, the declared arithmetic."""
    for case in list(REAL)[:-1]:
        for dtype in ("float32", "float64"):
            yield f"numpy {case} {dtype}", (case, dtype, by_numpy, dtype, Arithmetic(dtype))
            yield f"torch {case} {dtype}", (case, dtype, by_torch, None, Arithmetic(dtype))
        for dtype in ("float16", "bfloat16"):
            yield f"numpy {case} {dtype}, float32 inside", (case, dtype, by_numpy, "float32", Arithmetic(dtype))
            stored = {"attention": {"operands": dtype}, "dense": {}, "conv2d": {}}
            declared = Arithmetic(dtype, **stored.get(case, {"intermediates": dtype, "function_ulps": 1}))
            if (case, dtype) != ("conv2d", "float16"):  # some processors add its gradients up in float16, some do not
                yield f"torch {case} {dtype}", (case, dtype, by_torch, None, declared)
        if case in ("conv2d", "softmax", "attention"):  # elsewhere NumPy adds rows up in float16, products in float32
            declared = Arithmetic("float16", intermediates="float16", function_ulps=1)
            yield f"numpy {case} float16 throughout", (case, "float16", by_numpy, "float16", declared)


ROWS = dict(rows())


def row(name):
    case, dtype, run, inside, arithmetic = ROWS[name]
    return [
        figures(case, kind, dtype, arithmetic, lambda seed, n=n: run(case, dtype, seed, inside)[n])
        for n, kind in enumerate(("function", "vjp"))
    ]


@pytest.mark.parametrize("name", ROWS)
def test_the_declared_population_brackets_a_real_evaluation(name):
    for ratios in row(name):
        assert all(0.1 < ratio < 1.5 for ratio in ratios), ratios


# The same sums, less exactly than declared


def single(case, seed):
    return stored(case, "float32", seed)[0]


def with_tf32_operands(seed):
    x, W, b = single("dense", seed)
    x, W = (round_to(a.astype(np.float64), FORMATS["tf32"]).astype(np.float32) for a in (x, W))
    return [(x @ W + b).astype(np.float64)]


def with_bfloat16_weights(seed, dtype="float32"):
    q, k, v = (a.astype(np.float32) for a in stored("attention", dtype, seed)[0])
    P = softmax(q @ k.mT / np.float32(4)).astype(ml_dtypes.bfloat16).astype(np.float32)
    return [(P @ v).astype(DTYPES[dtype]).astype(np.float64)]


def with_truncated_sums(seed):
    """Products and sums, one after another, cut to 24 bits."""
    x, W, b = (a.astype(np.float64) for a in single("long-sums", seed))
    total = 0 * x[:, :1] * b
    for term in (*(x[:, k : k + 1] * W[k] for k in range(len(W))), b):
        significand, exponent = np.frexp(total + term)
        total = np.ldexp(np.trunc(np.ldexp(significand, 24)), exponent - 24)
    return [total]


def with_float32_inside(seed):
    return by_numpy("conv2d", "float64", seed, "float32")[0]


def with_scores_off_by_1e_5(seed):
    q, k, v = single("attention", seed)
    return [(softmax(q @ k.mT * np.float32((1 + 1e-5) / 4)) @ v).astype(np.float64)]


def with_a_gate_off_by_1e_5(seed):
    x, h0, c0, *gates = single("lstm", seed)
    gates[4] = gates[4] * np.float32(1 + 1e-5)
    return [y.astype(np.float64) for y in OPERATIONS["lstm"].function(x, h0, c0, *gates)]


SINGLE, DOUBLE = Arithmetic("float32"), Arithmetic("float64")
UNTRUE = {  # case, what is done, a declaration that does not tell, one that does
    "tf32 operands": ("dense", with_tf32_operands, SINGLE, replace(SINGLE, operands="tf32")),
    "bfloat16 weights": ("attention", with_bfloat16_weights, SINGLE, replace(SINGLE, operands="bfloat16")),
    "truncated sums": ("long-sums", with_truncated_sums, SINGLE, replace(SINGLE, rounding="truncate")),
    "float32 inside": ("conv2d", with_float32_inside, DOUBLE, replace(SINGLE, storage="float64")),
    "scores off by 1e-5": ("attention", with_scores_off_by_1e_5, SINGLE, None),
    "a gate off by 1e-5": ("lstm", with_a_gate_off_by_1e_5, SINGLE, None),
}


@pytest.mark.parametrize("case, run, untrue, true", UNTRUE.values(), ids=UNTRUE)
def test_an_untrue_declaration_is_far_from_what_was_done(case, run, untrue, true):
    assert max(figures(case, "function", untrue.storage.name, untrue, run)) > 10
    if true:
        assert all(0.1 < ratio < 1.5 for ratio in figures(case, "function", true.storage.name, true, run))


def worst_excess(case, arithmetic, run):
    """The largest error beyond half an ulp of the storage format, in spreads."""
    dtype = arithmetic.storage.name
    parts = [part for seed in SEEDS for part in errors(case, "function", dtype, arithmetic, run(seed), seed)]
    return max(float(np.max((np.abs(error) - half) / spread)) for error, spread, half in parts)


def with_a_stored_sum(seed):
    x, W, b = (a.astype(np.float32) for a in stored("dense-tanh", "bfloat16", seed)[0])
    z = (x @ W + b).astype(ml_dtypes.bfloat16).astype(np.float32)
    return [np.tanh(z).astype(ml_dtypes.bfloat16).astype(np.float64)]


def with_stored_weights(seed):
    return with_bfloat16_weights(seed, "bfloat16")


def with_float16_throughout(seed):
    return by_numpy("softmax", "float16", seed, "float16")[0]


HIDDEN = {  # case, what is done, the field of Arithmetic that tells
    "stored weights": ("attention", with_stored_weights, "bfloat16", "operands"),
    "a stored sum": ("dense-tanh", with_a_stored_sum, "bfloat16", "sums"),
    "float16 throughout": ("softmax", with_float16_throughout, "float16", "intermediates"),
}


@pytest.mark.parametrize("case, run, dtype, field", HIDDEN.values(), ids=HIDDEN)
def test_what_the_storages_rounding_hides_in_the_mean_shows_in_the_elements(case, run, dtype, field):
    untrue, true = Arithmetic(dtype), Arithmetic(dtype, **{field: dtype})
    assert all(ratio < 3 for ratio in figures(case, "function", dtype, untrue, run))
    assert worst_excess(case, untrue, run) > 100
    assert worst_excess(case, true, run) < 6


def test_flushing_must_be_declared():
    """x W is a subnormal number of float32, which a flushing implementation returns as 0."""
    arrays = [np.full((4, 1), 2.0**-100), np.linspace(1, 2, 5)[None] * 2.0**-30, np.zeros(5)]
    (m,) = certify(OPERATIONS["dense"].function, arrays, {})

    def expected(arithmetic):
        (y,) = Simulation(arithmetic).evaluate(OPERATIONS["dense"].function, arrays, {})
        return np.sqrt(np.mean(y.spread() ** 2 + half_ulp(m.high, arithmetic.storage) ** 2 / 3))

    flushed, kept = (np.sqrt(np.mean((y - m.high) ** 2)) for y in (0 * m.high, np.float32(m.high)))
    assert flushed > 1e4 * expected(SINGLE) and kept < 1.5 * expected(SINGLE)
    assert 0.1 < flushed / expected(replace(SINGLE, flush=True)) < 1.5


def test_half_of_a_subnormal_number_loses_its_last_bit():
    """Other powers of two, and other numbers, cost nothing."""
    simulation = Simulation(Arithmetic("float16", intermediates="float16"))
    numbers = simulation.exactly(np.array([3 * 2.0**-24, 3.0]))
    half = numbers / 2
    assert 0.2 < half.spread()[0] / 2.0**-24 < 0.5 and half.spread()[1] == 0
    assert (half * 2).spread()[0] == 2 * half.spread()[0] and not (numbers * 2).spread().any()
    assert (numbers[1:] / 2).exact
    wide = Simulation(Arithmetic("float16"))
    assert not (wide.exactly(np.array([3 * 2.0**-24])) / 2).spread().any()


def test_only_bfloat16_is_flushed_by_default():
    """The processors' products of bfloat16 do it, whatever is stored."""
    assert Arithmetic("bfloat16").flush and Arithmetic("float32", operands="bfloat16").flush
    assert not Arithmetic("bfloat16", flush=False).flush
    assert not any(Arithmetic(dtype).flush for dtype in ("float16", "float32", "float64"))


if __name__ == "__main__":
    for name in ROWS:
        forward, gradient = ("  ".join(f"{ratio:.2f}" for ratio in ratios) for ratios in row(name))
        print(f"{name:42s} {forward:12s} | {gradient}")
