"""Terminal input and output: examples, colors, errors and prompts."""

from __future__ import annotations

import getpass
import os
import sys
import textwrap
import typing as t
import warnings

import click

from target_moengage_cohort.core.commands import suggest

TERMINAL = "/dev/tty"  # the terminal that controls the process, if there is one


def example(*lines: str) -> str:
    """Return the end of a command's help: an example to type, with its line breaks."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


def require_utf8(_context: click.Context, _parameter: click.Parameter, value: t.Any) -> t.Any:
    """Check names from the command line: bytes that are not UTF-8 arrive as lone surrogates."""
    try:
        "".join(value or ()).encode()  # one name, or several
    except UnicodeEncodeError:
        msg = "contains invalid characters"
        raise click.BadParameter(msg) from None
    return value


def colored(text: str, color: str) -> str:
    """Return text in a color, for `click.echo`, which removes it without a terminal."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, fg=color)


def wrap(text: str, *, first: str, indent: str, break_words: bool = True) -> str:
    """Wrap text to 80 columns, the first line after `first` and each further one after `indent`."""
    return textwrap.fill(
        text,
        width=80,
        initial_indent=first,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=break_words,  # False for words that a reader may copy
    )


def release_command(plan_id: str) -> str:
    """Return the command that delivers a withheld plan."""
    return suggest("confirm", "--withheld", plan_id)


def complain(message: str) -> None:
    """Print an error on standard error."""
    click.echo(f"{colored('Error:', 'red')} {message}", err=True)


def caution(message: str) -> None:
    """Print a warning on standard error."""
    click.echo(f"{colored('Warning:', 'yellow')} {message}", err=True)


def ask(question: str) -> None:
    """Ask for confirmation; abort the command if the answer is no."""
    # Meltano passes on standard error by the line, so a question there would not be seen.
    if _is_terminal(sys.stdin) and not _is_terminal(sys.stderr) and _ask_at_terminal(question):
        return
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as error:
        if not isinstance(error.__context__, EOFError):
            raise
        if not _is_terminal(sys.stdin) and _ask_at_terminal(question):
            return
        msg = "cannot prompt for confirmation (no terminal); use --yes"
        raise click.UsageError(msg) from None


def ask_hidden(question: str) -> str:
    """Ask for a text that is never shown; without a terminal, raise click's `UsageError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # that it would be shown
        try:
            answer = click.prompt(
                question, hide_input=True, default="", show_default=False, err=True
            )
        except getpass.GetPassWarning:
            msg = (
                "cannot hide the input of a prompt (no terminal); use FILE, or - for standard input"
            )
            raise click.UsageError(msg) from None
    return str(answer)


def _is_terminal(stream: t.TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _ask_at_terminal(question: str) -> bool:
    """Ask at the terminal itself, whatever the standard streams are; return whether there is one.

    Abort the command if the answer is no.
    """
    try:
        terminal = os.fdopen(os.open(TERMINAL, os.O_RDWR), "rb+", buffering=0)
    except OSError:
        return False
    with terminal:
        terminal.write(f"{question} [y/N]: ".encode(errors="replace"))
        if terminal.readline().strip().lower() not in {b"y", b"yes"}:
            raise click.Abort
    return True
