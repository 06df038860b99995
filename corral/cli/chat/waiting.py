"""What happens before an answer begins, on a line that is redrawn, and gone when it does. Nothing in a pipe."""

from collections.abc import Iterable

from corral.cli.display.progress import spinning
from corral.messages import AnswerProgress, Chunk


def first_chunks(chunks: Iterable[Chunk], *, hide_thinking: bool = False) -> list[Chunk]:
    """The chunks until the first that is to be shown; those that only say how far the server is are left out.

    Thoughts that are hidden are among them: while the model thinks, the line says so.
    """
    hidden = []
    with spinning("") as say:
        for chunk in chunks:
            if chunk.progress is not None:
                say(progress_text(chunk.progress))
                continue
            hidden.append(chunk)
            if not (hide_thinking and chunk.thinking) or chunk.content or chunk.tool_calls or chunk.done_reason:
                break
            say("thinking")
    return hidden


def wait_for_end(chunks: Iterable[Chunk]) -> None:
    """Reads the stream of a model that is loaded, which says nothing."""
    with spinning("loading the model") as say:
        for chunk in chunks:
            if chunk.progress is not None:
                say(progress_text(chunk.progress))


def progress_text(progress: AnswerProgress) -> str:
    percent = f" {100 * progress.completed // progress.total}%" if progress.total else ""
    match progress.stage:
        case "queued":
            if not progress.ahead:
                return "waiting for the model"
            return f"waiting behind {progress.ahead} other request{'s' * (progress.ahead > 1)}"
        case "preparing":
            return f"preparing the model for the engine{percent}"
        case "loading":
            return f"loading the model{percent}"
        case "reading":
            return f"reading the prompt{percent}" + (f" of {progress.total} tokens" if progress.total else "")
