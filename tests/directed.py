"""Directed cases: what everybody would try, and what chance seldom does. The same in every run, whatever its seed.

One size at a time is long while the others are small; the windows, masks and recurrences that networks have; and, as the
last of each operation, an array of more than 2¹⁶ elements.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from ..spec import OPERATIONS
from .cases import MOST_ELEMENTS, Case, fits, largest_array
from .layouts import LAYOUTS

LINES = {
    "dense": """
        N=1|25|49|65|97|129|257|1025 I=3 O=2
        N=2 I=1|25|49|65|97|129|257|1025 O=3
        N=3 I=2 O=1|25|49|65|97|129|257|1025
        N=1 I=1 O=65|129 activation=tanh
        N=4 I=4 O=4 activation=relu|sigmoid|tanh
        N=4 I=3 O=4 activation=relu values=zeros
        N=64 I=2 O=64 activation=relu values=faint
        N=32 I=64 O=32 activation=relu|tanh
        N=70 I=1000 O=1
        """,
    "mse": """
        N=1|2|9|25|49|65|97|129|257|1025|4097 O=1
        N=1|3 O=2|9|25|49|65|97|129|257|1025
        N=16|33|64 O=16|64
        N=4 O=3 values=close|brim|far
        N=70 O=1000
        """,
    "softmax": """
        N=2 M=1|2|24|25|48|49|64|65|96|97|128|129|192|257|513|1025|2049|4097
        N=9|25|49|65|97|129|257|1025 M=3
        N=4 M=17|33 values=lowest|faint
        N=2 M=65|257|1025 values=large|mixed
        N=70 M=1000
        """,
    "conv2d": """
        N=2 H=6 W=5 C=3 kH=1 kW=1 O=2 stride=1x1|2x2 padding=0x0|1x1
        N=2 H=6 W=5 C=3 kH=2 kW=2 O=2 stride=1x1|2x2 padding=0x0|1x1
        N=2 H=7 W=6 C=3 kH=3 kW=3 O=2 stride=1x1|2x2 padding=0x0|1x1
        N=1 H=8 W=8 C=2 kH=5 kW=5 O=2 stride=1x1|2x2 padding=2x2
        N=1 H=9 W=9 C=2 kH=7 kW=7 O=2 stride=1x1|2x2 padding=3x3
        N=1 H=9 W=8 C=2 kH=3 kW=3 O=2 padding=0x1|1x0|2x2 dilation=2x2|1x3
        N=1 H=9 W=8 C=2 kH=2 kW=3 O=2 padding=1x2 dilation=2x2 stride=2x1|2x2|2x3|3x2
        N=1 H=9 W=8 C=2 kH=2 kW=3 O=2 padding=1x1 dilation=2x2 stride=2x2
        N=1 H=8 W=9 C=2 kH=1 kW=3 O=3 padding=0x1
        N=1 H=9 W=8 C=2 kH=3 kW=1 O=3 padding=1x0
        N=1 H=9 W=9 C=2 kH=9 kW=9 O=2
        N=5|9 H=4 W=4 C=2 kH=3 kW=3 O=2 padding=1x1
        N=1 H=33 W=33 C=1 kH=3 kW=3 O=1 padding=1x1
        N=1 H=2 W=65|259|514 C=1 kH=1 kW=3 O=2
        N=1 H=65|259|514 W=2 C=1 kH=3 kW=1 O=2
        N=1 H=3 W=3 C=17|25|33|65|129 kH=2 kW=2 O=3
        N=1 H=3 W=3 C=3 kH=2 kW=2 O=17|25|33|65|129
        N=5 H=60 W=60 C=4 kH=1 kW=1 O=1
        """,
    "maxpool2d": """
        N=2 H=6 W=7 C=3 window=1x1|2x2|3x3 stride=1x1|2x2
        N=2 H=9 W=9 C=2 window=3x3 stride=3x3
        N=2 H=4 W=24 C=3 window=2x9|3x12|1x17
        N=2 H=24 W=4 C=3 window=9x2|12x3|17x1
        N=1 H=9 W=8 C=2 window=5x5 stride=1x1|2x2
        N=1 H=9 W=9 C=2 window=7x7|9x9
        N=1 H=8 W=9 C=2 window=1x3|3x1|2x3
        N=1 H=13 W=13 C=1 window=12x12
        N=1 H=17 W=17 C=1 window=17x17
        N=5|9 H=4 W=4 C=2 window=2x2 stride=2x2
        N=1 H=33 W=33 C=1 window=3x3 stride=1x1|2x2
        N=1 H=2 W=2|65|129|259|514|1025 C=1 window=2x2
        N=1 H=65|129|259|514|1025 W=2 C=1 window=2x2
        N=1 H=3 W=3 C=17|25|33|65|129|257 window=2x2
        N=2 H=5 W=5 C=2 window=2x2|3x3 values=ties
        N=1 H=260 W=260 C=1 window=2x2 stride=2x2
        """,
    "rnn": """
        T=1|9|18|20|33|65 N=1 I=2 H=3 O=2
        T=6|16 N=8|3 I=2 H=2 O=2
        T=2 N=5|9|17|33|65 I=3 H=2 O=2
        T=2 N=2 I=1|25|33|65|129 H=2 O=3
        T=3 N=2 I=2 H=17|25|33|65 O=3
        T=2 N=2 I=3 H=4 O=1|17|25|33|65|129
        T=2 N=1 I=1 H=97|129 O=1
        T=4 N=3 I=4 H=4 O=4 activation=relu|sigmoid|identity
        T=3 N=2 I=2 H=3 O=2 values=zeros seed=2|7|18
        T=3 N=2 I=2 H=3 O=3 activation=relu values=zeros
        T=1 N=64 I=2 H=64 O=1 activation=relu values=faint
        T=2 N=33 I=1000 H=1 O=1
        """,
    "lstm": """
        T=1|9|18|20|33 N=1 I=2 H=3
        T=6|16 N=8|3 I=2 H=2
        T=2 N=5|9|17|33|65 I=3 H=2
        T=2 N=2 I=1|25|33|65|129 H=2
        T=3 N=2 I=2 H=17|25|33|65
        T=2 N=1 I=1 H=97|129
        T=4 N=3 I=4 H=4
        T=3 N=2 I=2 H=3 values=zeros seed=2|20|23|29
        T=2 N=33 I=1000 H=1
        """,
    "attention": """
        B=5|9 H=2 M=3 S=4 D=4 E=3
        B=2 H=1|9 M=4 S=3 D=3 E=4
        B=1 H=1 M=33|65|97|129|257 S=3 D=2 E=2
        B=1 H=1 M=1 S=1|33|65|97|129|257|1025 D=2 E=3
        B=1 H=1 M=2 S=1|1025 D=2 E=3
        B=1 H=1 M=3 S=4 D=17|33|65|129|256 E=2
        B=1 H=1 M=3 S=4 D=2 E=17|33|65|129|256
        B=1 H=1 M=33 S=33 D=4|16 E=4 causal=True
        B=1 H=1 M=65 S=65 D=2 E=2 causal=True
        B=1 H=1 M=97 S=97 D=2 E=2 causal=True
        B=1 H=1 M=1 S=257 D=2 E=2 values=large|mixed
        B=1 H=1 M=3 S=65 D=2 E=2 values=large|mixed
        B=1 H=2 M=3 S=5 D=4 E=4 values=lowest|faint mask=random:B:H
        B=2 H=2 M=5 S=5 D=4 E=4 causal=True mask=none:B:H|random:B:H|empty_rows:1:1
        B=2 H=3 M=5 S=7 D=4 E=4 mask=random:B:H|random:1:H|random:B:1|empty_rows:B:H|full:1:1
        B=1 H=2 M=3 S=65 D=4 E=4 mask=random:B:H
        B=1 H=2 M=3 S=97 D=4 E=4 values=normal|lowest mask=first_block:B:H
        B=1 H=1 M=1 S=1030 D=64 E=1
        """,
    "multihead_attention": """
        B=1|5|9 M=3 S=4 F=6 h=2 d_k=3 d_v=3
        B=2 M=3 S=4 F=4 h=1|5|9 d_k=3 d_v=2
        B=1 M=33|65|97 S=3 F=4 h=2 d_k=2 d_v=2
        B=1 M=1|2 S=1|33|65|97 F=4 h=2 d_k=2 d_v=2
        B=1 M=3 S=4 F=17|33|65 h=2 d_k=3 d_v=2
        B=1 M=3 S=4 F=4 h=2 d_k=17|33|65 d_v=2
        B=1 M=3 S=4 F=4 h=2 d_k=2 d_v=17|33|65
        B=1 M=9|33 S=9|33 F=4 h=2 d_k=2 d_v=2 causal=True
        B=2 M=5 S=7 F=8 h=4 d_k=2 d_v=2 mask=random:B:H|random:1:H|random:B:1|random:1:1|empty_rows:B:H|full:1:1
        B=2 M=5 S=5 F=8 h=2 d_k=4 d_v=4 causal=True mask=random:B:H|empty_rows:1:1
        B=1 M=1 S=1030 F=64 h=1 d_k=1 d_v=1
        """,
}
"""Of each operation, a line for many cases: | separates what each of them has one of. Where a seed is said it is one with
which a state is 0, or the cotangent of an output."""


@cache
def directed(operation: str, may: tuple[str, ...]) -> tuple[Case, ...]:
    """The directed cases of an operation, of the parameters that an implementation takes."""
    cases = (Case.parse(OPERATIONS[operation], f"seed={n} {words}") for n, words in enumerate(_words(LINES[operation])))
    return tuple(case for case in cases if _takes(case, may))


BASES = {
    "dense": "N=1|4 I=5 O=3",
    "mse": "N=1|4 O=1|5",
    "softmax": "N=1|4 M=5",
    "conv2d": "N=1|2 H=5 W=4 C=1|3 kH=2 kW=3 O=2",
    "maxpool2d": "N=1|2 H=5 W=4 C=1|3 window=2x3",
    "rnn": "T=1|3 N=1|2 I=3 H=4 O=5",
    "lstm": "T=1|3 N=1|2 I=3 H=4",
    "attention": """
        B=1|2 H=2 M=5 S=5 D=4 E=3
        B=1|2 H=2 M=1 S=5 D=4 E=4
        """,
    "multihead_attention": """
        B=2 M=5 S=5 F=4 h=2 d_k=3 d_v=2
        B=1|2 M=1 S=5 F=4 h=2 d_k=2 d_v=2
        B=1 M=5 S=5 F=4 h=2 d_k=2 d_v=2 seed=106
        """,
}
"""Of each operation, what is laid out in every way. Where a seed is said it is one with which, of arrays that are shared,
query, key and value are one, and their weights are not."""

MOST_LAID_OUT = 40


@cache
def laid_out(operation: str, may: tuple[str, ...]) -> tuple[Case, ...]:
    """Small cases, with and without a batch, in every layout but the plain one; then, up to forty in all, directed cases of
    moderate size, a layout each."""
    op = OPERATIONS[operation]
    layouts = [layout for layout in LAYOUTS[1:] if fits(op, layout)]
    small = [
        Case.parse(op, f"seed={n} {words} layout={layout}")
        for n, (words, layout) in enumerate(itertools.product(_words(BASES[operation]), layouts))
    ]
    moderate = [case for case in directed(operation, may) if largest_array(op, case.sizes) <= MOST_ELEMENTS]
    room = min(len(moderate), max(0, MOST_LAID_OUT - len(small)))
    chosen = [moderate[n * len(moderate) // room] for n in range(room)]
    return (*small, *(replace(case, layout=layout) for case, layout in zip(chosen, itertools.cycle(layouts))))


SMALL = {
    "dense": "N=4 I=5 O=3",
    "mse": "N=4 O=5",
    "softmax": "N=3 M=1|97",
    "conv2d": """
        N=2 H=5 W=4 C=3 kH=2 kW=3 O=2
        N=1 H=12 W=11 C=1 kH=5 kW=5 O=2
        """,
    "maxpool2d": "N=2 H=9 W=8 C=2 window=2x2|3x3",
    "rnn": "T=3 N=2 I=3 H=4 O=5",
    "lstm": "T=3 N=2 I=3 H=4",
    "attention": "B=2 H=2 M=5 S=6 D=4 E=3",
    "multihead_attention": "B=2 M=5 S=6 F=4 h=2 d_k=3 d_v=2",
}
"""Of each operation, what NaN and infinities are put into."""


@cache
def small(operation: str, seeds: int) -> tuple[Case, ...]:
    """Each of the small cases with each of so many seeds."""
    op = OPERATIONS[operation]
    return tuple(Case.parse(op, f"{words} seed={n}") for words in _words(SMALL[operation]) for n in range(seeds))


def _words(lines: str) -> Iterator[str]:
    for line in lines.strip().splitlines():
        choices = [(key, value.split("|")) for key, _, value in (word.partition("=") for word in line.split())]
        for values in itertools.product(*(options for _, options in choices)):
            yield " ".join(f"{key}={value}" for (key, _), value in zip(choices, values, strict=True))


def _takes(case: Case, may: tuple[str, ...]) -> bool:
    """Whether the implementation takes the parameters, and they take the sizes: causal wants M = S."""
    return case.departures <= set(may) and ("causal" not in case.departures or case.sizes["M"] == case.sizes["S"])
