"""`corral update`: the command that fits how this installation was made."""

import json
from pathlib import PurePath

import pytest

from corral.cli.commands.update import ways


def source(url: str, **more: object) -> str:
    return json.dumps({"url": url, **more})


@pytest.mark.parametrize(
    ("prefix", "installer", "direct_url", "line"),
    [
        ("/v", "pip", "", "/v/python -m pip install --upgrade corral"),
        ("/v", "uv", "", "uv pip install --python /v/python --upgrade corral"),
        ("/home/a/.local/pipx/venvs/corral", "pip", source("file:///src"), "pipx upgrade corral"),
        ("/home/a/.local/share/uv/tools/corral", "uv", "", "uv tool upgrade corral"),
        ("/v", "pip", source("file:///my%20src", dir_info={}), "/v/python -m pip install --upgrade '/my src'"),
        (
            "/v",
            "uv",
            source("file:///s", dir_info={"editable": True}),
            "uv pip install --python /v/python --editable /s",
        ),
        (
            "/v",
            "pip",
            source("https://example.org/corral", vcs_info={"vcs": "git", "commit_id": "0"}),
            "/v/python -m pip install --upgrade git+https://example.org/corral",
        ),
    ],
)
def test_the_way_it_was_installed(prefix: str, installer: str, direct_url: str, line: str) -> None:
    options = {"installer": installer, "source": direct_url}
    assert ways(PurePath(prefix), "/v/python", **options, is_image=False)[-1] == line
    assert "podman" in ways(PurePath(prefix), "/v/python", **options, is_image=True)[0]
