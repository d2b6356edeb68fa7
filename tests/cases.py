"""Cases: what an implementation is tried on. A case is a few words (sizes, values, layout, parameters, a seed), from
which its arrays follow; so it shrinks well, prints on one line and is rebuilt from that line.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from ..spec import OPERATIONS, Format, Operation, format_of
from ..spec.activations import ACTIVATIONS
from .layouts import LAYOUTS, TOGETHER, lay_out, lay_out_together
from .values import COTANGENTS, VALUES, Slot, telling

SIZES = {
    "dense": {"N": 33, "I": 129, "O": 65},
    "mse": {"N": 65, "O": 65},
    "softmax": {"N": 33, "M": 130},
    "conv2d": {"N": 5, "H": 13, "W": 13, "C": 17, "kH": 7, "kW": 7, "O": 33},
    "maxpool2d": {"N": 5, "H": 17, "W": 17, "C": 17},
    "rnn": {"T": 6, "N": 9, "I": 17, "H": 17, "O": 17},
    "lstm": {"T": 6, "N": 9, "I": 17, "H": 17},
    "attention": {"B": 5, "H": 5, "M": 65, "S": 65, "D": 33, "E": 33},
    "multihead_attention": {"B": 5, "M": 33, "S": 33, "F": 17, "h": 5, "d_k": 9, "d_v": 9},
}
BLOCKS = (16, 24, 32, 48, 64, 96, 128)
HURTFUL = tuple(sorted({*range(1, 10), 12, 13, 20, 40, 80, *(n + d for n in BLOCKS for d in (-1, 0, 1))}))
EDGES = 2 * (1, 9, 17, 33, 65, 129)  # one, and one more than a block: what is to come more often
BEYOND_A_BLOCK = HURTFUL[HURTFUL.index(31) :]  # what a loop over blocks takes more than one step for
LONG = (192, 193, 255, 256, 257, 385, 511, 512, 513, 768, 1000, 1023, 1024, 1025)  # and a loop over large ones
LONGEST_OF_WINDOWS = {"kH": 9, "kW": 9}  # for which an image has room
COST_OF_A_PROGRAM = 256  # in elements
LONGEST_OF_ATTENTION = dict.fromkeys(("B", "H", "h"), 17)
LONGEST_OF_ATTENTION |= dict.fromkeys(("M", "S", "D", "E", "F", "d_k", "d_v"), 129)
MOST_ELEMENTS = 4352  # of any array or of the product M·S, so that an example takes milliseconds; 65 · 66 are fewer
MASKS = ("none", "random", "empty_rows", "first_block", "full")


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
        arrays = []
        # The array that gets huge or tiny values; in a recurrence no weight, whose powers would leave every format.
        special = int(rng.integers(2 if self.operation.recurrent else len(self.operation.arrays)))
        for n, (name, letters) in enumerate(self.operation.arrays.items()):
            shape = shape_of(letters, self.sizes)
            slot = Slot(self.operation, name, shape, fmt, n == special)
            arrays.append(VALUES[self.values](rng, slot) * self._gain(name, shape))
        of_layout = np.random.default_rng([self.seed, len(arrays)])
        stored = [lay_out(_store(a, fmt), self.layout, of_layout) for a in arrays]
        if "mask" in parameters:
            parameters["mask"] = lay_out(parameters["mask"], self.layout, of_layout)
        sizes = self.operation.check(tuple(stored), **parameters)
        cotangents = []
        # Among zeros a loss may, half the time, not depend on one of several outputs at all.
        several = self.values == "zeros" and len(self.operation.outputs) > 1
        silent = int(rng.integers(len(self.operation.outputs))) if several else None
        of_cotangents = COTANGENTS.get(self.values, VALUES["normal"])
        for n, (name, letters) in enumerate(self.operation.outputs.items()):
            shape = shape_of(letters, sizes)
            dy = of_cotangents(rng, Slot(self.operation, name, shape, fmt, self.values != "zeros" or n == silent))
            cotangents.append(lay_out(_store(np.asarray(dy), fmt), self.layout, of_layout))
        if self.layout in TOGETHER:
            together = lay_out_together(stored + cotangents, self.layout, of_layout)
            stored, cotangents = together[: len(stored)], together[len(stored) :]
        return Drawn(tuple(stored), tuple(cotangents), parameters)

    @property
    def departures(self) -> set[str]:
        """The names of the parameters that differ from their defaults, "mask" among them where the case has one."""
        differ = {k for k, v in self.parameters.items() if v != self.operation.defaults.get(k, object())}
        return differ | ({"mask"} if self.mask != "none" else set())

    def keywords(self, rng: np.random.Generator) -> dict[str, Any]:
        """The parameters that differ from their defaults, a mask among them where the case has one."""
        keywords = {k: self.parameters[k] for k in self.parameters if k in self.departures}
        if self.mask != "none":
            B, M, S = (self.sizes[k] for k in ("B", "M", "S"))
            heads = self.sizes["h"] if "h" in self.sizes else self.sizes["H"]
            shape = (B if self.mask_batch else 1, heads if self.mask_heads else 1, M, S)
            keywords["mask"] = _mask(self.mask, shape, rng)
        return keywords

    def _gain(self, name: str, shape: tuple[int, ...]) -> float:
        """Weights are scaled so that sums stay of order one; integers and values about their limits are left alone.

        By a power of two where scaling might bring them near one, at which rounding leans (see values._offset).
        """
        integral = self.values in ("integers", "ties") and self.operation.polynomial() and not self.operation.recurrent
        if integral or not name.startswith(("W", "w")):
            return 1.0
        fan_in = {"W": shape[0], "w": int(np.prod(shape[:-1]))}.get(name, shape[-1] if len(shape) == 2 else shape[1])
        saturating = self.values == "saturating" and "S" not in self.sizes  # gates, not logits
        if self.values == "negative":  # whose products are all of one sign
            return 1.0 / fan_in
        gain = (4.0 if saturating else 1.0) / np.sqrt(fan_in)
        return 2.0 ** np.round(np.log2(gain)) if self.values == "offset" else gain


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
        values=choose("values", [v for v in telling(op, chosen, steep) if v in (values or VALUES)]),
        layout=choose("layout", [layout for layout in layouts if fits(op, layout)]),
        parameters=chosen,
        **mask,
    )


@st.composite
def at_most(draw: st.DrawFn, case: Case) -> Case:
    """The case, two times in five, and simpler ones: for Hypothesis to shrink what it has not drawn."""

    def simpler(what: str, options: Iterable[Any], own: Any) -> Any:
        options = [option for option in options if option != own]
        return _choose(draw, what, [*options, *(12 * max(1, len(options)) * [own])])

    sizes = {k: simpler(k, [h for h in HURTFUL if h < n], n) for k, n in case.sizes.items()}
    if "causal" in case.departures:
        sizes["S"] = sizes["M"]
    parameters = dict(case.parameters)
    for name, own in parameters.items():
        default = case.operation.defaults.get(name, (1, 1))  # a window's, which has none
        parameters[name] = simpler(name, [default], own)
    smaller = replace(
        case,
        sizes=sizes,
        parameters=parameters,
        seed=simpler("seed", [0], case.seed),
        values=simpler("values", ["normal"], case.values),
        layout=simpler("layout", ["plain"], case.layout),
        mask=simpler("mask", ["none"], case.mask),
    )
    try:
        smaller.draw("float32")
    except ValueError:  # a window that no longer fits, or causal with sizes that differ
        reject()
    return smaller


def _choose(draw: st.DrawFn, what: str, options: Iterable[Any]) -> Any:
    """One of the options. That no two choices are drawn from the same set keeps Hypothesis from its habit of trying,
    for each example that it draws, five that only copy one choice to another of its kind."""
    return draw(_options(what, tuple(options)), label=what)[1]


@lru_cache(maxsize=4096)
def _options(what: str, options: tuple[Any, ...]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.sampled_from([(what, option) for option in options])


def _sizes(
    choose: Callable[..., Any], op: Operation, chosen: dict[str, Any], may: Sequence[str], most: int
) -> dict[str, int]:
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
    kept = choose("kept", list(sizes))
    if kept != "T" and choose("long", (False, False, False, True, True)):  # each step takes long; directed ones have 33
        # the small ones are for shrinking, which does not find its way back over two choices at once
        options = HURTFUL + 5 * BEYOND_A_BLOCK + 2 * LONG + (2049, 4097)
        longest = (LONGEST_OF_ATTENTION if "S" in sizes else LONGEST_OF_WINDOWS).get(kept, most)
        sizes[kept] = choose(f"long {kept}", [n for n in options if n <= longest])
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
    """Windows, strides, paddings and dilations that fit the image, each at its default half the time and alike for both
    axes half the time; conv2d's window is a size of its weight."""
    drawn: dict[str, list[int]] = {}

    def both(name: str, options: Callable[[int], Sequence[int]], default: int | None = None) -> None:
        """A parameter's values for H and W, from the options of each axis."""
        if default is not None and (name not in may or not choose(f"set {name}", (False, True))):
            drawn[name] = [default, default]
            return
        first, second = (list(options(axis)) for axis in (0, 1))
        drawn[name] = [choose(f"{name} of H", first)]
        alike = drawn[name][0] in second and choose(f"{name} alike", (True, False))
        drawn[name].append(drawn[name][0] if alike else choose(f"{name} of W", second))

    image = [sizes["H"], sizes["W"]]
    if "kH" in sizes:
        kernel = [sizes["kH"], sizes["kH"] if choose("window alike", (True, False)) else sizes["kW"]]
        both("padding", lambda axis: sorted({1, 2, 3, kernel[axis] // 2}), 0)
        room = [size + 2 * padding for size, padding in zip(image, drawn["padding"], strict=True)]
        drawn["window"] = [min(k, r) for k, r in zip(kernel, room, strict=True)]
        sizes |= {"kH": drawn["window"][0], "kW": drawn["window"][1]}
    else:
        room = image
        most = max(1, 4 * MOST_ELEMENTS // int(np.prod([sizes[k] for k in "NHWC"])))  # pixels in all windows together
        both("window", lambda axis: [k for k in (1, 2, 3, 4, 5, 7, 9, 17) if k <= room[axis] and k * k <= most])
    reach = [(r - 1) // (k - 1) if k > 1 else 3 for r, k in zip(room, drawn["window"], strict=True)]
    both("dilation", lambda axis: range(1, min(3, reach[axis]) + 1), 1)
    both("stride", lambda axis: sorted({1, 2, 3, drawn["window"][axis]}), 1)
    return {k: (v[0], v[1]) for k, v in drawn.items() if k in op.parameters}


def fits(op: Operation, layout: str) -> bool:
    """Whether the layout leaves something to judge: mse of one array and itself is 0."""
    return (op.name, layout) != ("mse", "shared")


def largest_array(op: Operation, sizes: Mapping[str, int]) -> int:
    """Its number of elements."""
    return max(int(np.prod(shape_of(letters, sizes))) for letters in op.arrays.values())


def shape_of(letters: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """ "N H+I" → (sizes of N, of H plus that of I)."""
    shape = []
    for axis in letters.replace("()", "").split():
        terms = [sizes[letter] for letter in re.split(r"[+*]", axis)]
        shape.append(sum(terms) if "+" in axis else int(np.prod(terms)))
    return tuple(shape)


def _store(values: np.ndarray, fmt: Format) -> np.ndarray:
    """Rounded to the format, and kept within it: an infinity here would be the case's, not the implementation's."""
    values = np.clip(values, -fmt.largest, fmt.largest)
    return np.asarray(values, np.float64).astype(fmt.dtype)


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
        # each head of each batch is a program of its own, which an interpreter runs in turn
        programs = sizes.get("B", 1) * sizes.get("H", sizes.get("h", 1))
        scores = [programs * max(sizes["M"] * sizes["S"], COST_OF_A_PROGRAM)] if "S" in sizes else []
        windows = [np.prod([sizes[k] for k in ("N", "H", "W", "C", "kH", "kW")]) // 2] if "kH" in sizes else []
        largest = largest_array(op, sizes)
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
