"""`semamba serve`: the page and the API on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from semamba.errors import SemambaError

_LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any that is free.")] = 8000,
    model: Annotated[str | None, typer.Option(help="A shipped model or a folder with weights.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="SEMAMBA_TOKEN", help="What callers must know; at least 8 characters.")
    ] = None,
    max_megabytes: Annotated[float, typer.Option(help="Size of an upload at most.")] = 200.0,
    max_seconds: Annotated[float, typer.Option(help="Length of its sound at most.")] = 3600.0,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Files worked on at once; 0: half the cores.")] = 0,
    name: Annotated[list[str] | None, typer.Option(help="Host name that browsers may use (repeatable).")] = None,
) -> None:
    """Serve a page to try it, an HTTP API and live streams; stops cleanly on Ctrl-C and SIGTERM."""
    from semamba.web.settings import Settings

    settings = Settings(host, port, model, token, max_megabytes, max_seconds, jobs, tuple(name or ()))
    try:
        from semamba.web import server
    except ModuleNotFoundError as error:
        if str(error.name).startswith("semamba"):
            raise
        raise SemambaError(
            f"the server needs the optional library {error.name}; install it with: pip install 'semamba[web]'"
        ) from None
    if host not in _LOCAL and token is None:
        typer.secho(f"warning: anyone who reaches {host} can use this server; --token keeps strangers out", err=True)

    def started(address: str) -> None:
        typer.echo(f"semamba is at {address}  (API: {address}/docs; Ctrl-C stops it)")

    server.run(settings, started)
