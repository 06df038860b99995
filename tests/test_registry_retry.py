"""When an action is tried again, how often, and what is remembered of uploads that did not end."""

import itertools
from collections.abc import Iterable

import pytest
from yarl import URL

from corral.errors import SourceError, Unreachable
from corral.sources.registry import RetryPolicy
from corral.sources.registry.errors import Contradiction, Interrupted, StatusError, is_retryable
from corral.sources.registry.retry import retry
from corral.sources.registry.upload import UnfinishedUploads

AT_ONCE = RetryPolicy(attempts=2, pause=0)


class Action:
    """Fails with these errors in turn, then succeeds; counts its calls."""

    def __init__(self, errors: Iterable[SourceError]) -> None:
        self.errors = iter(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        for error in self.errors:
            raise error
        return "done"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Interrupted("x"), True),
        (Unreachable("x"), True),
        (StatusError(429, ""), True),
        (StatusError(408, ""), True),
        (StatusError(503, ""), True),
        (StatusError(404, ""), False),
        (StatusError(403, ""), False),
        (Contradiction("x"), False),
        (SourceError("x"), False),
    ],
    ids=repr,
)
def test_which_errors_may_pass(error: SourceError, expected: bool) -> None:
    assert is_retryable(error) is expected


async def test_an_action_is_tried_until_it_succeeds() -> None:
    action = Action([Interrupted("once"), StatusError(500, "twice")])
    assert await retry(action, AT_ONCE) == "done"
    assert action.calls == 3


async def test_an_error_that_will_not_pass_is_raised_at_once() -> None:
    action = Action([Contradiction("no")])
    with pytest.raises(Contradiction, match=r"^no$"):
        await retry(action, AT_ONCE)
    assert action.calls == 1


@pytest.mark.parametrize(
    ("error", "kind"), [(Unreachable("gone"), Unreachable), (StatusError(500, "gone"), Interrupted)], ids=repr
)
async def test_the_last_error_is_quoted(error: SourceError, kind: type[SourceError]) -> None:
    action = Action(itertools.repeat(error))
    with pytest.raises(kind, match=r"^max retries exceeded: .*gone$"):
        await retry(action, AT_ONCE)
    assert action.calls == 1 + AT_ONCE.attempts


async def test_progress_begins_the_count_anew() -> None:
    action = Action([Interrupted("x")] * 5)
    progress = iter([True, True, True, True, False])
    assert await retry(action, AT_ONCE, has_progressed=lambda: next(progress)) == "done"
    assert action.calls == 6


def test_an_unfinished_upload_is_given_to_one_push() -> None:
    uploads = UnfinishedUploads()
    uploads.put(URL("http://r/blob"), URL("http://r/upload"))
    assert uploads.take(URL("http://r/blob")) == URL("http://r/upload")
    assert uploads.take(URL("http://r/blob")) is None


def test_of_too_many_unfinished_uploads_the_oldest_are_forgotten() -> None:
    uploads = UnfinishedUploads(most=2)
    blobs = [URL(f"http://r/{number}") for number in range(3)]
    for blob in (*blobs[:2], blobs[0], blobs[2]):
        uploads.put(blob, blob / "upload")
    assert [uploads.take(blob) is not None for blob in blobs] == [True, False, True]
