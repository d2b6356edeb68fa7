"""The specs against their equations, index by index, and their gradients against differences. No implementation here.

Polynomial operations equal the literal sums and maxima over Fractions exactly; the others overlap the literal sums in
256-bit balls. Every gradient equals the central difference of the certified forward spec, entry by entry.
"""

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

from opspec.spec import OPERATIONS
from opspec.spec.certified import Certified, Undecided, certify, evaluate, precision
from opspec.spec.rational import rational

HALF = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 0]], bool)  # the second query may attend to no key
MASK = np.array([[HALF, HALF[:, ::-1]], [np.eye(3, 4, dtype=bool), ~HALF]])  # [B,H,M,S]
SQUARE = np.array([[[[1, 0, 1], [0, 0, 1], [1, 1, 1]]]], bool)  # with causal, the second query has no key left

DENSE, IMAGE = {"N": 2, "I": 3, "O": 2}, {"N": 2, "H": 5, "W": 4, "C": 2}
FILTER = IMAGE | {"kH": 2, "kW": 3, "O": 2}
RECURRENT = {"T": 3, "N": 2, "I": 2, "H": 3, "O": 2}
HEADS = {"B": 2, "H": 2, "M": 3, "S": 4, "D": 2, "E": 3}
MULTI = {"B": 2, "M": 3, "S": 4, "F": 3, "h": 2, "d_k": 2, "d_v": 1}
CASES: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "dense": ("dense", DENSE, {}),
    "dense-relu": ("dense", DENSE, {"activation": "relu"}),
    "dense-sigmoid": ("dense", DENSE, {"activation": "sigmoid"}),
    "dense-tanh": ("dense", DENSE, {"activation": "tanh"}),
    "mse": ("mse", {"N": 2, "O": 3}, {}),
    "softmax": ("softmax", {"N": 2, "M": 4}, {}),
    "softmax-one_entry": ("softmax", {"N": 2, "M": 1}, {}),
    "conv2d": ("conv2d", FILTER, {}),
    "conv2d-stride": ("conv2d", FILTER, {"stride": (3, 2)}),
    "conv2d-padding": ("conv2d", FILTER, {"padding": (2, 1)}),
    "conv2d-dilation": ("conv2d", FILTER, {"dilation": (3, 1)}),
    "conv2d-all": ("conv2d", FILTER, {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 2)}),
    "maxpool2d": ("maxpool2d", IMAGE, {"window": (2, 3)}),
    "maxpool2d-overlapping": ("maxpool2d", IMAGE, {"window": (3, 2), "stride": (2, 1)}),
    "maxpool2d-gaps": ("maxpool2d", IMAGE, {"window": (1, 2), "stride": (3, 3)}),
    "maxpool2d-one_pixel": ("maxpool2d", IMAGE, {"window": (1, 1)}),
    "rnn": ("rnn", RECURRENT, {}),
    "rnn-identity": ("rnn", RECURRENT, {"activation": "identity"}),
    "rnn-relu": ("rnn", RECURRENT, {"activation": "relu"}),
    "rnn-sigmoid": ("rnn", RECURRENT, {"activation": "sigmoid"}),
    "rnn-one_step": ("rnn", RECURRENT | {"T": 1}, {}),
    "lstm": ("lstm", RECURRENT, {}),
    "lstm-one_step": ("lstm", RECURRENT | {"T": 1}, {}),
    "attention": ("attention", HEADS, {}),
    "attention-mask": ("attention", HEADS, {"mask": MASK}),
    "attention-mask_broadcast": ("attention", HEADS, {"mask": MASK[:1, 1:]}),
    "attention-causal": ("attention", HEADS | {"S": 3}, {"causal": True}),
    "attention-causal_mask": ("attention", HEADS | {"S": 3}, {"causal": True, "mask": SQUARE}),
    "multihead": ("multihead_attention", MULTI, {}),
    "multihead-mask": ("multihead_attention", MULTI, {"mask": MASK}),
    "multihead-causal": ("multihead_attention", MULTI | {"S": 3}, {"causal": True}),
}
POLYNOMIAL = [name for name, (op, _, parameters) in CASES.items() if OPERATIONS[op].polynomial(**parameters)]
each_case = pytest.mark.parametrize("name", CASES)
each_polynomial = pytest.mark.parametrize("name", POLYNOMIAL)


