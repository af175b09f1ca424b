"""Triton's interpreter, made ready for the NumPy at hand and quick enough for tests."""

from __future__ import annotations

from typing import Any


def prepare() -> None:
    """Before the first kernel runs. Touches private parts of triton 3.2 to 3.6; elsewhere it changes nothing.

    `range` over a kernel's value relies on int(array of one element), which NumPy refuses from 2.4 on; and every call
    of a function inside a kernel patches the whole language anew, which is most of the interpreter's time.
    """
    from triton.runtime import interpreter

    original, patched = getattr(interpreter, "_patch_lang_tensor", None), set()
    if original is None or not hasattr(interpreter, "_LangPatchScope"):
        return

    def patch_tensor(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if id(self.fn.__globals__) not in patched:
            patched.add(id(self.fn.__globals__))
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*args, **kwargs)

    interpreter._patch_lang_tensor = patch_tensor
    interpreter.InterpretedFunction.__call__ = call
