"""Terminal input and output: examples, colours, errors and prompts."""

from __future__ import annotations

import os
import textwrap
import typing as t

import click

from target_moengage_cohort.core.commands import suggest


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


def coloured(text: str, colour: str) -> str:
    """Return text in a colour, for `click.echo`, which removes it without a terminal."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, fg=colour)


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
    click.echo(f"{coloured('Error:', 'red')} {message}", err=True)


def caution(message: str) -> None:
    """Print a warning on standard error."""
    click.echo(f"{coloured('Warning:', 'yellow')} {message}", err=True)


def ask(question: str) -> None:
    """Ask for confirmation; abort the command if the answer is no."""
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            msg = "cannot prompt for confirmation (no terminal); use --yes"
            raise click.UsageError(msg) from None
        raise