def draw(name, seed=0):
    """The case's operation, its arrays of standard normal float64, and its parameters."""
    op, sizes, parameters = CASES[name]
    rng, operation = np.random.default_rng(seed), OPERATIONS[op]
    letters = sizes | {"H+I": sizes.get("H", 0) + sizes.get("I", 0), "h*d_v": sizes.get("h", 0) * sizes.get("d_v", 0)}
    arrays = tuple(rng.standard_normal([letters[a] for a in shape.split()]) for shape in operation.arrays.values())
    return operation, arrays, parameters


def outputs(function, arrays, parameters):
    y = function(*arrays, **parameters)
    return y if isinstance(y, tuple) else (y,)


def cotangents(name, seed=1):
    """One array of standard normal float64 for every output."""
    rng = np.random.default_rng(seed)
    return tuple(np.asarray(rng.standard_normal(np.shape(y))) for y in outputs(draw(name)[0].function, *draw(name)[1:]))


# The equations, index by index, on object arrays of Fraction or arb


def table(*shape):
    """The array whose entry at an index is entry(*index)."""

    def fill(entry):
        y = np.empty(shape, object)
        for index in np.ndindex(*shape):
            y[index] = entry(*index)
        return y

    return fill


PHI = {
    "identity": lambda z: z,
    "relu": lambda z: z if z > 0 else 0 * z,
    "sigmoid": lambda z: 1 / (1 + (-z).exp()),
    "tanh": lambda z: z.tanh(),
}


def literal_dense(x, W, b, activation="identity"):
    N, (I, O) = len(x), W.shape
    return table(N, O)(lambda n, o: PHI[activation](sum(W[i, o] * x[n, i] for i in range(I)) + b[o]))


def literal_mse(y_hat, y):
    return table()(lambda: sum((y_hat[i] - y[i]) ** 2 for i in np.ndindex(*y.shape)) / 2)


def literal_softmax(x):
    return table(*x.shape)(lambda n, i: x[n, i].exp() / sum(x[n, j].exp() for j in range(x.shape[1])))


def places(size, window, stride, padding=0, dilation=1):
    """How many windows lie within the padded image."""
    return sum(p * stride + (window - 1) * dilation < size + 2 * padding for p in range(size + 2 * padding))


def literal_conv2d(x, w, stride=(1, 1), padding=(0, 0), dilation=(1, 1)):
    (N, H, W, C), (kH, kW, _, O) = x.shape, w.shape

    def pixel(n, i, j, c):
        return x[n, i, j, c] if 0 <= i < H and 0 <= j < W else 0

    return table(N, *map(places, (H, W), (kH, kW), stride, padding, dilation), O)(
        lambda n, i, j, o: sum(
            w[r, s, c, o]
            * pixel(n, i * stride[0] + r * dilation[0] - padding[0], j * stride[1] + s * dilation[1] - padding[1], c)
            for r, s, c in np.ndindex(kH, kW, C)
        )
    )


def literal_maxpool2d(x, window, stride=(1, 1)):
    N, H, W, C = x.shape
    return table(N, *map(places, (H, W), window, stride), C)(
        lambda n, i, j, c: max(x[n, i * stride[0] + r, j * stride[1] + s, c] for r, s in np.ndindex(*window))
    )


def literal_rnn(x, h0, W_hh, W_xh, b_h, W_yh, b_y, activation="tanh"):
    phi, (T, N, I), (O, H) = PHI[activation], x.shape, W_yh.shape
    h = {(-1, n, j): h0[n, j] for n, j in np.ndindex(N, H)}
    for t, n, j in np.ndindex(T, N, H):
        recurrent = sum(W_hh[j, k] * h[t - 1, n, k] for k in range(H))
        h[t, n, j] = phi(recurrent + sum(W_xh[j, i] * x[t, n, i] for i in range(I)) + b_h[j])
    y = table(T, N, O)(lambda t, n, o: phi(sum(W_yh[o, j] * h[t, n, j] for j in range(H)) + b_y[o]))
    return y, table(T, N, H)(lambda *index: h[index])


