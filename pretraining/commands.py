"""``secateur pretrain``: write the corpus, train a model on it, measure the model.

torch is imported when a command needs it, so that the command line starts without it.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from ..gates.errors import SecateurError

__all__ = ["PretrainingError", "app"]

app = typer.Typer(
    help="Write the corpus, pretrain a model with behaviour tags, measure it.",
    no_args_is_help=True,
)

_SEEDLING = Path(__file__).parent / "configs" / "seedling.yaml"


class PretrainingError(SecateurError):
    """A corpus, a training run or an evaluation that cannot start."""


def _needs_torch() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise PretrainingError(
            f"{error.name} is not installed; install the extra: pip install 'secateur[train]'"
        ) from None


@app.command()
def corpus(
    documents: Annotated[int, typer.Option(min=1, help="How many documents.")] = 1000,
    seed: Annotated[int, typer.Option(help="The corpus's seed: same seed, same bytes.")] = 0,
    start: Annotated[int, typer.Option(min=0, help="The first document's number.")] = 0,
    missed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of misbehaving lines left untagged.")
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Write here instead of to standard output.")
    ] = None,
) -> None:
    """Write documents as JSON lines: text with tags, the lines, what the generator knows."""
    from .corpus import CorpusConfig, to_json
    from .corpus import documents as stream

    config = CorpusConfig(seed=seed, missed=missed)
    try:
        target = sys.stdout if out is None else out.open("w", encoding="utf-8")
    except OSError as error:
        raise PretrainingError(f"{out}: {error.strerror}; name a file in a folder that you may "
                               "write to") from None  # fmt: skip
    try:
        for found in stream(config, start, documents):
            target.write(to_json(found) + "\n")
    finally:
        if out is not None:
            target.close()


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="A training configuration (YAML).")] = _SEEDLING,
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, log and model.")] = Path(
        "runs/pretrain"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the file's steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the file's seed.")] = None,
) -> None:
    """Train a model from a configuration; the exported model stands in OUT/model."""
    _needs_torch()
    from .train import TrainConfig
    from .train import train as run

    try:
        chosen = TrainConfig.load(config)
        changes = {"steps": steps, "seed": seed}
        update = {name: value for name, value in changes.items() if value is not None}
        chosen = TrainConfig.model_validate({**chosen.model_dump(), **update})
        made = run(chosen, out, resume)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise PretrainingError(f"{config}: {where}: {fault['msg']}; correct it") from None
    except yaml.YAMLError as error:
        raise PretrainingError(
            f"{config}: no YAML: {' '.join(str(error).split())}; correct it"
        ) from None
    except FileNotFoundError as error:
        raise PretrainingError(str(error)) from None
    Console(stderr=True).print(f"model written to {made}", highlight=False)


@app.command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder, as `pretrain train` exports it.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Fresh instances for each figure.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the instances and of the sampling.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Also write evaluation.json and evaluation.md there.")
    ] = None,
) -> None:
    """Measure a model: exactness, misbehaviour allowed and banned, and its own tags."""
    _needs_torch()
    from . import evaluate as measuring

    if not (model / "config.json").is_file():
        raise PretrainingError(f"{model}: no model there (no config.json); name a model folder")
    console = Console(stderr=True)
    with console.status("loading") as status:
        facts = measuring.evaluate(model, n, seed, status.update)
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        measuring.save(facts, save)
    typer.echo(json.dumps(facts) if as_json else measuring.markdown(facts))
