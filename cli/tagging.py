"""``secateur pretrain tag`` and ``learn-tagger``: a corpus gets its labels."""

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..pretraining.errors import PretrainingError
from ..pretraining.taggers.units import Unit
from ..runtime.screen import Console

__all__ = ["learn_tagger", "tag"]


def tag(
    corpus: Annotated[
        list[str], typer.Argument(help="Corpus files (.jsonl, .jsonl.gz, .parquet) or patterns.")
    ],
    taggers: Annotated[Path, typer.Option(help="A file of taggers (YAML).")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The tagged corpus (.jsonl, .jsonl.gz, .parquet), or a folder for Parquet parts."
        ),
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="As a Ray Data job, into a folder of parts.")
    ] = False,
    use: Annotated[
        str | None, typer.Option(help="The tagger that speaks, instead of the file's choice.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Documents that a tagger gets at once.")] = 64,
    compare_with_oracle: Annotated[
        bool,
        typer.Option(
            "--compare-with-oracle",
            help="Measure the file's taggers (or the one to --use) on procedural documents.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tag a corpus: turn its text into spans with tags and bands."""
    from ..pretraining.corpus.reader import count_records, find_files, read_records
    from ..pretraining.taggers import tables
    from ..pretraining.taggers.compare import compare
    from ..pretraining.taggers.file import TaggersFile
    from ..pretraining.taggers.job import tag_corpus
    from ..pretraining.taggers.parallel import tag_parts

    chosen = TaggersFile.load(taggers)
    if compare_with_oracle:
        documents = list(read_records(corpus))
        names = list(chosen.taggers) if use is None else [use]
        found = {name: compare(chosen.build(name), documents, chosen.given) for name in names}
        if as_json:
            print(json.dumps({name: one.to_json() for name, one in found.items()}))
        else:
            Console().print(tables.compared(found))
        return
    if out is None:
        raise PretrainingError("the tagged corpus needs a place; name one with --out FILE")
    if ray and out.suffix:
        raise PretrainingError(f"{out}: --ray writes a folder of parts; name a folder with --out")
    tagger = chosen.build(use)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("tagging", total=sum(map(count_records, find_files(corpus))))

        def tell(passed: int) -> None:
            progress.advance(bar, passed)

        if out.suffix:
            result = tag_corpus(tagger, corpus, out, chosen.given, batch, tell)
        else:
            result = tag_parts(tagger, corpus, out, chosen.given, batch, tell, cluster=ray)
    tally = result.tally
    if as_json:
        print(json.dumps({"out": str(out), **tally.to_json()}))
    else:
        console = Console()
        console.print(tables.spans(tally))
        if tally.labelled:
            console.print(tables.disagreements(tally))
        console.print(f"{tally.tagged} of {tally.documents} documents bear tags; {out}")
    if result.untagged is not None:
        reason, count = tally.failures.most_common(1)[0]
        raise PretrainingError(
            f"{tally.failed} of {tally.documents} documents could not be tagged ({count} of them: "
            f"{reason}); they stand in {result.untagged}, not in {out}: tag them again"
        )


def learn_tagger(
    corpus: Annotated[list[str], typer.Argument(help="Tagged corpus files, or patterns.")],
    out: Annotated[Path, typer.Option(help="The tagger's folder.")],
    unit: Annotated[Unit, typer.Option(help="What one tag covers.")] = "line",
    context: Annotated[
        int, typer.Option(min=0, help="Units before, against which a claim is held.")
    ] = 0,
    words: Annotated[int, typer.Option(min=1, max=5, help="Longest word n-grams.")] = 2,
    characters: Annotated[
        int, typer.Option(min=0, max=8, help="Longest character n-grams; 0 for none.")
    ] = 4,
    strength: Annotated[
        float, typer.Option(help="C of the regression: the higher, the closer a fit.")
    ] = 10.0,
    at: Annotated[float, typer.Option(help="Fire from this probability on.")] = 0.5,
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 5,
    mask_quotes: Annotated[
        bool, typer.Option("--mask-quotes", help="Do not judge text in quotation marks.")
    ] = False,
    mask: Annotated[
        list[str] | None, typer.Option(help="Do not judge what this regular expression matches.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Learn a tagger from a corpus's spans, and measure it by cross-validation."""
    from ..pretraining.corpus.reader import read_records
    from ..pretraining.taggers import tables
    from ..pretraining.taggers.learned import LearningConfig, cross_validate, learn

    try:
        config = LearningConfig.model_validate(
            {
                "unit": unit, "context": context, "words": words, "characters": characters,
                "strength": strength, "mention": {"quotes": mask_quotes, "patterns": mask or ()},
            }
        )  # fmt: skip
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        raise PretrainingError(f"{fault['loc'][-1]}: {message}; correct it") from None
    if not 0 < at < 1:
        raise PretrainingError(f"--at is {at}; it must lie between 0 and 1")
    documents = list(read_records(corpus))
    with Console(stderr=True).status("cross-validating") as status:
        found = cross_validate(documents, config, at, folds)
        status.update("learning")
        learn(documents, config, at).save(out)
    if as_json:
        print(json.dumps({"out": str(out), **found.to_json()}))
    else:
        Console().print(tables.validated(found))
        print(f"learnt from {len(documents)} documents; {out}")
