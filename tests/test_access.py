"""What a key allows, as tables: scopes, models, limits; and the file of keys."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from corral import config, names
from corral.access import own_key, patterns
from corral.access.audit import AuditLog, Entry
from corral.access.caller import Caller
from corral.access.file import KeyFile
from corral.access.keys import Key, Wish, find, make
from corral.access.limits import Bucket, Limits
from corral.access.scopes import SCOPES, Scope
from corral.config.address import parse_address
from corral.errors import BadRequest, ConfigError, ModelForbidden, NotFound, ScopeMissing


def a_key(scope: Scope = "infer", **more: object) -> Key:
    key, _ = make(Wish(name="k", scope=scope))
    return msgspec.structs.replace(key, **more)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("needed", SCOPES)
def test_each_scope_holds_those_before_it(scope: Scope, needed: Scope) -> None:
    caller = Caller(a_key(scope))
    if SCOPES.index(needed) <= SCOPES.index(scope):
        caller.require(needed)
    else:
        with pytest.raises(ScopeMissing, match=f'"{needed}", and yours has "{scope}"'):
            caller.require(needed)


def test_without_a_key_everything_is_allowed() -> None:
    caller = Caller()
    caller.require("admin", "unload")
    caller.require_model(names.parse("any"))
    assert (caller.owner, caller.action, caller.models) == ("", "unload", ("any:latest",))


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("llama3.2", "llama3.2", True),
        ("llama3.2", "llama3.2:latest", True),
        ("llama3.2", "LLAMA3.2:Latest", True),
        ("Llama3.2", "registry.ollama.ai/library/llama3.2:latest", True),
        ("llama3.2", "https://registry.ollama.ai/library/llama3.2", True),
        ("llama3.2", "llama3.2:1b", False),
        ("llama3.2", "llama3.22", False),
        ("llama3.2:*", "llama3.2:1b", True),
        ("llama*", "llama3.2:1b", True),
        ("llama*:1b", "llama3.2:3b", False),
        ("llama*", "me/llama3", False),
        ("llama*", "hf.co/library/llama3", False),
        ("me/*", "me/llama3:q4", True),
        ("me/*", "you/llama3", False),
        ("*/llama3", "me/llama3", True),
        ("*", "hf.co/me/llama3:q4", True),
        ("hf.co/*/*", "hf.co/me/llama3:q4", True),
        ("hf.co/*/*", "hf.cowards/me/llama3:q4", False),
        ("localhost:5000/a/b*", "localhost:5000/a/bee", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "acb", False),
        ("a*a", "a", False),
        ("*a*", "bab", True),
    ],
)
def test_models_that_a_pattern_allows(pattern: str, name: str, fits: bool) -> None:
    patterns.check(pattern)
    caller = Caller(a_key(models=("other", pattern)))
    assert caller.may_use(names.parse(name)) is fits
    if not fits:
        with pytest.raises(ModelForbidden):
            caller.require_model(names.parse(name))


@pytest.mark.parametrize("pattern", ["", "a b", "a//b", "a/b/c/d", "hf.co/*", "..", "a?", "x" * 500, "a\nb"])
def test_patterns_that_fit_no_name_are_refused(pattern: str) -> None:
    with pytest.raises(BadRequest):
        make(Wish(name="k", models=(pattern,)))


def test_a_pattern_of_many_wildcards_takes_no_time() -> None:
    assert not patterns.allows(["*a" * 39 + "b"], names.parse("a" * 80))


@pytest.mark.parametrize("name", ["", " a", "a" * 65, "a\x1b[31m", "a\nb", "-a"])
def test_names_that_no_key_may_have(name: str) -> None:
    with pytest.raises(BadRequest, match="printable"):
        make(Wish(name=name))


@pytest.mark.parametrize("wish", [Wish(name="k", scope="root"), Wish(name="k", tokens_per_minute=-1)])
def test_wishes_that_cannot_be_granted(wish: Wish) -> None:
    with pytest.raises(BadRequest):
        make(wish)


def test_a_secret_is_found_and_nothing_else_is() -> None:
    (one, secret), (other, _) = make(Wish(name="one")), make(Wish(name="other"))
    assert find([one, other], secret.encode()) == one
    for wrong in (b"", secret[:-1].encode(), secret.upper().encode(), one.id.encode(), one.sha256.encode(), b"\xff"):
        assert find([one, other], wrong) is None
    assert len(secret) > 43
    assert secret not in msgspec.json.encode([one, other]).decode()


def test_a_bucket_is_refilled_evenly_and_may_go_below_nothing() -> None:
    bucket = Bucket(60, 0.0)
    for _ in range(60):
        assert bucket.wait(0.0) == 0
        bucket.take(1, 0.0)
    assert bucket.wait(0.0) == 1
    assert bucket.wait(1.0) == 0
    bucket.take(121, 1.0)
    assert bucket.wait(1.0) == 121
    assert bucket.wait(10_000.0) == 0
    bucket.take(60, 10_000.0)  # no more than a minute's worth has been saved up
    assert bucket.wait(10_000.0) == 1


def test_limits_of_requests_and_of_tokens() -> None:
    now = 0.0
    limits = Limits(lambda: now)
    key = a_key(requests_per_minute=2, tokens_per_minute=100)
    assert [limits.admit(key), limits.admit(key), limits.admit(key)] == [0, 0, 30]
    now = 60.0
    limits.spend(key, 150)  # counted when an answer has ended, so it may be more than there was
    assert limits.admit(key) == pytest.approx(30.6)
    assert limits.admit(a_key(id="00000000")) == 0
    now = 91.0
    assert limits.admit(key) == 0
    raised = msgspec.structs.replace(key, requests_per_minute=1000, tokens_per_minute=1000)
    assert limits.admit(raised) == 0


def test_the_file_is_private_and_holds_no_secret(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    assert (file.read(), file.stamp()) == ((), None)
    key, secret = file.add(Wish(name="team", scope="manage", models=("llama*",), requests_per_minute=9))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert secret not in file.path.read_text()
    assert KeyFile(tmp_path).read() == (key,)
    with pytest.raises(BadRequest, match='a key "team" already'):
        file.add(Wish(name="team"))
    with pytest.raises(BadRequest, match="already"):
        file.add(Wish(name=key.id))
    with pytest.raises(NotFound):
        file.revoke("nobody")
    assert file.revoke(key.id) == key
    assert file.read() == ()


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: KeyFile(tmp_path).add(Wish(name=f"k{number}")), range(24)))
    assert len(KeyFile(tmp_path).read()) == 24


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{"id": "x"}]}',
        '{"version": 1, "keys": [], "more": 1}',
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_file_that_is_no_list_of_keys_is_refused(tmp_path: Path, text: str) -> None:
    file = KeyFile(tmp_path)
    file.path.write_text(text, "latin-1")
    file.path.chmod(0o600)
    with pytest.raises(ConfigError, match="cannot be used"):
        file.read()


@pytest.mark.parametrize("change", [{"scope": "root"}, {"sha256": "00"}, {"name": "a\nb"}, {"models": ["a b"]}])
def test_a_key_that_may_not_be_makes_the_file_unusable(tmp_path: Path, change: dict[str, object]) -> None:
    file = KeyFile(tmp_path)
    file.add(Wish(name="k"))
    found = json.loads(file.path.read_text())
    found["keys"][0] |= change
    file.path.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match="cannot be used"):
        file.read()


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    file.add(Wish(name="k"))
    file.path.chmod(0o620)
    with pytest.raises(ConfigError, match="chmod 600"):
        file.read()


@pytest.mark.parametrize(
    ("address", "is_this_machine"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", True),
        ("[::]:1", True),
        (":1234", True),
        ("192.0.2.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_the_own_key_goes_to_this_machine_only(tmp_path: Path, address: str, is_this_machine: bool) -> None:
    settings = replace(config.Config(), home=tmp_path, host=parse_address(address))
    own_key.write(tmp_path, "secret")
    assert stat.S_IMODE(own_key.path_in(tmp_path).stat().st_mode) == 0o600
    assert own_key.for_server(settings) == ("secret" if is_this_machine else "")


def test_the_own_key_is_forgotten_with_the_key_it_is_of(tmp_path: Path) -> None:
    (one, secret), (other, _) = make(Wish(name="one")), make(Wish(name="other"))
    own_key.write(tmp_path, secret)
    own_key.forget(tmp_path, other.sha256)
    assert own_key.read(tmp_path) == secret
    own_key.forget(tmp_path, one.sha256)
    assert own_key.read(tmp_path) == ""


def test_the_audit_log_is_private_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.access.audit.MAX_BYTES", 2000)
    audit = AuditLog(tmp_path / "state")
    for number in range(100):
        audit.add(Entry(who="local", address="127.0.0.1", action=f"a{number}", outcome="done"))
    audit.close()
    files = sorted((tmp_path / "state").iterdir())
    assert [file.name for file in files] == ["audit.log", *(f"audit.log.{number}" for number in range(1, 5))]
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_size <= 2000 for file in files)
    assert json.loads(audit.path.read_text().splitlines()[-1])["action"] == "a99"
