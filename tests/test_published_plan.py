"""Published layouts: what is recognised, and that the derived file is what it should be, tensor by tensor."""

from pathlib import Path

import pytest

from corral import gguf, published
from corral.published.draft import Draft
from tests.derived_files import derive, difference
from tests.published_models import FAMILIES, Twins


@pytest.fixture(scope="module", params=FAMILIES)
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def test_a_derived_file_has_the_keys_and_tensors_of_its_twin(twins: Twins, tmp_path: Path) -> None:
    if twins.published_projector is None:
        made = derive(twins.published, tmp_path / "made")
        assert difference(tmp_path / "made" / made.text, twins.model, twins.published) == []
        source = twins.published
    else:
        source = twins.published_projector
        made = derive(source, tmp_path / "made")
    assert bool(made.projector) == (twins.projector is not None)
    if twins.projector is not None:
        assert difference(tmp_path / "made" / made.projector, twins.projector, source) == []


def test_nothing_is_made_of_a_file_that_the_engine_loads(twins: Twins, tmp_path: Path) -> None:
    for path in (twins.model, twins.projector):
        assert path is None or published.plan(gguf.read(path)) is None
    source = twins.published_projector or twins.published
    made = derive(source, tmp_path / "made")
    for name in (made.text, made.projector):
        assert not name or published.plan(gguf.read(tmp_path / "made" / name)) is None


def test_every_renaming_rule_is_met_by_the_twin(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is left out then makes the comparison of the names fail."""
    unmet: set[str] = set()
    rename = Draft.rename

    def recording(self: Draft, stems: dict[str, str], names: dict[str, str] | None = None) -> None:
        for old, new in {**stems, **(names or {})}.items():
            before = self.names
            one = {old: new}
            rename(self, one if old in stems else {}, one if old not in stems else {})
            if self.names == before:
                unmet.add(old)

    monkeypatch.setattr(Draft, "rename", recording)
    published.plan(gguf.read_structure(twins.published_projector or twins.published))
    assert unmet == set()
