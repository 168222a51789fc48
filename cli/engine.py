"""``secateur engine``: check a server before trusting it, and start one with the right flags."""

import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.table import Table

from ..runtime.engines.vllm.serving.launch import plan_launch
from ..runtime.engines.vllm.serving.server import VllmServer
from ..runtime.screen import Console, Words
from ..runtime.settings import Settings
from .terminal import one_line

if TYPE_CHECKING:
    from ..runtime.engines.vllm.serving.preflight import Report

__all__ = ["app"]

app = typer.Typer(help="Check and start inference servers.", no_args_is_help=True)


@app.command()
def check(
    url: Annotated[str, typer.Argument(help="Where the server answers: http://HOST:PORT.")],
    model: Annotated[
        str | None, typer.Option(help="The model it should serve: a shipped name, or a folder.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether a server can be trusted with the gate: each check, and what to do if it fails.

    Example: secateur engine check http://127.0.0.1:8000 --model seedling
    """
    from ..runtime.engines.vllm.serving.preflight import check_server

    report = asyncio.run(check_server(url, model or Settings().model))
    if json_:
        checks = [asdict(check) for check in report.checks]
        print(json.dumps({"ok": report.ok, "url": report.url, "checks": checks}))
    else:
        _print_report(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A shipped model's name, or a checkpoint folder.")],
    extra: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- VLLM OPTIONS]", help="Handed to vLLM as they are."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8000,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of prompt and generation together.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs to split the model over. Default: 1, if any.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Without a GPU: most threads, not bound to cores.")
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(help="The Python of the environment with vLLM. Else SECATEUR_VLLM_PYTHON."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Where vLLM's output goes; default a temporary file.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Most seconds to wait for it.")] = 1800.0,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the command and start nothing.")
    ] = False,
) -> None:
    """Start vLLM as the gate needs it, wait until it generates, and stop it with Ctrl-C.

    Example: secateur engine serve seedling --port 8000
    """
    plan = plan_launch(
        model,
        host=host,
        port=port,
        max_model_len=max_model_len,
        gpus=gpus,
        threads=threads,
        python=python or Settings().vllm_python,
        extra=extra or (),
    )
    if print_:
        print(plan.shell())
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started us deaf to Ctrl-C
        signal.signal(number, _interrupt)
    console = Console(stderr=True)
    began = time.monotonic()

    def tell(stage: str) -> None:
        console.print(
            Words.assemble((f"{time.monotonic() - began:5.0f} s", "dim"), f"  {stage}"),
            soft_wrap=True,
        )

    try:
        with VllmServer.start(plan, log=log) as server:
            tell(f"vLLM of {plan.command[0]}; log {server.log}")
            try:
                server.wait_ready(timeout_s=timeout, progress=tell)
                tell("ready")
                print(f"{plan.served} answers at {plan.url}; Ctrl-C stops it")
                print(f'secateur run opsdesk "TASK" --engine {plan.url} --model {model}')
                sys.stdout.flush()
                server.wait()
            except KeyboardInterrupt:
                tell("stopping")
    except KeyboardInterrupt:
        raise typer.Abort("interrupted while stopping; its processes are being ended") from None
    tell("stopped")


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _print_report(report: "Report") -> None:
    console = Console()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in report.checks:
        said = check.detail if check.remedy is None else f"{check.detail}; {check.remedy}"
        word, colour = (
            ("ok", "green") if check.ok else ("fail", "red") if check.required else ("no", "yellow")
        )
        table.add_row(Words(word, colour), check.name, one_line(said))
    console.print(table)
    failed = sum(not check.ok and check.required for check in report.checks)
    word = "fit" if report.ok else "not fit"
    count = "" if report.ok else f" ({failed} of {len(report.checks)} fail)"
    console.print(Words.assemble((one_line(report.url), "bold"), f": {word} for the gate{count}"))
