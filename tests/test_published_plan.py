"""Published layouts: what is recognised, and that the derived file is what it should be, tensor by tensor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral import gguf, published
from corral.errors import ModelFileError
from corral.gguf.writer import copied_fields
from corral.published import arithmetic
from corral.published.draft import Draft
from corral.quantize import quantize
from tests.derived_files import DESCRIPTIONS, contents, derive, difference
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


def test_a_quantised_one_is_still_published_and_its_encoder_as_it_was(twins: Twins, tmp_path: Path) -> None:
    target = tmp_path / "quantised.gguf"
    quantize(twins.published, target, "Q8_0", threads=1, report=lambda step: None)
    before, after = published.read(twins.published), published.read(target)
    assert after.rules == before.rules
    assert after.text.architecture == before.text.architecture
    assert {tensor.type for tensor in after.text.tensors} > {"Q8_0"}
    if before.projector is not None:
        assert after.projector is not None
        assert [(one.name, one.type) for one in after.projector.tensors] == [
            (one.name, one.type) for one in before.projector.tensors
        ]


CHANGES = (
    *("put", "put_array", "default", "default_text", "rename_key", "rename_architecture", "drop"),
    *("hide", "rename", "widen", "replace", "add"),
)
"""What rules do to a draft."""


def test_each_rule_that_is_left_out_is_noticed(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, each step by which a family changes a draft is not taken: the twin is then another one."""
    steps: list[str] = []
    left_out, depth = -1, 0

    def step(name: str) -> Callable[..., None]:
        take = getattr(Draft, name)

        def taken(self: Draft, *arguments: Any, **more: Any) -> None:
            nonlocal depth
            if depth:  # part of another step
                take(self, *arguments, **more)
                return
            before = (dict(self.fields), list(self.recipes), self.architecture)
            number = len(steps)
            steps.append(f"{name}{arguments}")
            depth += 1
            try:
                take(self, *arguments, **more)
            finally:
                depth -= 1
            if number == left_out:
                self.fields, self.recipes, self.architecture = before
            if (self.fields, self.recipes, self.architecture) == before:
                steps[number] = ""  # it changes nothing here, or not any more

        return taken

    for name in CHANGES:
        monkeypatch.setattr(Draft, name, step(name))
    source = twins.published_projector or twins.published
    assert unlike(source, twins) == []
    whole = list(steps)
    unnoticed = []
    for left_out in [number for number, text in enumerate(whole) if text]:
        steps.clear()
        if unlike(source, twins) == []:
            unnoticed.append(whole[left_out])
    assert unnoticed == []


def unlike(source: Path, twins: Twins) -> list[str]:
    """What a plan has otherwise than the twin, without writing it; the sentence of a file that is refused."""
    try:
        file = gguf.read_structure(source)
        plan = published.plan(file)
        pairs = [] if plan is None else [(plan.text, twins.model), (plan.projector, twins.projector)]
        found = [] if plan is not None else ["there is no plan"]
        for part, path in pairs:
            if part is not None and path is not None:
                found += _unlike(part, gguf.read(path), file)
            elif path is not None and twins.published_projector is None:
                found.append(path.name)
    except ModelFileError as error:
        return [str(error)]
    return found


def _unlike(part: published.Part, wanted: gguf.GGUF, source: gguf.GGUF) -> list[str]:
    laid_out = part.layout()
    gguf.read_planned(laid_out.header, laid_out.size, source.path)
    fields = copied_fields(wanted)
    found = [key for key in fields if part.fields.get(key) != fields[key] and key not in DESCRIPTIONS]
    found += [key for key in part.fields if key not in fields and key not in source.metadata]
    with open(source.path, "rb") as opened:
        ours = {
            recipe.name: (recipe.tensor.type, recipe.tensor.shape, bytes(arithmetic.computed(recipe, opened)))
            for recipe in part.recipes
        }
    theirs = contents(wanted)
    return found + [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
