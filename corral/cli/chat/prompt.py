"""The `>>> ` prompt: a text is typed, edited and finished. Source: spec cli §5.1, §5.2, §5.5.

prompt_toolkit edits the text; what it calls a buffer is the whole text, all lines of it. Knows no model and no command.
"""

import select
import sys

from prompt_toolkit import PromptSession
from prompt_toolkit.application import in_terminal
from prompt_toolkit.document import Document
from prompt_toolkit.filters import is_searching
from prompt_toolkit.formatted_text import AnyFormattedText, FormattedText
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout.processors import AfterInput
from prompt_toolkit.output.plain_text import PlainTextOutput

from corral.cli.chat import keyboard, typed
from corral.cli.chat.editor import edited
from corral.cli.chat.history import LineHistory
from corral.cli.display import terminal
from corral.errors import CorralError

FIRST, FURTHER = ">>> ", "... "
"""What stands before the first line of a text, and before each further one."""
HINT = "Send a message (/? for help)"
HINT_FURTHER = "Press Enter to send"
HINT_BLOCK = f"End with {typed.BLOCK} to send"
TAB = " " * 8


class Prompt:
    """Reads one text after another. What was typed too early stays, to be edited."""

    def __init__(self, history: LineHistory, editor: str) -> None:
        """`editor` is the command that Ctrl-G opens the text with."""
        self._editor = editor
        self._session: PromptSession[str] = PromptSession(
            history=history,
            key_bindings=self._keys(),
            prompt_continuation=_continuation,
            placeholder=lambda: self._hint(HINT),
            input_processors=[AfterInput(self._hint_further)],
            enable_suspend=True,
            output=None if terminal.can_draw(sys.stdout) else PlainTextOutput(sys.stdout),
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing was typed when the prompt was left."""
        return not self._session.default_buffer.text

    def read(self) -> str:
        """The next text. `KeyboardInterrupt` for Ctrl-C, `EOFError` for Ctrl-D where nothing is typed."""
        return self._session.prompt(FIRST)

    def keep_typed(self) -> None:
        """Has the next prompt begin with what was typed until now. Enter becomes a new line: nothing is sent unseen."""
        if not keyboard.is_posix():
            return
        source = self._session.input
        keys = get_typeahead(source)
        while _is_waiting() and not source.closed:
            keys += source.read_keys()
        keys = [KeyPress(Keys.ControlJ) if key.key == Keys.ControlM else key for key in keys]
        while keys and keys[-1].key == Keys.ControlJ:
            keys.pop()
        store_typeahead(source, keys)

    def _keys(self) -> KeyBindings:
        """The keys that do something else than prompt_toolkit's own."""
        bindings = KeyBindings()

        @bindings.add("enter", filter=~is_searching)
        def _(event: KeyPressEvent) -> None:
            if typed.is_open(event.current_buffer.text):
                event.current_buffer.insert_text("\n")
            else:
                event.current_buffer.validate_and_handle()

        @bindings.add("c-j", filter=~is_searching)
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @bindings.add("tab")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text(TAB)

        @bindings.add("c-g", filter=~is_searching)
        def _(event: KeyPressEvent) -> None:
            event.app.create_background_task(self._edit())

        return bindings

    async def _edit(self) -> None:
        """Opens the text in the editor, in the terminal as other programs find it."""
        buffer = self._session.default_buffer
        async with in_terminal():
            try:
                text = edited(buffer.text, self._editor)
            except CorralError as error:
                print(f"error: {error}", file=sys.stderr)
                return
        buffer.document = Document(text, len(text))

    def _hint_further(self) -> AnyFormattedText:
        """What is to be done on a further line on which nothing is typed yet."""
        document = self._session.default_buffer.document
        if not document.is_cursor_at_the_end or document.line_count == 1 or document.current_line:
            return []
        return self._hint(HINT_BLOCK if typed.is_open(document.text) else HINT_FURTHER)

    def _hint(self, text: str) -> FormattedText:
        """Grey, and not left on the screen when the prompt is left."""
        return FormattedText([] if self._session.app.is_done else [("fg:ansibrightblack", text)])


def _is_waiting() -> bool:
    """Whether something was typed that was not read yet; never where a terminal cannot be asked, as on Windows."""
    try:
        return bool(select.select([sys.stdin], [], [], 0)[0])
    except OSError:
        return False


def _continuation(width: int, line: int, wrapped: int) -> AnyFormattedText:
    return " " * len(FURTHER) if wrapped else FURTHER
