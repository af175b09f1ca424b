"""Builds the optional C++ kernels; everything else about the package is in pyproject.toml.

One kernel source becomes several object files, one for each instruction set, and a dispatcher picks one when the
library is loaded. The result is a plain shared library of C functions, read through ctypes: no torch headers, no Python
headers. It is optional: whatever goes wrong here is one warning, and the package falls back on its PyTorch scan.

For developers, after a change of the C++ sources:  python setup.py build_ext --inplace
"""

from __future__ import annotations

import platform
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("src/semamba/ops/csrc")
KERNELS = CSRC / "kernels.inl.cpp"
DISPATCH = CSRC / "dispatch.cpp"

# No -ffast-math: NaN and infinity must pass through the scan.
GCC_FLAGS = [
    *("-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]
MSVC_FLAGS = ["/O2", "/std:c++17", "/EHsc"]
X86_FLAGS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}


class BuildKernels(build_ext):
    """Compiles `KERNELS` once for each instruction set and links all with `DISPATCH`."""

    def get_ext_filename(self, fullname: str) -> str:
        # No Python version in the name: the library holds plain C functions and serves every interpreter.
        return str(Path(*fullname.split("."))) + (".dll" if sys.platform == "win32" else ".so")

    def finalize_options(self) -> None:
        super().finalize_options()
        self.in_source = bool(self.inplace)  # `run` switches `inplace` off while it works

    def run(self) -> None:
        try:
            super().run()
        except (Exception, SystemExit) as error:  # a compiler can fail in any way; the package works without it
            self._give_up(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            self._build(ext)
        except (Exception, SystemExit) as error:
            self._give_up(error)

    def _build(self, ext: Extension) -> None:
        target = self.get_ext_fullpath(ext.name)
        Path(target).unlink(missing_ok=True)  # if this build fails, an older library must not pass for its result
        gcc_like = self.compiler.compiler_type in ("unix", "mingw32", "cygwin")
        flags = GCC_FLAGS if gcc_like else MSVC_FLAGS
        # macOS builds may hold two architectures in one file, which share no -m flag.
        x86 = gcc_like and sys.platform != "darwin" and platform.machine().lower() in ("x86_64", "amd64")
        variants = {"portable": [], **(X86_FLAGS if x86 else {})}
        with ThreadPoolExecutor(len(variants)) as pool:
            jobs = {isa: pool.submit(self._compile_kernels, isa, [*flags, *extra]) for isa, extra in variants.items()}
        # First in line: the linker keeps the first copy of inline library code, which must run on any processor.
        objects = jobs.pop("portable").result()
        macros: list[tuple[str, str | None]] = []
        for isa, job in jobs.items():
            if job.exception() is not None:  # an older compiler may not know the newest instructions
                print(f"warning: semamba: this compiler cannot build for {isa}; the library goes without it")
                continue
            objects += job.result()
            macros.append((f"SEMAMBA_HAVE_{isa.upper()}", "1"))
        objects += self.compiler.compile(
            [str(DISPATCH)], output_dir=self.build_temp, macros=macros, extra_postargs=flags, depends=ext.depends
        )
        self.compiler.link_shared_object(objects, target, build_temp=self.build_temp, target_lang="c++")

    def _compile_kernels(self, isa: str, flags: list[str]) -> list[str]:
        # `compile` names objects after their source, so each instruction set gets its own folder.
        return self.compiler.compile(
            [str(KERNELS)],
            output_dir=str(Path(self.build_temp) / isa),
            macros=[("SEMAMBA_NAMESPACE", f"isa_{isa}")],
            extra_postargs=flags,
            depends=self.extensions[0].depends,
        )

    def _give_up(self, error: BaseException) -> None:
        """Warn and go on, unless a developer asked for nothing but the kernels."""
        if self.in_source and not self.editable_mode:
            self.extensions[0].optional = False
            raise error
        print(
            f"warning: semamba: the C++ kernels were not built ({textwrap.shorten(str(error), 120)}); "
            "the slower PyTorch scan will be used, `semamba doctor` tells more",
            file=sys.stderr,
        )


sources = sorted(str(path) for path in CSRC.iterdir()) if CSRC.is_dir() else []
kernels = Extension("semamba.ops._kernels", [str(DISPATCH)], depends=sources, optional=True)
setup(ext_modules=[kernels], cmdclass={"build_ext": BuildKernels})
