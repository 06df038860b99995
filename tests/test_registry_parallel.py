"""Jobs that run side by side and are reported in order: driven by events, without any registry."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from corral.errors import SourceError
from corral.messages import Progress
from corral.sources.registry.parallel import Job, in_parallel


class Stage:
    """Jobs for a test: each says that it began, waits until it may go on, and says that it ended."""

    def __init__(self) -> None:
        self.began: dict[str, asyncio.Event] = {}
        self.may_end: dict[str, asyncio.Event] = {}
        self.closed: list[str] = []
        self.failing: set[str] = set()

    def job(self, name: str, connections: int = 1) -> Job:
        self.began[name] = asyncio.Event()
        self.may_end[name] = asyncio.Event()
        return Job(self._steps(name), connections)

    async def _steps(self, name: str) -> AsyncGenerator[Progress, None]:
        try:
            for completed in range(4):
                yield Progress(name, completed=completed)
            self.began[name].set()
            await self.may_end[name].wait()
            if name in self.failing:
                raise SourceError(f"{name} failed")
            yield Progress(name, completed=9)
        finally:
            self.closed.append(name)

    def running(self) -> set[str]:
        return {name for name, event in self.began.items() if event.is_set()} - set(self.closed)


async def drain(steps: AsyncGenerator[Progress, None], into: list[Progress]) -> None:
    async with aclosing(steps):
        async for step in steps:
            into += [step]


async def settle() -> None:
    """Lets every task go on until it waits for an event of the test."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_jobs_run_together_and_are_reported_in_order() -> None:
    stage, seen = Stage(), list[Progress]()
    reader = asyncio.create_task(drain(in_parallel([stage.job(name) for name in "abc"], 3), seen))
    for name in "abc":
        await stage.began[name].wait()
    for name in "cba":
        stage.may_end[name].set()
        await settle()
    await reader
    assert list(dict.fromkeys(step.status for step in seen)) == ["a", "b", "c"]
    for name in "abc":
        completed = [step.completed for step in seen if step.status == name]
        assert (completed[0], completed[-1]) == (0, 9)
        assert completed == sorted(completed)
    assert [step.completed for step in seen if step.status == "c"] == [0, 9], "the first step and the newest"


async def test_no_more_connections_are_used_than_there_are() -> None:
    stage, seen = Stage(), list[Progress]()
    wanted = {"a": 1, "b": 2, "big": 4, "c": 1, "d": 1}
    jobs = [stage.job(name, count) for name, count in wanted.items()]
    reader = asyncio.create_task(drain(in_parallel(jobs, 4), seen))
    await settle()
    assert stage.running() == {"a", "b"}
    stage.may_end["b"].set()
    await settle()
    assert stage.running() == {"a"}, "a job that needs all connections is not overtaken"
    stage.may_end["a"].set()
    await settle()
    assert stage.running() == {"big"}
    stage.may_end["big"].set()
    await settle()
    assert stage.running() == {"c", "d"}
    for name in "cd":
        stage.may_end[name].set()
    await reader


async def test_the_first_error_ends_the_others_and_is_raised() -> None:
    stage, seen = Stage(), list[Progress]()
    stage.failing = {"b"}
    reader = asyncio.create_task(drain(in_parallel([stage.job(name) for name in "abcd"], 3), seen))
    for name in "abc":
        await stage.began[name].wait()
    stage.may_end["b"].set()
    with pytest.raises(SourceError, match=r"^b failed$"):
        await reader
    assert sorted(stage.closed) == ["a", "b", "c"]
    assert not stage.began["d"].is_set()
    assert {step.status for step in seen} == {"a"}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reader_that_leaves_ends_the_jobs() -> None:
    stage = Stage()
    steps = in_parallel([stage.job(name) for name in "abc"], 2)
    await anext(steps)
    await stage.began["b"].wait()
    await steps.aclose()
    assert sorted(stage.closed) == ["a", "b"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_error_that_came_while_the_reader_was_away_is_raised_when_it_returns() -> None:
    stage = Stage()
    stage.failing = {"b"}
    steps = in_parallel([stage.job(name) for name in "ab"], 2)
    await anext(steps)
    await stage.began["b"].wait()
    stage.may_end["b"].set()
    await settle()
    with pytest.raises(SourceError, match=r"^b failed$"):
        await drain(steps, [])


async def test_no_jobs_are_no_work() -> None:
    assert [step async for step in in_parallel([], 4)] == []
