"""The document made executable: its equations, its worked example computed by the specs, and what it gets wrong.

`python -m opspec.spec.document` prints the three as Markdown. Facts are restated, with the number of their section.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from flint import arb

from .activations import relu
from .attention import attention, scores
from .catalogue import OPERATIONS
from .certified import Certified, Undecided, evaluate, precision
from .conv2d import conv2d
from .lstm import lstm_vjp
from .maxpool2d import maxpool2d
from .mse import mse, mse_vjp
from .rnn import rnn
from .softmax import softmax


class Equation(NamedTuple):
    section: str
    equation: str
    spec: str


DERIVED = (
    Equation("3.1.2", "∂L/∂W = x δᵀ, ∂L/∂b = δ, with δ = (ŷ − y) ⊙ φ′(z)", "dense_vjp ∘ mse_vjp"),
    Equation("4.1", "φ(z) = 1 / (1 + e⁻ᶻ)", "sigmoid"),
    Equation("4.1.1", "ŷ = φ(Wᵀx + b), in numbers", "dense"),
    Equation("4.1.2", "∂L/∂W and ∂L/∂b, in numbers", "dense_vjp ∘ mse_vjp"),
)
EQUATIONS = tuple(sorted((*(Equation(o.section, o.equation, o.name) for o in OPERATIONS.values()), *DERIVED)))


@lru_cache
def worked_example(bits: int = 128) -> dict[str, Certified]:
    """§4.1.1, and §4.1.2 completed with y = [1, 0]: balls around what follows from the document's decimals."""
    with precision(bits):
        decimals = np.vectorize(arb, otypes=[object])
        W, x, b = (Certified(decimals(v)) for v in ([["0.1", "0.4"], ["0.2", "0.9"]], [["0.5", "0.1"]], ["0.3", "0.2"]))
    y, sigmoid = np.array([[1, 0]]), {"activation": "sigmoid"}
    dense, error = OPERATIONS["dense"], OPERATIONS["mse"]
    (z,) = evaluate(dense.function, (x, W, b), {}, bits)
    (y_hat,) = evaluate(dense.function, (x, W, b), sigmoid, bits)
    (L,) = evaluate(error.function, (y_hat, y), {}, bits)
    dy_hat, _ = evaluate(error.vjp, (y_hat, y, np.array(1)), {}, bits)
    _, dW, db = evaluate(dense.vjp, (x, W, b, dy_hat), sigmoid, bits)
    return {"z": z[0], "ŷ": y_hat[0], "L": L, "∂L/∂ŷ": dy_hat[0], "∂L/∂W": dW, "∂L/∂b": db}


def proved(y: Certified, places: int = 4) -> Any:
    """The nearest decimals, nested as y is; raises Undecided where a ball does not settle every digit."""

    def nearest(ball):
        n = (ball * 10**places + arb(1) / 2).floor().unique_fmpz()
        if n is None:
            raise Undecided(f"{ball} does not settle {places} decimals")
        return int(n) / 10**places

    return np.asarray(np.frompyfunc(nearest, 1, 1)(y.values)).tolist()


@dataclass(frozen=True)
class Erratum:
    """What a section says and what its own equations give; check() computes the two values that {} stands for."""

    section: str
    says: str
    gives: str
    check: Callable[[], tuple[Any, Any]]


ERRATA: list[Erratum] = []


def erratum(section: str, says: str, gives: str):
    def register(check: Callable[[], tuple[Any, Any]]):
        ERRATA.append(Erratum(section, says, gives, check))
        return check

    return register


@erratum("3.1.2", "for any loss L the factor is ŷ − y = {}", "{} for ‖ŷ − y‖²; ŷ − y belongs to ½‖ŷ − y‖², of §4.1.2")
def loss_not_named():
    y_hat, y = np.array([[3, 1]]), np.array([[1, 0]])
    return (y_hat - y).tolist(), mse_vjp(y_hat, y, dL=2)[0].tolist()


@erratum("3.1.2", "(ŷ − y) φ′(z) as a product needs φ′(z) to have rows: {}", "{}, it being a column: ⊙ is meant")
def columns_multiplied():
    error, slope = np.ones((2, 1)), np.ones((2, 1))
    return error.shape[1], slope.shape[0]


@erratum("3.1.2", "∂L/∂W = δ xᵀ, in §4.1 {}", "x δᵀ = {}, the shape of a W that acts as Wᵀx")
def gradient_transposed():
    dW = worked_example()["∂L/∂W"]
    return proved(dW.mT), proved(dW)


@erratum("3.1.2", "φ may be ReLU (§3.1.1) and has a φ′: at 0, from the left, {}", "{} from the right; here: 0")
def relu_at_zero():
    return relu(0) - relu(-1), relu(1) - relu(0)


@erratum("3.2.1", "convolution: the kernel [1, 2, 3] answers an impulse with {}", "{}: cross-correlation")
def kernel_not_flipped():
    x, w = np.array([0, 0, 1, 0, 0]), np.array([1, 2, 3])
    return np.convolve(x, w, "valid").tolist(), conv2d(x.reshape(1, 1, 5, 1), w.reshape(1, 3, 1, 1)).reshape(3).tolist()


