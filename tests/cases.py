"""Cases: what an implementation is tried on. A case is a few words (sizes, values, layout, parameters, a seed), from
which its arrays follow; so it shrinks well, prints on one line and is rebuilt from that line.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..spec import OPERATIONS, Format, Operation, format_of
from ..spec.activations import ACTIVATIONS

SIZES = {
    "dense": {"N": 33, "I": 129, "O": 65},
    "mse": {"N": 65, "O": 65},
    "softmax": {"N": 33, "M": 130},
    "conv2d": {"N": 3, "H": 13, "W": 13, "C": 17, "kH": 4, "kW": 4, "O": 17},
    "maxpool2d": {"N": 3, "H": 17, "W": 17, "C": 9},
    "rnn": {"T": 9, "N": 5, "I": 9, "H": 17, "O": 9},
    "lstm": {"T": 9, "N": 5, "I": 9, "H": 17},
    "attention": {"B": 3, "H": 3, "M": 65, "S": 65, "D": 33, "E": 33},
    "multihead_attention": {"B": 3, "M": 33, "S": 33, "F": 17, "h": 4, "d_k": 9, "d_v": 9},
}
HURTFUL = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129)  # 1, primes, blocks and ± 1
EDGES = 2 * (1, 9, 17, 33, 65, 129)  # one, and one more than a block: what is to come more often
BEYOND_A_BLOCK = HURTFUL[HURTFUL.index(31) :]  # what a loop over blocks takes more than one step for
MOST_ELEMENTS = 4352  # of any array or of the product M·S, so that an example takes milliseconds; 65 · 66 are fewer
MASKS = ("none", "random", "empty_rows", "first_block", "full")
LAYOUTS = ("plain", "transposed", "reversed", "sliced", "offset")


@dataclass(frozen=True)
class Case:
    """One example: everything that its arrays follow from."""

    operation: Operation
    sizes: Mapping[str, int]
    seed: int = 0
    values: str = "normal"
    layout: str = "plain"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    mask: str = "none"
    mask_batch: bool = True
    mask_heads: bool = True

    def __str__(self) -> str:
        words = [f"{k}={v}" for k, v in self.sizes.items()]
        words += [f"{k}={_word(v)}" for k, v in self.parameters.items()]
        if self.mask != "none":
            words.append(f"mask={self.mask}:{'B' if self.mask_batch else '1'}:{'H' if self.mask_heads else '1'}")
        return " ".join([*words, f"values={self.values}", f"layout={self.layout}", f"seed={self.seed}"])

    @classmethod
    def parse(cls, operation: Operation, text: str) -> "Case":
        """The case that prints as `text`; raises ValueError that names the word which is none."""
        sizes: dict[str, int] = {}
        parameters: dict[str, Any] = {}
        known: dict[str, Any] = {}
        letters = _letters(operation)
        for word in text.split():
            key, _, value = word.partition("=")
            if key in letters and re.fullmatch(r"[1-9]\d*", value):
                sizes[key] = int(value)
            elif key == "mask" and value.split(":")[0] in MASKS and value.count(":") == 2:
                kind, batch, heads = value.split(":")
                known |= {"mask": kind, "mask_batch": batch == "B", "mask_heads": heads == "H"}
            elif key in operation.parameters and key != "mask":
                parameters[key] = _parameter(value)
            elif (key == "values" and value in VALUES) or (key == "layout" and value in LAYOUTS):
                known[key] = value
            elif key == "seed" and value.isdigit():
                known[key] = int(value)
            else:
                raise ValueError(
                    f"case: {word!r} is no size, parameter, mask, values, layout or seed of {operation.name}"
                )
        if missing := [letter for letter in letters if letter not in sizes]:
            raise ValueError(f"case: sizes missing for {operation.name}: {', '.join(missing)}")
        return cls(operation, sizes, parameters=parameters, **known)

    def draw(self, fmt: Any) -> "Drawn":
        """The arrays, cotangents and keyword arguments, stored in a format."""
        fmt = format_of(fmt)
        rng = np.random.default_rng([self.seed, *(ord(c) for c in self.values)])
        parameters = self.keywords(rng)
        arrays, shapes = [], {}
        # The array that gets huge or tiny values; in a recurrence no weight, whose powers would leave every format.
        special = int(rng.integers(2 if self.operation.recurrent else len(self.operation.arrays)))
        for n, (name, letters) in enumerate(self.operation.arrays.items()):
            shape = shape_of(letters, self.sizes)
            shapes[name] = shape
            arrays.append(VALUES[self.values](rng, shape, fmt, n == special) * self._gain(name, shape))
        stored = [self._lay_out(_store(a, fmt)) for a in arrays]
        sizes = self.operation.check(tuple(stored), **parameters)
        cotangents = []
        for letters in self.operation.outputs.values():
            dy = VALUES["integers" if self.values == "integers" else "normal"](
                rng, shape_of(letters, sizes), fmt, False
            )
            cotangents.append(self._lay_out(_store(np.asarray(dy), fmt)))
        return Drawn(tuple(stored), tuple(cotangents), parameters)

    def keywords(self, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters that differ from their defaults, a mask among them where the case has one."""
        keywords = {k: v for k, v in self.parameters.items() if v != self.operation.defaults.get(k, object())}
        if self.mask != "none":
            B, M, S = (self.sizes[k] for k in ("B", "M", "S"))
            heads = self.sizes["h"] if "h" in self.sizes else self.sizes["H"]
            shape = (B if self.mask_batch else 1, heads if self.mask_heads else 1, M, S)
            keywords["mask"] = _mask(self.mask, shape, rng)
        return keywords

    def _gain(self, name: str, shape: tuple[int, ...]) -> float:
        """Weights are scaled so that sums stay of order one; integers and values about their limits are left alone."""
        integral = self.values in ("integers", "ties") and self.operation.polynomial() and not self.operation.recurrent
        if integral or not name.startswith(("W", "w")):
            return 1.0
        fan_in = {"W": shape[0], "w": int(np.prod(shape[:-1]))}.get(name, shape[-1] if len(shape) == 2 else shape[1])
        saturating = self.values == "saturating" and "S" not in self.sizes  # gates, not logits
        if self.values == "negative":  # whose products are all of one sign
            return 1.0 / fan_in
        return (4.0 if saturating else 1.0) / np.sqrt(fan_in)

    def _lay_out(self, array: np.ndarray) -> np.ndarray:
        return lay_out(array, self.layout)


