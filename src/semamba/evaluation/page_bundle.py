"""One HTML file out of a page's parts, for pages that must open from a disk, without a server and without a network.

A page is a template with the marks {{title}}, {{style}}, {{script}} and {{data}}. Its scripts are ES modules, which
browsers refuse to load from a disk; here each becomes a function that returns what the module exports.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"
WEB = Path(__file__).parents[1] / "web" / "static"  # of the web page, whose looks and spectrograms are used here too

_IMPORT = re.compile(r'^import \{([^}]*)\} from "(?:[^"]*/)?([\w-]+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|function\*?|class) (\w+))", re.MULTILINE)


def page(template: Path, styles: Sequence[Path], scripts: Sequence[Path], title: str, data: Any) -> str:
    """The page as one text; `scripts` in the order of their dependence, `data` JSON-able."""
    parts = {
        "title": html.escape(title),
        "style": "\n".join(_read(path) for path in styles),
        "script": bundle(scripts).replace("</", "<\\/"),
        "data": json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"),  # no "<!--" either
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _read(template))


def bundle(scripts: Sequence[Path]) -> str:
    """Modules one after the other, each in a scope of its own."""
    return "\n".join(_module(path) for path in scripts)


def _module(path: Path) -> str:
    source = _read(path)
    exported = [found[1] for found in _EXPORT.finditer(source)]
    source = _EXPORT.sub("", source)
    source = _IMPORT.sub(lambda found: f"const {{{found[1].replace(' as ', ': ')}}} = {_name(found[2])};", source)
    return f"const {_name(path.stem)} = (() => {{\n{source}\nreturn {{ {', '.join(exported)} }};\n}})();"


def _name(stem: str) -> str:
    return "$" + stem.replace("-", "_")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
