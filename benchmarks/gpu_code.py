"""What the compiler makes of the GPU kernels of the scan, on any machine with triton, without a GPU.

    python benchmarks/gpu_code.py [--capability 90] [--dtype bf16]

Compiles for N 16, with every option of a Mamba layer, and counts in the machine code: registers of a thread, bytes it
spills to memory, instructions for one step of 16 states (of one warp, 32 channels).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from semamba.ops import gpu
from semamba.ops import triton as kernels

WHOLE = ("P", "L", "Q", "D", "N", "rows", "one", "reverse")  # beside these, integers are strides
TYPED = ("u", "delta", "z", "y", "dy", "du", "ddelta", "dz")  # tensors of the layer's type; all others are float32
GROUPS = {
    "float": ("FMUL", "FFMA", "FADD", "FSEL", "FMNMX", "FSETP"),
    "special": ("MUFU",),
    "exchange": ("SHFL", "BAR", "STS", "LDS", "STSM", "LDSM"),
    "memory": ("LDG", "STG"),
    "spills": ("LDL", "STL"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--dtype", choices=("bf16", "fp16", "fp32"), default="bf16")
    options = parser.parse_args()
    if gpu.interpreted():
        sys.exit("TRITON_INTERPRET is set: nothing is compiled")
    print(f"triton {triton.__version__}, compute capability {options.capability}, {options.dtype}")
    print(f"{'kernel':10}{'registers':>10}{'stack':>7}{'a step':>8}  of these")
    shape = {"SOFTPLUS": True, "KEEP": True, "STEPS": gpu.CHUNK, "STATES": 16, "BLOCK": kernels.SCAN_BLOCK}
    for name, kernel in (("forward", kernels._scan_forward), ("backward", kernels._scan_backward)):
        usage, code = compiled(kernel.fn, shape, options.dtype, options.capability)
        found = Counter(re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+ )?([A-Z0-9]+)", code))
        step = {group: sum(found[op] for op in ops) / gpu.CHUNK for group, ops in GROUPS.items()}
        total = found.total() / gpu.CHUNK
        step["integers, moves"] = total - sum(step.values())
        registers, stack = (re.search(rf"{word}:(\d+)", usage) for word in ("REG", "STACK"))
        assert registers is not None and stack is not None
        parts = ", ".join(f"{group} {count:.0f}" for group, count in step.items())
        print(f"{name:10}{registers[1]:>10}{stack[1]:>7}{total:8.0f}  {parts}")


def compiled(function: Any, shape: dict[str, Any], dtype: str, capability: int) -> tuple[str, str]:
    """(what the kernel uses, its machine code)."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for index, parameter in enumerate(function.params):
        name = parameter.name
        if parameter.is_constexpr:
            signature[name], constants[name] = "constexpr", shape[name]
        elif name == "Q":  # along frequency; triton makes a constant of an integer that is 1
            signature[name], constants[name] = "constexpr", 1
        elif name == "initial":  # a layer starts from nothing
            signature[name], constants[name] = "constexpr", None
        elif name in WHOLE or re.fullmatch("[udbcz][gptq]", name):
            signature[name] = "i32"
            if name not in ("P", "L", "one", "reverse"):
                attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = f"*{dtype if name in TYPED else 'fp32'}"
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(function, signature, constants, attributes)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 1})
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    return usage, code


if __name__ == "__main__":
    main()