@dataclass(frozen=True)
class Drawn:
    """A case's arrays, its cotangents and its keyword arguments."""

    arrays: tuple[np.ndarray, ...]
    cotangents: tuple[np.ndarray, ...]
    parameters: dict[str, Any]


@st.composite
def cases(
    draw: st.DrawFn,
    operation: str,
    values: tuple[str, ...] | None = None,
    layouts: tuple[str, ...] = ("plain",),
    parameters: tuple[str, ...] | None = None,
    most: int = MOST_ELEMENTS,
    steep: bool = False,
) -> Case:
    """Cases of one operation; `parameters` names the keywords that may differ from their defaults (None: all); `steep`
    leaves out the values that saturate every function, where derivatives are less than anybody's rounding."""
    op, choose = OPERATIONS[operation], partial(_choose, draw)
    may = op.parameters if parameters is None else parameters
    chosen: dict[str, Any] = {}
    sizes = _sizes(choose, op, chosen, may, most)
    if operation in ("conv2d", "maxpool2d"):
        chosen |= _windows(choose, op, sizes, may)
    if "activation" in may:
        chosen["activation"] = choose("activation", ACTIVATIONS)
    mask: dict[str, Any] = {"mask": choose("mask", MASKS)} if "mask" in may else {}
    if mask.get("mask", "none") != "none":
        mask |= {name: choose(name, (False, True)) for name in ("mask_batch", "mask_heads")}
    return Case(
        op,
        sizes,
        seed=draw(st.integers(0, 2**16 - 1), label="seed"),
        values=choose("values", [v for v in _values(op, chosen, steep) if v in (values or VALUES)]),
        layout=choose("layout", layouts),
        parameters=chosen,
        **mask,
    )


