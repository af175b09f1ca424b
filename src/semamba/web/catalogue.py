"""The models that a server offers: those shipped, and the one it was started with. No other path is ever opened."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semamba import checkpoint
from semamba.errors import SemambaError
from semamba.web.settings import ProblemError

if TYPE_CHECKING:
    from semamba.inference.enhance import Enhancer

FILES = (checkpoint.WEIGHTS_FILE, checkpoint.CONFIG_FILE)


class Catalogue:
    """Names to folders; each model is loaded when first asked for. Threads may share it."""

    def __init__(self, chosen: str | None) -> None:
        """Raises SemambaError when `chosen` is no model."""
        self._folders = {name: checkpoint.locate(name) for name in checkpoint.shipped()}
        self.default = checkpoint.DEFAULT_MODEL
        if chosen is not None and chosen not in self._folders:
            folder = checkpoint.locate(chosen)
            self.default = Path(chosen).resolve().name
            self._folders[self.default] = folder
        elif chosen is not None:
            self.default = chosen
        if self.default not in self._folders:
            raise SemambaError("no model is here; name one with --model FOLDER")
        self._loaded: dict[str, Enhancer] = {}
        self._lock = threading.Lock()

    def get(self, name: str | None) -> Enhancer:
        """Raises ProblemError 422 for a name that is not offered."""
        from semamba.inference.enhance import load

        name = self.check(name)
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load(str(self._folders[name]))
            return self._loaded[name]

    def check(self, name: str | None) -> str:
        name = name or self.default
        if name not in self._folders:
            raise ProblemError(422, f"there is no model '{name[:60]}' here; there are: {', '.join(self._folders)}")
        return name

    def file(self, name: str, file: str) -> Path:
        """Raises ProblemError 404 for anything but the two files of a model that is offered."""
        if name not in self._folders or file not in FILES:
            raise ProblemError(404, "there is no such model, or no such file of it")
        return self._folders[name] / file

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What `GET /v1/models` says: the default first, then those that run anywhere."""
        described = [self._describe(name) for name in self._folders]
        return sorted(described, key=lambda row: (not row["default"], not row["browser"], row["name"]))

    def _describe(self, name: str) -> dict[str, Any]:
        from semamba.models import config_from_dict
        from semamba.models.complexity import profile

        config = config_from_dict(checkpoint.describe(self._folders[name])["model"])
        cost = profile(config)
        return {
            "name": name,
            "default": name == self.default,
            "kind": config.kind,
            "parameters": cost.parameters,
            "live": cost.causal,  # can follow a live stream
            "latency_ms": cost.latency_ms if cost.causal else None,
            "browser": config.kind == "causal",  # the engine of the page runs it
            "bytes": (self._folders[name] / checkpoint.WEIGHTS_FILE).stat().st_size,
        }