def literal_lstm(x, h0, c0, W_f, b_f, W_i, b_i, W_c, b_c, W_o, b_o):
    (T, N, I), H = x.shape, h0.shape[1]
    h = {(-1, n, j): h0[n, j] for n, j in np.ndindex(N, H)}
    C = {(-1, n, j): c0[n, j] for n, j in np.ndindex(N, H)}
    for t, n, j in np.ndindex(T, N, H):
        hx = [h[t - 1, n, k] for k in range(H)] + [x[t, n, i] for i in range(I)]
        z_f, z_i, z_c, z_o = (
            sum(W[j, k] * hx[k] for k in range(H + I)) + b[j]
            for W, b in ((W_f, b_f), (W_i, b_i), (W_c, b_c), (W_o, b_o))
        )
        C[t, n, j] = PHI["sigmoid"](z_f) * C[t - 1, n, j] + PHI["sigmoid"](z_i) * z_c.tanh()
        h[t, n, j] = PHI["sigmoid"](z_o) * C[t, n, j].tanh()
    return table(T, N, H)(lambda *index: h[index]), table(N, H)(lambda *index: C[(T - 1, *index)])


def literal_attention(q, k, v, mask=None, causal=False):
    B, H, M, D = q.shape
    S, E = v.shape[2:]
    mask = np.broadcast_to(True if mask is None else mask, (B, H, M, S))

    def entry(b, h, m, e):
        keys = [s for s in range(S) if mask[b, h, m, s] and (not causal or s <= m)]
        weights = [(sum(q[b, h, m, d] * k[b, h, s, d] for d in range(D)) / arb(D).sqrt()).exp() for s in keys]
        values = [v[b, h, s, e] for s in keys]
        return sum(p * x for p, x in zip(weights, values, strict=True)) / sum(weights) if keys else arb(0)

    return table(B, H, M, E)(entry)


def literal_multihead_attention(q, k, v, W_q, W_k, W_v, W_o, mask=None, causal=False):
    B, F, (h, _, d_v) = len(q), q.shape[-1], W_v.shape

    def project(x, W):
        return table(B, h, x.shape[1], W.shape[-1])(
            lambda b, i, row, d: sum(x[b, row, f] * W[i, f, d] for f in range(F))
        )

    heads = literal_attention(project(q, W_q), project(k, W_k), project(v, W_v), mask, causal)
    return table(*q.shape)(lambda b, m, f: sum(heads[b, i, m, d] * W_o[i * d_v + d, f] for i, d in np.ndindex(h, d_v)))


LITERAL = {name.removeprefix("literal_"): f for name, f in list(globals().items()) if name.startswith("literal_")}


def literal(name):
    """The outputs by the literal equation, in Fractions where they suffice and else in 256-bit balls."""
    operation, arrays, parameters = draw(name)
    if name in POLYNOMIAL:
        return outputs(LITERAL[operation.name], map(rational, arrays), parameters)
    with precision(256):
        return outputs(LITERAL[operation.name], (Certified.exactly(a).values for a in arrays), parameters)


# The forward specs


@each_polynomial
def test_polynomial_spec_equals_its_indices_over_the_rationals(name):
    operation, arrays, parameters = draw(name)
    for y, expected in zip(outputs(operation.function, map(rational, arrays), parameters), literal(name), strict=True):
        assert np.shape(y) == expected.shape
        assert np.all(y == expected)


@pytest.mark.parametrize("name", [name for name in CASES if name not in POLYNOMIAL])
def test_spec_overlaps_its_indices_in_balls(name):
    operation, arrays, parameters = draw(name)
    for y, expected in zip(evaluate(operation.function, arrays, parameters, 256), literal(name), strict=True):
        assert y.shape == expected.shape
        for a, b in zip(y.values.flat, expected.flat, strict=True):
            assert a.overlaps(b)
            assert max(a.rad(), b.rad()) < 1e-70


