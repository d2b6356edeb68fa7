"""What a compiled kernel needs and does: registers, spills, shared memory, matrix instructions, widest loads.

NVIDIA's machine code is read by the cuobjdump that comes with Triton, AMD's from the assembly that Triton keeps.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton import knobs

MATRIX = {
    r"\bUTC[A-Z]*MMA\b": "tcgen05",
    r"\b[HIQ]GMMA\.": "wgmma",
    r"\b[HIQD]MMA\.": "mma",
    r"\bv_s?mfmac?_": "mfma",
}
"""Instructions of matrix units, and what PTX, or AMD, calls them; the strongest first."""

_LDG = re.compile(r"\b(?:LDG|LDGSTS)\.E((?:\.\w+)*)")
_TMA = re.compile(r"\b(?:UTMALDG|UBLKCP)\b")
_AMD_LOAD = re.compile(r"\b(?:global|buffer|flat)_load(?:_lds)?_([a-z0-9]+)")
_AMD_WIDTHS = {"dwordx4": 16, "dwordx3": 12, "dwordx2": 8, "dword": 4, "ushort": 2, "sshort": 2, "short": 2}


@dataclass(frozen=True)
class MachineCode:
    """Of one compiled kernel, per thread but for the shared memory."""

    registers: int
    spilled: int  # bytes of local memory
    shared: int  # bytes
    tensor_memory: int  # columns, of Blackwell's
    matrix: str  # the strongest matrix instructions, or nothing
    load: int  # bytes of the widest load from global memory, 0 where there is none
    product: bool  # whether it has a tl.dot


def read(kernel: Any) -> MachineCode:
    """Of a triton.compiler.CompiledKernel."""
    registers, spilled, text, loads = (_nvidia if "cubin" in kernel.asm else _amd)(kernel)
    return MachineCode(
        registers,
        spilled,
        kernel.metadata.shared,
        getattr(kernel.metadata, "tmem_size", None) or 0,
        next((name for instruction, name in MATRIX.items() if re.search(instruction, text)), ""),
        max(loads, default=0),
        "tt.dot" in kernel.asm["ttir"],
    )


def _nvidia(kernel: Any) -> tuple[int, int, str, Counter[int]]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        usage, text = (_cuobjdump(option, file.name) for option in ("-res-usage", "-sass"))
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    if found is None:
        raise ValueError(f"cuobjdump -res-usage says nothing of registers: {usage!r}")
    registers, stack, local = map(int, found.groups())
    loads = Counter(_width(modifiers.split(".")) for modifiers in _LDG.findall(text))
    loads[16] += len(_TMA.findall(text))
    stray = len(re.findall(r"\b(?:STL|LDL)\b", text))
    return registers, max(stack, local, 4 * stray), text, +loads


def _width(modifiers: list[str]) -> int:
    """Bytes of a load with these modifiers, 4 where none says otherwise."""
    widths = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    return next((widths[m] for m in modifiers if m in widths), 4)


def _cuobjdump(option: str, path: str) -> str:
    done = subprocess.run([knobs.nvidia.cuobjdump.path, option, path], capture_output=True, check=True, text=True)
    return done.stdout


def _amd(kernel: Any) -> tuple[int, int, str, Counter[int]]:
    text = kernel.asm["amdgcn"]

    def metadata(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", text)
        if found is None:
            raise ValueError(f"the assembly's metadata lacks {key}")
        return int(found.group(1))

    loads = Counter(_AMD_WIDTHS.get(what, 2 if "d16" in what else 1) for what in _AMD_LOAD.findall(text))
    spilled = max(metadata("private_segment_fixed_size"), 4 * metadata("vgpr_spill_count"))
    return metadata("vgpr_count"), spilled, text, loads