def _choose(draw: st.DrawFn, what: str, options: Iterable[Any]) -> Any:
    """One of the options. That no two choices are drawn from the same set keeps Hypothesis from its habit of trying,
    for each example that it draws, five that only copy one choice to another of its kind."""
    return draw(st.sampled_from([(what, option) for option in options]), label=what)[1]


def _sizes(choose: Callable[..., Any], op: Operation, chosen: dict[str, Any], may: Sequence[str], most: int):
    """Sizes within the budget, of which `kept` is shrunk last; chooses `causal`, too, which needs M = S."""
    blocked = [letter for letter, limit in SIZES[op.name].items() if limit >= 9]
    sizes = {}
    for letter, limit in SIZES[op.name].items():
        hurtful = HURTFUL + (EDGES if letter in blocked else ())
        sizes[letter] = choose(letter, [n for n in hurtful if n <= limit])
    if choose("square", (False, True)):
        # equal sizes are where a transposition goes unnoticed by every comparison of shapes
        first, second = choose("equal", itertools.combinations(sizes, 2))
        sizes[first] = sizes[second] = min(sizes[first], sizes[second])
    kept = choose("kept", [letter for letter in sizes if SIZES[op.name][letter] >= 5])
    if kept != "T" and choose("long", (False, False, False, True, True)):
        # the small ones are for shrinking, which does not find its way back over two choices at once
        sizes[kept] = choose(f"long {kept}", HURTFUL + 5 * BEYOND_A_BLOCK)
    if "d_v" in sizes and choose("as in the paper", (False, True)):
        sizes |= {"d_k": sizes["d_v"], "F": sizes["h"] * sizes["d_v"]}
    if "S" in sizes:
        attends = choose("attends", ("across", "across", "itself", *(("causal", "causal") if "causal" in may else ())))
        if attends == "causal":
            chosen["causal"] = True
        if attends != "across":
            sizes["S"] = sizes["M"] = sizes["S" if kept == "S" else "M"]
    return _shrink_to_budget(op, sizes, most, kept)


def _windows(choose: Callable[..., Any], op: Operation, sizes: dict[str, int], may: Sequence[str]) -> dict[str, Any]:
    """Windows, strides, paddings and dilations that fit the image; conv2d's window is a size of its weight."""
    drawn: dict[str, list[int]] = {"stride": [], "padding": [], "dilation": [], "window": []}
    for axis in "HW":
        padding = choose(f"padding of {axis}", range(4)) if "padding" in may else 0
        room = sizes[axis] + 2 * padding
        window = min(sizes["k" + axis] if "k" + axis in sizes else choose(f"window of {axis}", range(1, 5)), room)
        reach = (room - 1) // (window - 1) if window > 1 else 3
        drawn["padding"].append(padding)
        drawn["window"].append(window)
        drawn["dilation"].append(choose(f"dilation of {axis}", range(1, min(3, reach) + 1)) if "dilation" in may else 1)
        drawn["stride"].append(choose(f"stride of {axis}", range(1, 4)) if "stride" in may else 1)
        if "k" + axis in sizes:
            sizes["k" + axis] = window
    return {k: (v[0], v[1]) for k, v in drawn.items() if k in op.parameters}


def _values(op: Operation, chosen: Mapping[str, Any], steep: bool) -> list[str]:
    """The distributions that say something of the operation, given its activation."""
    activation = chosen.get("activation")
    without: tuple[str, ...] = DISCRETE if op.name == "mse" else OF_DIFFERENCES
    if activation != "tanh" and op.name != "lstm":
        without += OF_TANH
    if op.name == "multihead_attention":
        without += STEEP_SCORES
    elif op.recurrent and activation in ("identity", "relu"):
        without += EXPLOSIVE
    elif steep and (op.name in ("softmax", "lstm", "attention") or activation in ("sigmoid", "tanh")):
        without += FLAT
    return [v for v in (*VALUES, *(3 * OF_TANH if activation == "tanh" else ())) if v not in without]


