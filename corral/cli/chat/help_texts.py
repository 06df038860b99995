"""The pages of help in a conversation. Source: spec cli §5.4."""

import sys
import textwrap
from collections.abc import Sequence

import click

from corral.cli.chat.typed import BLOCK
from corral.cli.display import terminal

Rows = Sequence[tuple[str, str]]

COMMANDS: Rows = (
    ("/set", "Set session variables"),
    ("/show", "Show model information"),
    ("/list [prefix]", "List models"),
    ("/load <model>", "Load a session or model"),
    ("/save <model>", "Save your current session"),
    ("/clear", "Clear session context"),
    ("/bye", "Exit"),
    ("/?, /help", "Help for a command"),
    ("/? shortcuts", "Help for keyboard shortcuts"),
)
SET: Rows = (
    ("/set parameter ...", "Set a parameter"),
    ("/set system <string>", "Set system message"),
    ("/set history", "Enable history"),
    ("/set nohistory", "Disable history"),
    ("/set wordwrap", "Enable wordwrap"),
    ("/set nowordwrap", "Disable wordwrap"),
    ("/set markdown", "Show headings, lists, tables and code formatted"),
    ("/set nomarkdown", "Show answers as they were written"),
    ("/set format json", "Enable JSON mode"),
    ("/set noformat", "Disable formatting"),
    ("/set verbose", "Show LLM stats"),
    ("/set quiet", "Disable LLM stats"),
    ("/set think [level]", "Have the model think first: high, medium, low, max"),
    ("/set nothink", "Have the model answer at once"),
)
SHOW: Rows = (
    ("/show info", "Show details for this model"),
    ("/show license", "Show model license"),
    ("/show modelfile", "Show Modelfile for this model"),
    ("/show parameters", "Show parameters for this model"),
    ("/show system", "Show system message"),
    ("/show template", "Show prompt template"),
)
SHORTCUTS: Rows = (
    ("Ctrl + a", "Move to the beginning of the line (Home)"),
    ("Ctrl + e", "Move to the end of the line (End)"),
    ("Alt + b", "Move back (left) one word"),
    ("Alt + f", "Move forward (right) one word"),
    ("Ctrl + k", "Delete what follows the cursor"),
    ("Ctrl + u", "Delete what precedes the cursor"),
    ("Ctrl + w", "Delete the word before the cursor"),
    ("Ctrl + j", "Begin a new line of the message"),
    ("Ctrl + l", "Clear the screen"),
    ("Ctrl + g", "Write the message in an editor"),
    ("Ctrl + c", "Stop the model's answer, or clear the line"),
    ("Ctrl + d", "Exit, where nothing is typed (/bye)"),
)
PARAMETERS: Rows = (
    ("/set parameter seed <int>", "Seed of the random choices"),
    ("/set parameter num_predict <int>", "Most tokens of an answer"),
    ("/set parameter top_k <int>", "Choose among the k likeliest tokens"),
    ("/set parameter top_p <float>", "Choose among the likeliest tokens, up to a probability of p together"),
    ("/set parameter min_p <float>", "Leave out tokens less than p times as likely as the best"),
    ("/set parameter num_ctx <int>", "Length of the context in tokens"),
    ("/set parameter temperature <float>", "How freely tokens are chosen"),
    ("/set parameter repeat_penalty <float>", "How much repeated tokens are avoided"),
    ("/set parameter repeat_last_n <int>", "How many tokens back repetition counts"),
    ("/set parameter num_gpu <int>", "How many layers are computed on the GPU"),
    ("/set parameter stop <string> ...", "Texts that end an answer"),
)
BESIDE = 20
"""Columns that descriptions need; where a window has fewer, they stand below."""


def page(topic: str, width: int, *, sees_or_hears: bool = False) -> str:
    """The page about a topic, for a window so many columns wide; the first page for a topic that has none."""
    match topic:
        case "set":
            return _listing("Available Commands:", SET, width)
        case "show":
            return _listing("Available Commands:", SHOW, width)
        case "parameter" | "parameters":
            return _listing("Available Parameters:", PARAMETERS, width)
        case "shortcut" | "shortcuts":
            return _listing("Available keyboard shortcuts:", SHORTCUTS, width)
    hints = [f"Use {BLOCK} to begin a multi-line message."]
    if sees_or_hears:
        hints.append("Use /path/to/file to include .jpg, .png, .webp images, or .wav audio files.")
    return "\n".join([_listing("Available Commands:", COMMANDS, width), *hints, ""])


def _listing(heading: str, rows: Rows, width: int) -> str:
    """Two columns, the second two blanks after the longest entry of the first."""
    column = max(len(left) for left, _ in rows) + 4
    lines = [heading]
    for left, right in rows:
        if width - column >= BESIDE:
            first, *further = textwrap.wrap(right, width - column)
            lines.append(f"  {left}".ljust(column) + first)
            lines += [" " * column + more for more in further]
        else:
            lines += [f"  {left}", *textwrap.wrap(right, width, initial_indent="      ", subsequent_indent="      ")]
    return "\n".join([*lines, ""])


def show(topic: str = "", *, sees_or_hears: bool = False) -> None:
    """Prints a page on standard error, and a blank line."""
    width = terminal.size(sys.stderr)[0]
    click.echo(page(topic, width, sees_or_hears=sees_or_hears), err=True)
