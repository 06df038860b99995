"""Every test module is in one ring: the slow one when it is listed there, else the quick one."""

import re
from pathlib import Path

import pytest

from tests import rings

SLOW_SIGNS = re.compile(r"^from tests\.(registry|hub|fault_proxy) |\b(real_server|minilm_folder)\b", re.MULTILINE)


def test_the_rings_are_made_of_the_modules_there_are() -> None:
    assert rings.SLOW.keys() - rings.modules().keys() == set()
    assert len(rings.quick()) + len(rings.SLOW) == len(rings.modules())


@pytest.mark.parametrize("file", rings.quick(), ids=lambda file: file.stem)
def test_a_quick_module_uses_neither_the_real_model_nor_a_registry(file: Path) -> None:
    found = [] if file.stem == Path(__file__).stem else SLOW_SIGNS.findall(file.read_text("utf-8"))
    assert found == []


def test_two_halves_are_all_of_it() -> None:
    assert sorted([*rings.engine(), *rings.rest()]) == sorted(rings.modules().values())
    assert set(rings.quick()) <= set(rings.rest())