def shape_of(letters: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """ "N H+I" → (sizes of N, of H plus that of I)."""
    shape = []
    for axis in letters.replace("()", "").split():
        terms = [sizes[letter] for letter in re.split(r"[+*]", axis)]
        shape.append(sum(terms) if "+" in axis else int(np.prod(terms)))
    return tuple(shape)


def lay_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers in a memory layout, with NaN (True for masks) in whatever lies between and around them."""
    poison = True if array.dtype == bool else np.nan
    if array.ndim == 0:
        return array
    if layout == "transposed":
        return _guarded(array.T.shape, array.dtype, poison, array.T).T
    if layout == "reversed":
        flip = (slice(None, None, -1),) * array.ndim
        return _guarded(array.shape, array.dtype, poison, array[flip])[flip]
    if layout == "sliced":
        wide = _guarded((*array.shape[:-1], 2 * array.shape[-1]), array.dtype, poison)
        wide[..., ::2] = array
        return wide[..., ::2]
    return _guarded(array.shape, array.dtype, poison, array, shift=1 if layout == "offset" else 0)


def _guarded(shape, dtype, poison, values=None, shift: int = 0) -> np.ndarray:
    """A C-ordered array inside a buffer whose ends are poisoned; `shift` moves it off the alignment."""
    band, size = 64, int(np.prod(shape))
    buffer = np.full(size + 2 * band, poison, dtype)
    array = buffer[band + shift : band + shift + size].reshape(shape)
    if values is not None:
        array[...] = values
    return array


def _store(values: np.ndarray, fmt: Format) -> np.ndarray:
    """Rounded to the format, and kept within it: an infinity here would be the case's, not the implementation's."""
    values = np.clip(values, -fmt.largest / 2, fmt.largest / 2)
    return np.asarray(values, np.float64).astype(fmt.dtype)


def _normal(rng, shape, fmt, special):
    return rng.standard_normal(shape)


def _integers(rng, shape, fmt, special):
    return rng.integers(-2, 3, shape).astype(float)


def _offset(rng, shape, fmt, special):
    """One array near ± 1.5 · 2^(p−1), where neighbours are 1 apart (10⁷ in float32): what is not subtracted first is lost.

    Not near a power of two, where the numbers above are twice as far apart as those below and rounding does lean.
    """
    if not special:
        return rng.standard_normal(shape)
    return rng.choice([-1.5, 1.5]) * 2.0 ** (fmt.p - 1) + np.round(3 * rng.standard_normal(shape))


def _scaled(exponent: float) -> Callable[..., np.ndarray]:
    """One array of the call is scaled, by a power of the format's range."""

    def values(rng, shape, fmt, special):
        return rng.standard_normal(shape) * (2.0 ** np.round(exponent * fmt.e_max) if special else 1.0)

    return values


def _small(rng, shape, fmt, special):
    """All arrays small, so that sums are: where a function is its argument, and what is added to 1 is lost."""
    return rng.standard_normal(shape) * 2.0 ** -(fmt.p // 3)


def _close(rng, shape, fmt, special):
    """Arrays of one shape that nearly agree."""
    return np.random.default_rng(0).standard_normal(shape) + 2.0 ** -(fmt.p // 3) * rng.standard_normal(shape)


def _brim(rng, shape, fmt, special):
    """One array whose sum of squares overflows, while half of it does not, if sums have a wider range; else neither."""
    x, brim = rng.standard_normal(shape), 1.5 if fmt.e_max < format_of("float32").e_max else 0.125
    return x * np.sqrt(brim * fmt.largest / np.sum(x * x)) if special else x


def _mixed(rng, shape, fmt, special):
    """Magnitudes over a factor of 10⁶, of 64 in 16 bits."""
    exponent = 10 if fmt.p >= 24 else 3
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-exponent, exponent + 1, shape)


def _cancelling(rng, shape, fmt, special):
    """± 1 but for a small part: sums cancel to what the small parts leave.

    The product of two small parts is many units in the last place: at less than one, the rounding errors of all products
    with one weight would lean one way.
    """
    return np.sign(rng.standard_normal(shape)) * (1 + 2.0 ** -(fmt.p // 3) * rng.standard_normal(shape))


VALUES: dict[str, Callable[..., np.ndarray]] = {
    "normal": _normal,
    "integers": _integers,
    "negative": lambda rng, shape, fmt, special: -np.abs(rng.standard_normal(shape)) - 0.5,
    "ties": lambda rng, shape, fmt, special: rng.choice([-1.5, -0.5, 0.5], shape),
    "large": lambda rng, shape, fmt, special: rng.standard_normal(shape) * (30.0 if special else 1.0),
    "saturating": lambda rng, shape, fmt, special: 2 * rng.standard_normal(shape),
    "zeros": lambda rng, shape, fmt, special: rng.standard_normal(shape) * (rng.random(shape) < 0.5),
    "cancelling": _cancelling,
    "mixed": _mixed,
    "offset": _offset,
    "tiny": _scaled(-0.4),
    "huge": _scaled(0.3),
    "small": _small,
    "close": _close,
    "brim": _brim,
}
"""Distributions of values; the first is what a failing case shrinks to."""


FLAT = ("huge", "offset", "large")
"""Where sigmoid, tanh and softmax are constant."""

STEEP_SCORES = (*FLAT, "mixed", "saturating")
"""What projections would turn into logits so large that the rounding of the projections decides between them."""

OF_DIFFERENCES = ("close", "brim")
"""Of the sum of squared differences."""

OF_TANH = ("small",)
"""Of what has a function that is its argument near 0."""

DISCRETE = ("offset",)
"""Where a difference takes a dozen values, whose squares' rounding errors are copies of one another."""

EXPLOSIVE = ("saturating", "large", "huge", "mixed")
"""What an unbounded recurrence would carry out of every format."""


def _mask(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    mask = rng.random(shape) < 0.6
    if kind == "full":
        mask[...] = True
    if kind == "empty_rows":
        mask[rng.random(shape[:-1]) < 0.5] = False
    if kind == "first_block":  # and more of them, to the last but one key
        mask[..., : rng.integers(max(1, shape[-1] // 2), max(2, shape[-1]))] = False
    return mask


def _shrink_to_budget(op: Operation, sizes: dict[str, int], most: int, kept: str) -> dict[str, int]:
    """Halve the largest size until no array, and no product of matrices on the way, is beyond the budget; the size that
    is to be kept, last."""

    def cost(sizes):
        shapes = [shape_of(letters, sizes) for letters in op.arrays.values()]
        scores = (
            [sizes.get("B", 1) * sizes.get("H", sizes.get("h", 1)) * sizes["M"] * sizes["S"]] if "S" in sizes else []
        )
        windows = [np.prod([sizes[k] for k in ("N", "H", "W", "C", "kH", "kW")])] if "kH" in sizes else []
        largest = max(int(np.prod(shape)) for shape in shapes)
        steps = [sizes["T"] * sizes["N"] * sizes["H"] * max(sizes["H"], sizes["I"]) // 8] if op.recurrent else []
        return max([largest, *scores, *windows, *steps])

    sizes, causal = dict(sizes), "S" in sizes and sizes["S"] == sizes["M"]
    keep = {"M", "S"} if causal and kept in ("M", "S") else {kept}
    while cost(sizes) > most:
        largest = max(sizes, key=lambda k: (sizes[k] > 1 and k not in keep, sizes[k]))
        sizes[largest] = max(1, sizes[largest] // 2)
        if causal:
            sizes["S"] = sizes["M"] = min(sizes["S"], sizes["M"])
    return sizes


def _letters(op: Operation) -> tuple[str, ...]:
    return tuple(SIZES[op.name])


def _word(value: Any) -> str:
    return "x".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def _parameter(word: str) -> Any:
    if word in ("True", "False"):
        return word == "True"
    return tuple(int(n) for n in word.split("x")) if re.fullmatch(r"\d+x\d+", word) else word
