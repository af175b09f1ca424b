"""`semamba live`: the microphone, enhanced, to a loudspeaker or a virtual microphone."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from semamba.inference.duplex import Duplex
    from semamba.inference.live import Device, Session

_BLOCK_SECONDS = 0.008  # half a hop of the causal models: the shortest way through them, see docs/streaming.md
_LOWEST = -60.0  # dB at the left end of a meter
_METER = 30  # characters


def live(
    list_: Annotated[bool, typer.Option("--list", help="Show the sound devices and stop.")] = False,
    input_: Annotated[str | None, typer.Option("--input", help="Microphone: number or part of a name.")] = None,
    output: Annotated[str | None, typer.Option(help="Loudspeaker: number or part of a name.")] = None,
    model: Annotated[str | None, typer.Option(help="A causal model: shipped, or a folder with weights.")] = None,
    attenuation_limit: Annotated[
        float | None, typer.Option(metavar="DB", help="Noise falls by this many dB at most.")
    ] = None,
    mix: Annotated[float, typer.Option(help="Share of the enhanced signal; 0 is the input.")] = 1.0,
    bandwidth: Annotated[str, typer.Option(help="'full' keeps what lies above 8 kHz, 28 ms later.")] = "model",
    rate: Annotated[int | None, typer.Option(min=8000, help="Hz.  (default: that of the input)")] = None,
    channels: Annotated[int, typer.Option(min=1, max=64, help="Of the input; each is enhanced by itself.")] = 1,
    block: Annotated[int | None, typer.Option(min=16, help="Samples at once.  (default: those of 8 ms)")] = None,
    slack: Annotated[int, typer.Option(min=1, max=50, help="Blocks of time to work on one: more if late.")] = 1,
    record: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="Write PREFIX.noisy.wav and PREFIX.enhanced.wav.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace recordings that exist.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.  (default: at Ctrl-C)")] = None,
) -> None:
    """Enhance the microphone as you speak: headphones on, or the output set to a virtual microphone.

    Keys: b switches between enhanced and original sound, q stops (as Ctrl-C does).
    """
    from rich.console import Console

    from semamba.inference.live import choose, devices

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    found = devices()
    if list_:
        _print(found)
        return
    source, target = choose(found, "input", input_), choose(found, "output", output)

    import torch

    from semamba.inference.duplex import Duplex
    from semamba.inference.live import Session
    from semamba.inference.recording import Recording
    from semamba.inference.stream import Streamer

    torch.set_num_threads(1)  # a hop is too little work to share
    sys.setswitchinterval(0.001)  # the callback must not wait long for Python
    rate = rate or source.sample_rate
    streamer = Streamer(
        model,
        rate,
        channels,
        "fixed",
        attenuation_limit=attenuation_limit,
        mix=mix,
        bandwidth=bandwidth,  # type: ignore[arg-type]
        block=block or max(16, round(_BLOCK_SECONDS * rate)),
    )
    with contextlib.ExitStack() as stack:
        sink = None
        if record is not None:
            recording = Recording(record, rate, channels, streamer.latency_samples, overwrite)
            sink = stack.enter_context(recording).put
        duplex = stack.enter_context(Duplex(streamer, slack, sink))
        session = Session(duplex, source, target, rate, channels)
        console.print(f"{source.name} → {target.name}, {rate} Hz", markup=False)
        _run(duplex, session, console, seconds)
    status = duplex.status
    console.print(f"{status.seconds:.1f} s: {_lost(duplex, session)}")
    if record is not None:
        console.print(f"recorded {' and '.join(map(str, recording.paths))}", markup=False)


def _run(duplex: Duplex, session: Session, console: Console, seconds: float | None) -> None:
    """Until q, Ctrl-C, a polite kill, or enough sound."""
    ended, told = threading.Event(), [""]

    def stop() -> bool:
        return ended.is_set() or (seconds is not None and duplex.status.seconds >= seconds)

    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        with _keys() as key, _screen(console) as show:

            def look() -> None:
                pressed = key()
                if pressed == "q":
                    ended.set()
                elif pressed in ("b", " "):
                    duplex.bypass = not duplex.bypass
                if session.trouble != told[0]:
                    told[0] = session.trouble
                    console.print(session.trouble or "the device is back", style="yellow", markup=False)
                show(duplex, session)

            with contextlib.suppress(KeyboardInterrupt):
                session.run(stop, look)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """A function that says which key was pressed, "" for none; keys act at once where there is a terminal."""
    if not sys.stdin.isatty():
        yield lambda: ""
        return
    if sys.platform == "win32":
        import msvcrt

        yield lambda: msvcrt.getwch() if msvcrt.kbhit() else ""
        return
    import os
    import select
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)
    try:
        yield lambda: os.read(number, 1).decode(errors="ignore") if select.select([number], [], [], 0)[0] else ""
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[Callable[[Any, Any], None]]:
    """Meters, when standard error is a terminal."""
    if not console.is_terminal:
        yield lambda duplex, session: None
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as display:
        yield lambda duplex, session: display.update(_picture(duplex, session), refresh=True)


def _picture(duplex: Duplex, session: Session) -> RenderableType:
    from rich.table import Table

    status = duplex.status
    table = Table.grid(padding=(0, 2))
    table.add_row("input", _meter(status.input_level), f"{status.input_level:5.0f} dB")
    table.add_row("output", _meter(status.output_level), f"{status.output_level:5.0f} dB")
    table.add_row("attenuation", f"{status.attenuation:.0f} dB" + ("  (bypass)" if status.bypass else ""))
    own = 1000 * duplex.latency_samples / session.sample_rate
    table.add_row("latency", f"{own:.0f} ms + {1000 * session.device_latency:.0f} ms of the devices")
    table.add_row("load", f"{100 * status.load:.0f}% of one processor")
    table.add_row("lost", _lost(duplex, session))
    table.add_row("time", f"{status.seconds:.0f} s", "b bypass, q quit")
    return table


def _lost(duplex: Duplex, session: Session) -> str:
    status = duplex.status
    return f"{status.late} blocks late, {status.dropped} dropped, {session.glitches} under-runs of the sound system"


def _meter(level: float) -> str:
    full = round(_METER * min(1.0, max(0.0, 1 - level / _LOWEST)))
    colour = "red" if level > -3 else "yellow" if level > -9 else "green"
    return f"[{colour}]{'█' * full}[/][dim]{'·' * (_METER - full)}[/]"


def _print(found: list[Device]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("number", "name", "system", "inputs", "outputs", "rate", "default"):
        table.add_column(heading, justify="right" if heading in ("number", "inputs", "outputs", "rate") else "left")
    for device in found:
        cells = (device.index, device.name, device.system, device.inputs, device.outputs, device.sample_rate)
        table.add_row(*(escape(str(cell)) for cell in cells), device.default)
    Console().print(table if found else "no sound devices")