@each_case
def test_shapes_are_those_of_the_signature(name):
    operation, arrays, parameters = draw(name)
    sizes = operation.check(arrays, cotangents(name), **parameters)
    for y, letters in zip(cotangents(name), operation.outputs.values(), strict=True):
        assert y.shape == tuple(sizes[letter] for letter in letters.replace("()", "").split())
    gradients = operation.vjp(*arrays, *cotangents(name), **parameters)
    assert [g.shape for g in gradients] == [a.shape for a in arrays]


def test_every_operation_and_parameter_has_a_case():
    assert {op for op, _, _ in CASES.values()} == set(OPERATIONS) == set(LITERAL)
    for operation in OPERATIONS.values():
        tried = {parameter for op, _, parameters in CASES.values() if op == operation.name for parameter in parameters}
        assert tried == set(operation.parameters)


# The gradients

BITS, STEP = 512, 120  # the difference's own error is about STEP's square, 2⁻²⁴⁰


@lru_cache
def differences(name):
    """Central differences of every output, by array, entry of the array and output: differences(name)[2][5][0]."""
    operation, arrays, parameters = draw(name)

    def at(n, index, step):
        values = Certified.exactly(arrays[n]).values
        values[index] += step
        return evaluate(operation.function, (*arrays[:n], Certified(values), *arrays[n + 1 :]), parameters, BITS)

    def slopes(n, index, h):
        return [(up.values - down.values) / (2 * h) for up, down in zip(at(n, index, h), at(n, index, -h), strict=True)]

    with precision(BITS):
        h = arb(2) ** -STEP
        return [[slopes(n, index, h) for index in np.ndindex(*a.shape)] for n, a in enumerate(arrays)]


OUTPUTS = [(name, n, y) for name, (op, *_) in CASES.items() for n, y in enumerate(OPERATIONS[op].outputs)]


@pytest.mark.parametrize("name, output", [pytest.param(name, n, id=f"{name}-{y}") for name, n, y in OUTPUTS])
def test_vjp_equals_central_differences(name, output):
    operation, arrays, parameters = draw(name)
    dy = [c if n == output else 0 * c for n, c in enumerate(cotangents(name))]
    gradients = evaluate(operation.vjp, (*arrays, *dy), parameters, BITS)
    with precision(BITS):
        c = Certified.exactly(dy[output]).values
        for argument, a, gradient, entries in zip(operation.arrays, arrays, gradients, differences(name), strict=True):
            assert gradient.shape == a.shape, argument
            for got, slopes in zip(gradient.values.flat, entries, strict=True):
                assert abs(got - np.sum(slopes[output] * c)) < 1e-60, argument


def test_differences_tell_a_gradient_that_is_wrong_by_one_part_in_1e40():
    operation, arrays, parameters = draw("lstm")
    dy = cotangents("lstm")
    dx, *_ = evaluate(operation.vjp, (*arrays, *dy), parameters, BITS)
    with precision(BITS):
        slope = sum(np.sum(s * Certified.exactly(c).values) for s, c in zip(differences("lstm")[0][0], dy, strict=True))
        assert abs(dx.values.flat[0] - slope) < 1e-60
        assert abs(dx.values.flat[0] * (1 + arb(10) ** -40) - slope) > 1e-60


@each_case
def test_nan_reaches_whatever_depends_on_it(name):
    operation, arrays, parameters = draw(name)
    for n, entries in enumerate(differences(name)):
        poisoned = [a.copy() for a in arrays]
        poisoned[n].flat[-1] = np.nan
        with np.errstate(invalid="ignore"):
            y = outputs(operation.function, poisoned, parameters)
        for values, slopes in zip(y, entries[-1], strict=True):
            independent = np.vectorize(lambda slope: slope.contains(0), otypes=[bool])(slopes)
            assert np.all(np.isnan(values) | independent)


