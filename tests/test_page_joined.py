"""The page's modules as one file: what comes first, what names become, and forms that are refused."""

import pytest

from corral.server.page.joined import joined

SOURCES = {
    "main.js": (
        'import { say as told, loud } from "./chat/words.js";\nimport * as tree from "./tree.js";\n'
        'const later = () => import("./late/view.js");\nawait later();\n'
    ),
    "chat/words.js": 'import * as tree from "../tree.js";\nexport const say = () => tree.top;\nexport class loud {}\n',
    "tree.js": "export const top = 1;\nexport async function* lines() {}\nconst mine = `import of 'things'`;\n",
    "late/view.js": 'import { loud } from "../chat/words.js";\nexport async function show() {}\n',
}


def test_each_module_comes_after_those_it_imports_and_gives_what_it_exports() -> None:
    text = joined(SOURCES)
    places = [text.index(f"const ${name} =") for name in ("tree", "chat_words", "late_view", "main")]
    assert places == sorted(places)
    for line in (
        "const { say: told, loud } = $chat_words;",
        "const tree = $tree;",
        "const later = () => Promise.resolve($late_view);",
        "return { say, loud };",
        "return { top, lines };",
        "const $main = await (async () => {",
        "const $tree = (() => {",
    ):
        assert line in text
    assert "export" not in text
    assert 'from "' not in text


@pytest.mark.parametrize(
    "line",
    [
        "export default 1;",
        "export { a };",
        "export let a = 1;",
        'import a from "./tree.js";',
        'import "./tree.js";',
        'import { a } from "elsewhere";',
        "const a = () => import(name);",
        'import {\n  a,\n} from "elsewhere";',
    ],
)
def test_a_form_that_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r'^"other.js" has a form of import or export that is not known: '):
        joined({**SOURCES, "other.js": f"{line}\n"})


def test_modules_that_need_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        joined({"a.js": 'import * as b from "./b.js";\n', "b.js": 'import * as a from "./a.js";\n'})


def test_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r'"gone.js"'):
        joined({"a.js": 'import * as b from "./gone.js";\n'})