@erratum("3.2.1", "n_H is the height of out: for a 3×3 kernel on 5×5 it is {}", "{} at most: n_H counts rows from 0")
def sizes_are_indices():
    height = conv2d(np.ones((1, 5, 5, 1)), np.ones((3, 3, 1, 1))).shape[1]
    return height, max(range(height))


@erratum("3.2.2", "pooling down-samples: 2×2 windows side by side take 8×8 to {}", "{}: windows move by one, no stride")
def windows_overlap():
    x = np.zeros((1, 8, 8, 1))
    return maxpool2d(x, (2, 2), stride=(2, 2)).shape[1:3], maxpool2d(x, (2, 2)).shape[1:3]


@erratum("3.3.1", "W is the weight matrix: [{}] in Wᵀx (§3.1.1) and in x W (§3.4.2)", "[{}] in W x, the transpose")
def two_orientations():
    return OPERATIONS["dense"].arrays["W"], OPERATIONS["rnn"].arrays["W_xh"]


@erratum("3.3.1", "x₁ = 0 and weights 1 give h₁ = {}, say", "{} from h₀ = 1: h₀, and C₀ in §3.3.2, are arguments")
def initial_state_missing():
    (x, W, b), ones = (np.zeros((1, 1, 1)), np.ones((1, 1)), np.zeros(1)), np.ones((1, 1))
    return tuple(round(rnn(x, h0, W, W, b, W, b)[1].item(), 4) for h0 in (0 * ones, ones))


@erratum("3.3.2", "gates cure vanishing gradients: after 10 steps ∂C/∂C₀ is near {}", "Π fₜ = {} if W = b = 0: fₜ < 1")
def gradient_still_vanishes():
    state, W, b = np.zeros((1, 1)), np.zeros((1, 2)), np.zeros(1)
    arrays = (np.zeros((10, 1, 1)), state, state, *(W, b) * 4)
    return 1.0, lstm_vjp(*arrays, np.zeros((10, 1, 1)), np.ones((1, 1)))[2].item()


@erratum("3.4.1", "queries, keys and values are compared: weights depend on V: {}", "{}: they are softmax(Q Kᵀ / √d_k)")
def values_not_compared():
    q, k, identity = np.array([[[[1.0, 2.0]]]]), np.array([[[[3.0, 1.0], [0.0, 1.0]]]]), np.eye(2)
    return True, bool(np.any(attention(q, k, 2 * identity) / 2 != attention(q, k, identity)))


@erratum("3.4.1", "self-attention: a sequence of 3 has {} results", "{} for 2 queries: Q is free of K and V")
def queries_are_free():
    q, k = np.ones((1, 1, 2, 4)), np.ones((1, 1, 3, 4))
    return attention(k, k, k).shape[2], attention(q, k, k).shape[2]


@erratum("3.4.1", "d_k is the scaling factor: {} if it is 4", "{} = 1/√d_k; d_k is the width of the keys")
def width_not_factor():
    e = np.array([[1.0, 0.0, 0.0, 0.0]])
    return e.shape[-1], scores(e, e).item()


@erratum("3.4.1", "softmax without an axis: over queries, a query's weights sum to {}, say", "{} over keys, always")
def axis_missing():
    S = np.zeros((2, 4))
    return softmax(S.T).T[0].sum().item(), softmax(S)[0].sum().item()


@erratum("4.1.1", "z = Wᵀx + b = {}", "{}; W x + b would be [0.39, 0.39]")
def sum_miscalculated():
    return [0.33, 0.65], proved(worked_example()["z"])


@erratum("4.1.1", "ŷ = φ(z) ≈ {}", "{}")
def output_miscalculated():
    return [0.58, 0.66], proved(worked_example()["ŷ"])


@erratum("4.1.1", "ŷ, like y in §4.1.2, is a column transposed: {}", "{} = Wᵀx + b; a column minus a row would be 2×2")
def row_or_column():
    W, x, b = np.ones((2, 2)), np.ones((2, 1)), np.ones((2, 1))
    return b.T.shape, (W.T @ x + b).shape


@erratum("4.1.2", "L is a mean of squares: {} for errors 1, 1, 1", "½‖ŷ − y‖² = {}: half their sum")
def mean_not_half_sum():
    error = np.ones((1, 3))
    return np.mean(error * error).item(), mse(error, 0 * error).item()


@erratum("4.1.2", "breaks off inside the definition of L", "by §3.1.2, ∂L/∂W and ∂L/∂b are {}")
def breaks_off():
    return None, (proved(worked_example()["∂L/∂W"]), proved(worked_example()["∂L/∂b"]))


def markdown() -> str:
    """Three tables: section, equation, spec; the worked example; section, what it says, what its equations give."""
    equations = [(section, equation, f"`{spec}`") for section, equation, spec in EQUATIONS]
    example = [(name, f"`{proved(value)}`") for name, value in worked_example().items()]
    errata = [
        (e.section, e.says.format(f"`{said}`"), e.gives.format(f"`{given}`"))
        for e in ERRATA
        for said, given in [e.check()]
    ]
    tables = (
        [("section", "equation", "spec"), ("---",) * 3, *equations],
        [("§4.1", "proved decimals"), ("---",) * 2, *example],
        [("section", "the document says", "its own equations give"), ("---",) * 3, *errata],
    )
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in table) for table in tables)


if __name__ == "__main__":
    print(markdown())