def test_nan_stays_between_the_windows_of_a_strided_convolution():
    """A cotangent of NaN reaches the pixels that its window read, and no others."""
    x, w, dy = np.ones((1, 5, 1, 1)), np.ones((1, 1, 1, 1)), np.ones((1, 3, 1, 1))
    dy[0, 1] = np.nan
    dx, _ = OPERATIONS["conv2d"].vjp(x, w, dy, stride=(2, 1))
    assert np.array_equal(dx[0, :, 0, 0], [1, 0, np.nan, 0, 1], equal_nan=True)


# Kinks, ties, rows without a key


SYSTEMS = {"float64": np.asarray, "rational": rational, "certified": Certified.exactly}
each_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


def numbers(y):
    return np.asarray(getattr(y, "values", y), object)


@each_system
def test_relu_has_derivative_zero_at_zero(system):
    x, W, b = system([[1.0, -1.0], [2.0, 1.0]]), system([[1.0], [1.0]]), system([0.0])
    dx, dW, db = OPERATIONS["dense"].vjp(x, W, b, system([[3.0], [5.0]]), activation="relu")
    assert np.all(numbers(dx) == [[0, 0], [5, 5]])
    assert np.all(numbers(dW) == [[10], [5]])
    assert np.all(numbers(db) == [5])


@each_system
def test_relu_has_derivative_zero_at_zero_in_the_recurrence(system):
    """Where a_1 = 0 nothing flows to the first step, though z_t > 0 everywhere."""
    one, x = system([[1.0]]), system([[[0.0]], [[1.0]]])
    arrays = (x, system([[0.0]]), one, one, system([0.0]), one, system([1.0]))
    zero = 0 * x
    gradients = OPERATIONS["rnn"].vjp(*arrays, system([[[1.0]], [[1.0]]]), zero, activation="relu")
    assert [numbers(g).reshape(-1).tolist() for g in gradients] == [[0, 1], [0], [0], [1], [1], [1], [2]]


def first_maxima(x, dy, window, stride):
    """dy at the first maximum, row-major, of each window, by looking at one pixel after another."""
    dx = np.zeros_like(x)
    for n, i, j, c in np.ndindex(*dy.shape):
        best = None
        for r, s in np.ndindex(*window):
            pixel = (n, i * stride[0] + r, j * stride[1] + s, c)
            if best is None or x[pixel] > x[best]:
                best = pixel
        dx[best] += dy[n, i, j, c]
    return dx


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32), st.tuples(*[st.integers(1, 4)] * 2), st.tuples(*[st.integers(1, 3)] * 2), st.integers(0, 2)
)
def test_max_pool_gives_a_tie_to_the_first_maximum(seed, window, stride, most):
    rng = np.random.default_rng(seed)
    x = rng.integers(-most, 1, (2, 5, 4, 2))  # 0 to 2 distinct values below 0: hardly a window without a tie
    dy = rng.integers(1, 9, OPERATIONS["maxpool2d"].function(x, window, stride).shape)
    expected = first_maxima(x, dy, window, stride)
    for system in SYSTEMS.values():
        (dx,) = OPERATIONS["maxpool2d"].vjp(system(x), system(dy), window=window, stride=stride)
        assert np.all(numbers(dx) == expected)


@pytest.mark.parametrize("name", ["attention-mask", "attention-causal_mask", "multihead-mask"])
def test_query_without_a_key_gives_exactly_zero(name):
    operation, arrays, parameters = draw(name)
    dy = cotangents(name)
    (y,), (dq, *_) = (
        evaluate(f, a, parameters, 128) for f, a in ((operation.function, arrays), (operation.vjp, (*arrays, *dy)))
    )
    mask = np.broadcast_to(parameters["mask"], (2, 2, 3, parameters["mask"].shape[-1]))
    blind = ~np.any(mask & np.tri(*mask.shape[-2:], dtype=bool) if "causal" in parameters else mask, axis=-1)
    blind = np.all(blind, axis=1) if operation.name == "multihead_attention" else blind  # in all heads
    assert np.any(blind)
    assert np.all(y.values[blind] == 0) and np.all(dq.values[blind] == 0)
    assert not np.any(y.values[~blind] == 0) and not np.any(dq.values[~blind] == 0)


