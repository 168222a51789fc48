"""Tagging a large corpus: part by part, in this process or as a Ray Data job.

The corpus is cut into parts of some thousand records. A part is the unit of work wherever it
runs: it is read, tagged and written as a stream by :mod:`.taggers.job`, so a cluster writes the
very files that one process does.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from ...gates.errors import SecateurError
from ..corpus.reader import count_records, find_files, read_records
from ..errors import CorpusError
from .apply import Given, Tally
from .job import TaggingResult, tag_stream, untagged_path
from .tagger import Tagger

__all__ = ["Part", "parts", "tag_parts"]

Tell = Callable[[int], None]
"""Told how many more documents have passed."""


@dataclass(frozen=True, slots=True)
class Part:
    """``count`` records of ``file`` from record ``start``, and the file that they become."""

    file: Path
    start: int
    count: int
    target: Path


@dataclass(frozen=True, slots=True)
class _Setting:
    """How parts are tagged: the tagger, tags on what others wrote, texts at once."""

    tagger: Tagger
    given: Given
    batch: int

    def tag(self, part: Part) -> TaggingResult:
        """Read, tag and write one part; its file appears when it is whole."""
        records = islice(read_records([part.file], part.start), part.count)
        return tag_stream(self.tagger, records, part.target, self.given, self.batch)


def tag_parts(
    tagger: Tagger,
    paths: Sequence[str | Path],
    out: Path,
    given: Given = "skip",
    batch: int = 64,
    tell: Tell = lambda passed: None,
    *,
    cluster: bool = False,
    size: int = 20_000,
    workers: int | None = None,
    gpus: float = 0.0,
) -> TaggingResult:
    """Tag the records of ``paths`` (files or patterns) into Parquet files in the folder ``out``.

    The names of the parts sort in the order of the corpus. What could not be tagged stands beside
    its part; the result's ``untagged`` is the pattern of those files.

    ``cluster`` makes it a Ray Data job of at most ``workers`` actors (by default as many as there
    are CPUs), each holding the tagger and ``gpus`` GPUs: on the cluster that ``RAY_ADDRESS``
    names, else on this machine. Raises ``TaggerError``, and :class:`CorpusError`, also for a
    folder that has Parquet files in it.
    """
    if any(out.glob("*.parquet")):
        raise CorpusError(f"{out}: there are Parquet files in it already; name a new folder")
    # From the root, because actors do not work in the folder in which the job was started.
    files = [path.absolute() for path in find_files(paths)]
    work = parts(files, out.absolute(), size)
    setting = _Setting(tagger, given, batch)
    whole = Tally()
    for found in _on_ray(work, setting, workers, gpus) if cluster else map(setting.tag, work):
        tell(found.tally.documents)
        for field in fields(Tally):
            both = getattr(whole, field.name) + getattr(found.tally, field.name)
            setattr(whole, field.name, both)
    failed = out / untagged_path(Path("*.parquet"))
    return TaggingResult(whole, out, failed if whole.failed else None)


def parts(files: Sequence[Path], out: Path, size: int) -> list[Part]:
    """The corpus in parts of at most ``size`` records; the targets' names sort in its order."""
    found: list[Part] = []
    for number, path in enumerate(files):
        total = count_records(path)
        for start in range(0, total, size):
            name = f"{number:05}-{start // size:05}.parquet"
            found.append(Part(path, start, min(size, total - start), out / name))
    return found


class _Actor:
    """Holds the tagger (a classifier's weights, say) from one part to the next."""

    def __init__(self, setting: _Setting) -> None:
        self._setting = setting

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"done": [pickle.dumps(self._tag(pickle.loads(part))) for part in batch["part"]]}

    def _tag(self, part: Part) -> TaggingResult | SecateurError:
        try:
            return self._setting.tag(part)
        except SecateurError as error:
            # As a result, because Ray would wrap it and keep its words alone.
            return error


def _on_ray(
    work: Sequence[Part], setting: _Setting, workers: int | None, gpus: float
) -> Iterator[TaggingResult]:
    """The results of all parts as they are done, in any order."""
    if not work:
        return
    with _ray() as ray:
        most = workers or min(len(work), int(ray.cluster_resources().get("CPU", 1)) or 1)
        items = [{"part": pickle.dumps(part)} for part in work]
        data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=(setting,),
            batch_size=1,
            num_cpus=1,
            num_gpus=gpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most),
        )
        for row in data.iter_rows():
            found = pickle.loads(row["done"])
            if isinstance(found, SecateurError):
                raise found
            yield found


@contextmanager
def _ray() -> Iterator[Any]:
    """Ray with its usage reports off: what runs already, else a cluster or this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise CorpusError(
            "a Ray job needs ray: pip install 'secateur[cluster]', or tag without --ray"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    if "RAY_ADDRESS" in os.environ:
        ray.init()
    else:
        ray.init(include_dashboard=False)
    try:
        yield ray
    finally:
        ray.shutdown()
