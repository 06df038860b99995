"""What fake engines wrote down: who was started, what was asked of whom, and how it ended; and how they are to load."""

import json
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from corral.cage import Cage
from tests.processes import wait_for_end

Event = dict[str, Any]


@dataclass(frozen=True)
class FakeEngine:
    """One process that was started, by its journal."""

    journal: Path

    @property
    def pid(self) -> int:
        return int(self.journal.stem)

    @property
    def events(self) -> list[Event]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    @property
    def started(self) -> Event:
        return self.events[0]

    @property
    def options(self) -> dict[str, Any]:
        """The command line it got."""
        return dict(self.started["options"])

    @property
    def alive(self) -> bool:
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def wait_for_end(self) -> None:
        wait_for_end(self.pid)

    def bodies(self, path: str = "/completion") -> list[dict[str, Any]]:
        """What was asked of it on a path."""
        return [event["body"] for event in self.events if event["event"] == "request" and event["path"] == path]

    def wait(self, event: str, count: int = 1) -> list[Event]:
        """Its events, as soon as so many of a kind happened; it must be alive."""
        url = f"http://127.0.0.1:{self.started['port']}/journal?event={event}&count={count}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.started['key']}"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return list(json.load(response))

    def most_at_once(self) -> int:
        return max((event["at_once"] for event in self.events if event["event"] == "running"), default=0)

    def overflows(self) -> list[Event]:
        """Moments when more ran than it has slots or tokens for: a real engine would have failed them all."""
        return [event for event in self.events if event["event"] == "overflow"]


def open_to(home: Path) -> Cage:
    """A cage in which a fake engine can do that, whatever script starts it."""
    return Cage(folders=(str(home), str(Path(__file__).parent)))


def engines(home: Path) -> list[FakeEngine]:
    """All that were ever started with this home folder, oldest first."""
    journals: Iterable[Path] = (home / "engines").glob("*.jsonl")
    started = [FakeEngine(journal) for journal in journals if b"\n" in journal.read_bytes()]
    return sorted(started, key=lambda engine: float(engine.started["at"]))


def tell(home: Path, **orders: Any) -> None:
    """Writes down how engines are to load from now on; nothing: as usual."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "fake_engine.json").write_text(json.dumps(orders))