def test_softmax_survives_what_would_overflow():
    x = np.array([[1e15, 1e15 + 1], [-1e15, 800.0]])
    (ball,) = certify(OPERATIONS["softmax"].function, (x,), {}, settled)
    p = 1 / (1 + np.exp(1))
    assert np.allclose(ball.high, [[p, 1 - p], [0, 1]], rtol=1e-15, atol=0)
    assert np.allclose(OPERATIONS["softmax"].function(x), ball.high, rtol=1e-15, atol=0)


# Certified values


PARTS = ("high", "low", "radius")
each_kind = pytest.mark.parametrize("kind", ["function", "vjp"])


def settled(n, ball):
    """Small radii against the whole output: an entry may be 0 without its ball being so."""
    return bool(np.all(ball.radius <= 2.0**-90 * np.max(np.abs(ball.high))))


def call(name, kind):
    operation, arrays, parameters = draw(name)
    return getattr(operation, kind), arrays + (cotangents(name) if kind == "vjp" else ()), parameters


@each_polynomial
@each_kind
def test_balls_contain_the_rational_value(name, kind):
    function, arrays, parameters = call(name, kind)
    truth = [np.vectorize(Fraction, otypes=[object])(y) for y in outputs(function, map(rational, arrays), parameters)]
    for bits in (30, 128):
        for y, exact in zip(evaluate(function, arrays, parameters, bits), truth, strict=True):
            with precision(4096):  # the Fractions are dyadic, so these balls have radius 0
                for a, t in zip(y.values.flat, exact.flat, strict=True):
                    assert a.contains(arb(fmpq(int(t.numerator), int(t.denominator))))
    for ball, exact in zip(certify(function, arrays, parameters, settled), truth, strict=True):
        high, low, radius = (rational(part) for part in (ball.high, ball.low, ball.radius))
        assert np.all(abs(exact - high - low) <= radius)


@pytest.mark.parametrize("name", ["lstm", "rnn", "attention-mask", "multihead", "softmax"])
@each_kind
def test_doubling_the_precision_shrinks_every_ball_onto_the_same_value(name, kind):
    function, arrays, parameters = call(name, kind)
    balls = {
        bits: [ball for y in evaluate(function, arrays, parameters, bits) for ball in y.values.flat]
        for bits in (64, 128, 256, 512)
    }
    for bits in (64, 128, 256):
        for wide, narrow in zip(balls[bits], balls[2 * bits], strict=True):
            assert wide.overlaps(narrow)
            assert narrow.rad() <= wide.rad() * 2.0 ** (8 - bits)
    for enough in (settled, lambda n, ball: True):  # midpoints in two parts, and in one
        certified = certify(function, arrays, parameters, enough)
        high, low, radius = (np.concatenate([getattr(b, part).flat for b in certified]) for part in PARTS)
        with precision(512):
            for ball, h, rest, r in zip(balls[512], high, low, radius, strict=True):
                assert abs(ball - float(h) - float(rest)) <= float(r)


def test_precision_doubles_until_the_kink_is_decided():
    """z = 1 + 2⁻³⁰⁰ − 1 is positive, which 128 and 256 bits cannot tell from zero."""
    arrays = (np.array([[1.0, 2.0**-300]]), np.array([[1.0], [1.0]]), np.array([-1.0]), np.array([[1.0]]))
    vjp, relu = OPERATIONS["dense"].vjp, {"activation": "relu"}
    for bits in (128, 256):
        with pytest.raises(Undecided):
            evaluate(vjp, arrays, relu, bits)
    dx, dW, db = certify(vjp, arrays, relu)
    assert np.all(dx.high == 1) and np.all(dW.high == [[1], [2.0**-300]]) and np.all(db.high == 1)


