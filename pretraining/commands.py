"""``secateur pretrain``: write the corpus, train a model on it, measure the model.

torch is imported when a command needs it, so that the command line starts without it.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from ..gates.errors import SecateurError
from ..gates.vocabulary import Scheme
from .corpus import Objective

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


@contextmanager
def _readable(config: Path | str) -> Iterator[None]:
    """Turn what is wrong in a training configuration into one line that names the file."""
    try:
        yield
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        said = fault["msg"].removeprefix("Value error, ")
        raise PretrainingError(f"{config}: {where}: {said}; correct it") from None
    except yaml.YAMLError as error:
        raise PretrainingError(
            f"{config}: no YAML: {' '.join(str(error).split())}; correct it"
        ) from None
    except FileNotFoundError as error:
        raise PretrainingError(str(error)) from None


@app.command()
def corpus(
    config: Annotated[
        Path | None, typer.Option(help="A training configuration (YAML) whose corpus to write.")
    ] = None,
    documents: Annotated[int, typer.Option(min=1, help="How many documents.")] = 1000,
    seed: Annotated[
        int | None, typer.Option(help="The corpus's seed: same seed, same bytes. [default: 0]")
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="The first document's number.")] = 0,
    missed: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the labels that are lost.")
    ] = None,
    objective: Annotated[
        Objective | None, typer.Option(help="Which documents there are. [default: conditional]")
    ] = None,
    scheme: Annotated[
        Scheme | None, typer.Option(help="Add the text as the model reads it, tagged in a scheme.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write here (.jsonl, .jsonl.gz, .parquet), not to standard output."),
    ] = None,
) -> None:
    """Write documents as records: plain text, its labels as spans, what the agent was given."""
    from .corpus import Corpus, CorpusConfig
    from .recipe import TrainConfig
    from .schemes import TagScheme, visible
    from .writer import write_records

    base = {}
    if config is not None:
        with _readable(config):
            base = TrainConfig.load(config).corpus.model_dump()
    changes = {"seed": seed, "missed": missed, "objective": objective}
    changes |= {"tags": None if scheme is None else [TagScheme(scheme=scheme).model_dump()]}
    given = {name: value for name, value in changes.items() if value is not None}
    stream = Corpus(CorpusConfig.model_validate({**base, **given}))
    if out is not None and scheme is not None:
        raise PretrainingError(
            "--scheme is for reading: corpus files hold labels as spans, and a training "
            "configuration says how they are spelt; leave --scheme or --out out"
        )
    if out is not None:
        write_records(stream.documents(start, documents), out)
        return
    for found, pieces in stream.rendered(start, documents):
        tagged = {} if scheme is None else {"tagged": visible(pieces)}
        record = {**found.to_record(), **tagged}
        sys.stdout.write(json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n")


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

    with _readable(config):
        chosen = TrainConfig.load(config)
        changes = {"steps": steps, "seed": seed}
        update = {name: value for name, value in changes.items() if value is not None}
        chosen = TrainConfig.model_validate({**chosen.model_dump(), **update})
        made = run(chosen, out, resume)
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
