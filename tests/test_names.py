"""Model names, references and digests (spec cli §6, annex A.8; spec api §3, §12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import names
from corral.errors import BadRequest, InvalidName
from corral.names import Digest, Name, SplitPart, parse, parse_digest, parse_reference, parse_split_part


@pytest.mark.parametrize(
    ("text", "display", "path"),
    [
        ("llama3.2", "llama3.2:latest", "registry.ollama.ai/library/llama3.2/latest"),
        ("me/thing:v1", "me/thing:v1", "registry.ollama.ai/me/thing/v1"),
        ("hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF/Q4_K_M"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b/latest"),
        ("https://hf.co/Org/Repo", "hf.co/Org/Repo:latest", "hf.co/Org/Repo/latest"),
        ("  padded:x ", "padded:x", "registry.ollama.ai/library/padded/x"),
        ("library/x", "x:latest", "registry.ollama.ai/library/x/latest"),
        ("LIBRARY/x", "x:latest", "registry.ollama.ai/LIBRARY/x/latest"),
        ("REGISTRY.ollama.AI/library/x", "x:latest", "REGISTRY.ollama.AI/library/x/latest"),
        ("_x:_y", "_x:_y", "registry.ollama.ai/library/_x/_y"),
        ("x:1.5b-q4_K_M", "x:1.5b-q4_K_M", "registry.ollama.ai/library/x/1.5b-q4_K_M"),
    ],
)
def test_a_name_its_display_form_and_its_path(text: str, display: str, path: str) -> None:
    name = parse(text)
    assert str(name) == display
    assert str(name.path) == path
    assert parse(name.full) == name


@pytest.mark.parametrize(
    "text",
    [
        *("my.ns/thing", "-x", "x:", "/x", "a//b", "x y", "", "   ", ":x", "a/b/c/d", "x@sha256:abc", "x:y:z/", "x/"),
        *(".", "..", "../x", "a/../b", "x:..", "x:.", ".hidden", "é", "x\ny", "x\x00", "a\\b", "x:y/z:"),
        *("a" * 81, "n" * 81 + "/x", "x:" + "t" * 81, "h" * 351 + "/a/b", "-h/a/b", "h?/a/b"),
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName, match=r"^invalid model name$"):
        parse(text)


def test_parts_may_be_as_long_as_the_grammar_says() -> None:
    longest = f"{'h' * 350}/{'n' * 80}/{'m' * 80}:{'t' * 80}"
    assert parse(longest).full == longest


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_name_that_stays_in_the_store_or_none(text: str) -> None:
    try:
        name = parse(text)
    except InvalidName:
        return
    assert ".." not in name.path.parts
    assert not name.path.is_absolute()
    assert len(name.path.parts) == 4
    assert name.folded == parse(str(name)).folded


def test_names_are_the_same_ignoring_case() -> None:
    assert parse("HF.co/Org/Repo:TAG").folded == parse("hf.co/org/repo:tag").folded
    assert parse("A") != parse("a")


@pytest.mark.parametrize(
    ("text", "name", "cloud", "local"),
    [
        ("x", "x:latest", False, False),
        ("x:cloud", "x:latest", True, False),
        ("x:CLOUD", "x:latest", True, False),
        ("x:20b-cloud", "x:20b", True, False),
        ("x:local", "x:latest", False, True),
        ("x:20b:local", "x:20b", False, True),
        ("x:20b:cloud", "x:20b", True, False),
        ("host:5000/ns/x", "host:5000/ns/x:latest", False, False),
        ("host:50-cloud/ns/x:y", "host:50-cloud/ns/x:y", False, False),
    ],
)
def test_where_a_model_is_to_run(text: str, name: str, cloud: bool, local: bool) -> None:
    reference = parse_reference(text)
    assert (str(reference.name), reference.cloud, reference.local) == (name, cloud, local)


@pytest.mark.parametrize("text", ["x:cloud:local", "x:local:cloud", "x:20b-cloud:local", " x:cloud:cloud "])
def test_two_places_to_run_are_refused(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_reference(text)
    assert str(caught.value) == f'use either :local or :cloud, not both: "{text.strip()}"'


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize("text", [f"sha256:{HEX}", f"sha256-{HEX}"])
def test_a_digest_its_forms_and_file_name(text: str) -> None:
    digest = parse_digest(text)
    assert digest == Digest(HEX)
    assert (str(digest), digest.short, digest.filename) == (f"sha256:{HEX}", "0123456789ab", f"sha256-{HEX}")


@pytest.mark.parametrize(
    "text",
    [
        *("", HEX, f"sha256:{HEX.upper()}", f"sha256:{HEX[1:]}", f"sha256:{HEX}0", f"sha512:{HEX}", f"sha256_{HEX}"),
        *(f" sha256:{HEX}", f"sha256:{HEX}\n", f"sha256:{HEX}/..", "sha256:../../etc/passwd", f"sha256:{HEX[:-1]}١"),
    ],
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidName, match=r"^invalid digest format$"):
        parse_digest(text)


def test_no_digest_can_be_made_of_anything_else() -> None:
    for wrong in ("", HEX + "\n", HEX.upper(), "g" * 64):
        with pytest.raises(InvalidName):
            Digest(wrong)
    with pytest.raises(InvalidName):
        names.parse_digest(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidName):
        Name("h", "n", "..", "t")


@pytest.mark.parametrize(
    ("file_name", "part"),
    [
        ("a-00002-of-00003.gguf", SplitPart("a", 2, 3, ".gguf")),
        ("A-B-00001-OF-00010.GGUF", SplitPart("A-B", 1, 10, ".GGUF")),
        ("a-00002-of-00003", SplitPart("a", 2, 3, "")),
        ("a\n-00002-of-00003.gguf", SplitPart("a\n", 2, 3, ".gguf")),
        ("a.gguf", None),
        ("a-0002-of-0003.gguf", None),
        ("a-00002-of-00003.gguf.part", None),
    ],
)
def test_names_of_parts_of_a_split_file(file_name: str, part: SplitPart | None) -> None:
    assert parse_split_part(file_name) == part
    if part is not None:
        assert part.sibling(part.number).lower() == file_name.lower()