def test_undecided_is_raised_where_no_precision_decides():
    thirds = np.array([[1.0]]), np.array([[1.0]]), np.array([-1.0])

    def kink(x, W, b):
        return np.where(x / 3 @ W * 3 + b > 0, 1, 0)

    with pytest.raises(Undecided, match="1024 bits"):
        certify(kink, thirds, {}, most=1024)


def test_precision_doubles_until_every_output_is_good_enough():
    """1e80 + 1 − 1e80 keeps no digit at 128 bits and all of them at 256."""
    arrays = (np.array([[1e80, 1.0, -1e80]]), np.array([[1.0], [1.0], [1.0]]), np.array([0.0]), np.array([[1.0]]))

    def both(x, W, b, dy):
        return dy, OPERATIONS["dense"].function(x, W, b)

    _, vague = certify(both, arrays, {}, lambda n, ball: True)
    assert vague.radius > 1e9
    for radius in (1e-9, 1e-25):
        _, y = certify(both, arrays, {}, lambda n, ball, radius=radius: bool(np.all(ball.radius < radius)))
        assert y.high == 1 and y.low == 0 and y.radius < radius
    with pytest.raises(Undecided):
        certify(both, arrays, {}, lambda n, ball: n == 0)


# The one check that a call is well formed


def zeros(*shapes):
    return tuple(np.zeros(shape) for shape in shapes)


