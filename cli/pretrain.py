"""``secateur pretrain``: write the corpus, train a model on it, measure the model.

torch is imported when a command needs it, so that the command line starts without it.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..gates.vocabulary import Scheme
from ..pretraining import configs
from ..pretraining.corpus.stream import Objective
from ..pretraining.errors import PretrainingError
from ..runtime.screen import Console
from . import tagging

__all__ = ["app"]

app = typer.Typer(
    help="Write the corpus, pretrain a model with behaviour tags, measure it.",
    no_args_is_help=True,
)


_SEEDLING = Path(configs.__file__).parent / "seedling.yaml"


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
    from ..pretraining.corpus.schemes import TagScheme, visible
    from ..pretraining.corpus.stream import Corpus, CorpusConfig
    from ..pretraining.corpus.writer import write_records
    from ..pretraining.training.recipe import TrainConfig

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
    from transformers.utils import logging as transformers_logging

    from ..pretraining.training.recipe import TrainConfig
    from ..pretraining.training.train import train as run

    # Its bars and its advice would come from every process of torchrun.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    with _readable(config):
        chosen = TrainConfig.load(config)
        changes = {"steps": steps, "seed": seed}
        update = {name: value for name, value in changes.items() if value is not None}
        chosen = TrainConfig.model_validate({**chosen.model_dump(), **update})
        made = run(chosen, out, resume)
    if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun, one reports
        Console(stderr=True).print(f"model written to {made}")


@app.command("eval")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder, as `pretrain train` exports it.")],
    twin: Annotated[
        Path | None, typer.Option(help="A model trained without tags: what do the tags cost?")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Fresh instances for each figure.")] = 400,
    runs: Annotated[
        int, typer.Option(min=1, help="Free runs of each task that `opened` is held against.")
    ] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the instances and of the sampling.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(help="Also write evaluation.json, evaluation.md and two pictures there."),
    ] = None,
) -> None:
    """Measure a model: exactness, misbehaviour under each control, its tags, what they cost."""
    _needs_torch()
    if save is not None:
        _needs_matplotlib()
    for folder in (model, twin):
        if folder is not None and not (folder / "config.json").is_file():
            raise PretrainingError(
                f"{folder}: no model there (no config.json); name a model folder"
            )
    from transformers.utils import logging as transformers_logging

    from ..pretraining.evaluation import evaluate as measuring
    from ..pretraining.evaluation.report import markdown

    transformers_logging.disable_progress_bar()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("loading", total=None)

        def tell(what: str, done: int, of: int) -> None:
            progress.update(bar, description=what, completed=done, total=of)

        facts = measuring.evaluate(model, measuring.Measurement(n, runs, seed), twin, tell)
    if save is not None:
        measuring.save(facts, save)
    print(json.dumps(facts) if as_json else markdown(facts))


@app.command()
def retag(
    model: Annotated[Path, typer.Argument(help="A model that was trained with span tags.")],
    corpus: Annotated[
        list[str],
        typer.Argument(
            help="Tagged corpus files or patterns, or a training configuration (.yaml), whose "
            "corpus is read as it was trained on."
        ),
    ],
    documents: Annotated[
        int | None,
        typer.Option(min=1, help="How many documents; of files all, else 10000."),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="The first document's number.")] = 0,
    at: Annotated[
        float, typer.Option(min=0.001, max=1, help="The posterior from which a tag is expected.")
    ] = 0.2,
    listed: Annotated[
        int, typer.Option("--list", min=0, help="Disagreements to show, in each direction.")
    ] = 10,
    relabel: Annotated[
        Path | None,
        typer.Option(help="Write the corpus there (.jsonl) with the labels that were missed."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="Write a policy there (.yaml) that cuts by calibrated posteriors."),
    ] = None,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Judge by the oracle of the procedural corpus who is right."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read a tagged corpus again with a model: which labels were missed, and which are wrong?"""
    _needs_torch()
    if not (model / "config.json").is_file():
        raise PretrainingError(f"{model}: no model there (no config.json); name a model folder")
    from transformers.utils import logging as transformers_logging

    from ..pretraining.retagging import retag as retag_corpus
    from ..pretraining.retagging.comparison import markdown

    transformers_logging.disable_progress_bar()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        with _readable(corpus[0]):
            source = retag_corpus.source(corpus, start, documents)
        bar = progress.add_task("reading again", total=source.count)
        facts = retag_corpus.retag(
            model, source, retag_corpus.Retagging(at, listed, oracle, relabel, policy),
            lambda passed: progress.advance(bar, passed),
        )  # fmt: skip
    print(json.dumps(facts) if as_json else markdown(facts))


@app.command()
def lab(
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of training runs; relabelled-30 stands behind 30 % missed."),
    ] = None,
    configs: Annotated[
        Path | None, typer.Option(help="A folder of configurations: train what is missing first.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where --configs trains, a folder each.")] = Path(
        "runs/lab"
    ),
    relabel: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1,
            help="With --configs: also train on corpora relabelled from this posterior on.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Tasks for each figure.")] = 400,
    calibration: Annotated[
        int, typer.Option(min=1, help="Tasks whose honest runs set the thresholds.")
    ] = 400,
    alpha: Annotated[
        float, typer.Option(help="Share of honest tasks that a threshold may cut.")
    ] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the tasks and of the sampling.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Also write lab.json, lab.md and missed.svg there.")
    ] = None,
) -> None:
    """Measure trained models: the missed-label curve with its defences, and the objectives."""
    _needs_torch()
    if save is not None:
        _needs_matplotlib()
    from transformers.utils import logging as transformers_logging

    from ..pretraining.laboratory.defences import Trial
    from ..pretraining.laboratory.lab import find_points, measure, prepare
    from ..pretraining.laboratory.labbook import markdown
    from ..pretraining.laboratory.labbook import save as write

    transformers_logging.disable_progress_bar()
    folders = list(models or ())
    if configs is not None:
        named = sorted(configs.glob("*.yaml"))
        if not named:
            raise PretrainingError(f"{configs}: no configuration there; name a folder of YAMLs")
        with _readable(configs):
            folders += prepare(named, runs, relabel, Console(stderr=True).print)
    if not folders:
        raise PretrainingError("no model is named; give folders of training runs, or --configs")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
               TimeElapsedColumn())  # fmt: skip
    points = find_points(folders)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("loading", total=None)

        def tell(what: str, done: int, of: int) -> None:
            progress.update(bar, description=what, completed=done, total=of)

        trial = Trial(n=n, calibration=calibration, alpha=alpha, seed=seed)
        facts = measure(points, trial, tell)
    print(json.dumps(facts) if as_json else markdown(facts))
    if save is not None:
        write(facts, save)


def _needs_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PretrainingError(
            "the pictures need matplotlib; install the extra: pip install 'secateur[train]', or "
            "leave --save out"
        ) from None


app.command()(tagging.tag)
app.command()(tagging.learn_tagger)