QKV = zeros((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7))
RNN = zeros((4, 2, 3), (2, 5), (5, 5), (5, 3), (5,), (1, 5), (1,))
MULTIHEAD = zeros((2, 4, 3), (2, 6, 3), (2, 6, 3), (3, 3, 5), (3, 3, 5), (3, 3, 1), (3, 3))
LSTM = zeros((4, 2, 3), (2, 5), (2, 5), *[(5, 8), (5,)] * 4)
IMAGES, FILTERS = zeros((2, 7, 8, 3), (3, 2, 3, 4))
REFUSED = {
    "rank": ("dense", zeros((3,), (3, 2), (2,)), {}, r"dense: x must have 2 axes \[N I\], got shape \(3,\)"),
    "inner size": ("dense", zeros((2, 3), (4, 2), (2,)), {}, r"dense: W must have I = 3"),
    "bias": ("dense", zeros((2, 3), (3, 2), (3,)), {}, r"dense: b must have O = 2"),
    "empty axis": ("dense", zeros((2, 0), (0, 2), (2,)), {}, r"dense: x must have no empty axis"),
    "not an array": ("dense", ([[1.0]], *zeros((1, 1), (1,))), {}, r"dense: x must be an array .* got list"),
    "too few": ("dense", zeros((2, 3), (3, 2)), {}, r"dense: takes 3 arrays \(x, W, b\), got 2"),
    "activation": ("dense", zeros((2, 3), (3, 2), (2,)), {"activation": "gelu"}, r"activation must be one of .*'gelu'"),
    "rnn's activation": ("rnn", RNN, {"activation": None}, r"rnn: activation must be one of .* got None"),
    "unknown parameter": ("softmax", zeros((2, 3)), {"axis": 0}, r"softmax: unknown parameter axis; known: none"),
    "foreign parameter": ("maxpool2d", (IMAGES,), {"window": (2, 2), "padding": (1, 1)}, r"unknown parameter padding"),
    "missing parameter": ("maxpool2d", (IMAGES,), {}, r"maxpool2d: parameter window is required"),
    "targets": ("mse", zeros((2, 3), (2, 4)), {}, r"mse: y must have O = 3"),
    "channels": ("conv2d", (IMAGES, *zeros((3, 2, 4, 4))), {}, r"conv2d: w must have C = 3"),
    "zero stride": ("conv2d", (IMAGES, FILTERS), {"stride": (1, 0)}, r"conv2d: stride must be two integers of at"),
    "pool's zero stride": ("maxpool2d", (IMAGES,), {"window": (2, 2), "stride": (0, 1)}, r"maxpool2d: stride"),
    "negative padding": ("conv2d", (IMAGES, FILTERS), {"padding": (0, -1)}, r"conv2d: padding must be .* at least 0"),
    "zero dilation": ("conv2d", (IMAGES, FILTERS), {"dilation": (0, 1)}, r"conv2d: dilation"),
    "one number": ("conv2d", (IMAGES, FILTERS), {"stride": 2}, r"conv2d: stride must be a pair of integers, got 2"),
    "fraction": ("conv2d", (IMAGES, FILTERS), {"stride": (1.5, 1)}, r"conv2d: stride"),
    "boolean": ("conv2d", (IMAGES, FILTERS), {"stride": (True, 1)}, r"conv2d: stride"),
    "window": ("maxpool2d", (IMAGES,), {"window": (8, 1)}, r"window reaches over 8 along H, .* only 7"),
    "dilated kernel": ("conv2d", (IMAGES, FILTERS), {"dilation": (1, 9)}, r"reaches over 10 along W, .* only 8"),
    "batches": ("rnn", (RNN[0], *zeros((3, 5)), *RNN[2:]), {}, r"rnn: h0 must have N = 2"),
    "square": ("rnn", (*RNN[:2], *zeros((5, 4)), *RNN[3:]), {}, r"rnn: W_hh must have H = 5"),
    "gate": ("lstm", (*LSTM[:5], *zeros((5, 7)), *LSTM[6:]), {}, r"lstm: W_i must have H\+I = 8"),
    "gate's bias": ("lstm", (*LSTM[:-1], *zeros((8,))), {}, r"lstm: b_o must have H = 5"),
    "key width": ("attention", (QKV[0], *zeros((2, 3, 6, 4)), QKV[2]), {}, r"attention: k must have D = 5"),
    "values": ("attention", (*QKV[:2], *zeros((2, 3, 5, 7))), {}, r"attention: v must have S = 6"),
    "causal": ("attention", QKV, {"causal": True}, r"attention: causal needs .* got M = 4, S = 6"),
    "causal's type": ("attention", QKV, {"causal": 1}, r"attention: causal must be True or False, got 1"),
    "mask's size": ("attention", QKV, {"mask": np.ones((2, 3, 4, 5), bool)}, r"mask must have shape .*\(2, 3, 4, 5\)"),
    "mask's batch": ("attention", QKV, {"mask": np.ones((3, 1, 4, 6), bool)}, r"attention: mask must have shape"),
    "mask's queries": ("attention", QKV, {"mask": np.ones((1, 1, 1, 6), bool)}, r"attention: mask must have shape"),
    "mask's rank": ("attention", QKV, {"mask": np.ones((4, 6), bool)}, r"attention: mask must have shape"),
    "mask's dtype": ("attention", QKV, {"mask": np.ones((1, 1, 4, 6))}, r"mask must be a bool array, got float64"),
    "mask's heads": (
        "multihead_attention",
        MULTIHEAD,
        {"mask": np.ones((1, 2, 4, 6), bool)},
        r"multihead_attention: mask must have shape \[2 or 1, 3 or 1, 4, 6\]",
    ),
    "projection": ("multihead_attention", (*MULTIHEAD[:6], *zeros((2, 3))), {}, r": W_o must have h\*d_v = 3"),
}


@pytest.mark.parametrize("op, arrays, parameters, message", REFUSED.values(), ids=REFUSED)
def test_check_names_what_is_wrong(op, arrays, parameters, message):
    with pytest.raises(ValueError, match=message):
        OPERATIONS[op].check(arrays, **parameters)


@pytest.mark.parametrize("name", ["rnn", "lstm", "mse", "conv2d-all"])
def test_check_refuses_cotangents_that_no_output_has(name):
    operation, arrays, parameters = draw(name)
    good = cotangents(name)
    operation.check(arrays, good, **parameters)
    with pytest.raises(ValueError, match="cotangents, got"):
        operation.check(arrays, (*good, good[0]), **parameters)
    for n, y in enumerate(operation.outputs):
        bad = [np.zeros((*c.shape, 1)) if m == n else c for m, c in enumerate(good)]
        with pytest.raises(ValueError, match=f"cotangent of {y} must have"):
            operation.check(arrays, tuple(bad), **parameters)
