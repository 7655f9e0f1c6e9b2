"""`moengage-cohort init`: sets up a Meltano project, new or existing, and tests what it can."""

from __future__ import annotations

import difflib
import os
import shlex
import typing as t
from functools import partial
from pathlib import Path

import click

from target_moengage_cohort import NAME, settings
from target_moengage_cohort.cli.check.setting_checks import Checks, marked, setting_checks
from target_moengage_cohort.cli.init.init_answers import InitOptions, collect
from target_moengage_cohort.cli.init.init_questions import Questions
from target_moengage_cohort.cli.init.meltano_project import ENV_FILE, MeltanoProject, write
from target_moengage_cohort.cli.init.project_changes import changes_of
from target_moengage_cohort.cli.init.project_parts import UTILITY, cohorts
from target_moengage_cohort.cli.init.tap_trial import NotTriedError, try_tap
from target_moengage_cohort.cli.session import DONE, FAILED, SessionTiming, explain
from target_moengage_cohort.cli.terminal import ask, complain, example, require_utf8
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.interrupts import raising_at_sigint
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.settings.declared import ENVIRONMENT_PREFIX, SETTING_NAMES

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.cli.init.init_answers import Answers
    from target_moengage_cohort.cli.init.meltano_project import FileChange

_PLACE = "@@ after line"
_MASK = "********"
_REQUIRED = ("workspace_id", "data_api_key", "data_center", "partner")
_text_option = partial(click.option, callback=require_utf8)


@click.command(
    epilog=example(
        "moengage-cohort init",
        "moengage-cohort init --stream 'public-vip cohort_id=vip cohort_name=VIP'",
    )
)
@_text_option("--warehouse", metavar="NAME", help="postgres, snowflake, bigquery, or a tap's name.")
@_text_option("--workspace-id", metavar="ID", help="Workspace ID of the MoEngage account.")
@_text_option("--data-center", metavar="NUMBER", help="Data center of the MoEngage account.")
@_text_option("--partner", metavar="NAME", help="Sender's name in MoEngage; never change it.")
@_text_option("--emulator", metavar="URL", help="Use an emulator and its credentials.")
@_text_option(
    "--tap-setting",
    "tap_settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting of the tap, such as host=localhost; secrets are taken from the environment.",
)
@_text_option(
    "--stream",
    "streams",
    multiple=True,
    metavar="'NAME KEY=VALUE …'",
    help="Stream and its mapping; replication_key= and table= are the tap's.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be written; write nothing.")
@click.option("--no-check", is_flag=True, help="Do not check the credentials and the tap.")
def init(*, dry_run: bool, no_check: bool, **options: t.Any) -> None:
    """Set up a Meltano project, new or existing.

    Asks for the warehouse, credentials and streams that no option gives. Checks them, and adds
    what is missing to meltano.yml, .env and .gitignore. Nothing that is there is changed, so the
    command can be repeated, and --stream adds a cohort later.

    The Data API key and passwords are never arguments: they are asked for, or taken from the
    variables TARGET_MOENGAGE_COHORT_DATA_API_KEY, TAP_POSTGRES_PASSWORD and so on.
    """
    context = click.get_current_context()
    timing = context.find_object(SessionTiming) or SessionTiming()
    if (umask := context.find_object(int)) is not None:
        os.umask(umask)  # the user's: only files with secrets are their owner's alone
    try:
        with raising_at_sigint():
            setup = _Setup(InitOptions(**options), timing, checks=not no_check)
            code = setup.show() if dry_run else setup.write()
    except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
        raise  # click's own
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - see `explain`
        code = explain(error, None)
    context.exit(code)


class _Setup:
    """One execution of the command, once all questions are answered and everything is valid."""

    def __init__(self, options: InitOptions, timing: SessionTiming, *, checks: bool) -> None:
        self._step, self._checks = timing.step, checks
        self._project = MeltanoProject(Path.cwd())
        questions = Questions()
        self._can_ask = questions.can_ask
        try:
            self._answers = collect(self._project, options, questions)
        except SettingsError as error:
            raise click.UsageError(str(error)) from None
        finally:
            questions.close()
        self._changes = changes_of(self._project, self._answers)
        self._is_new = NAME not in self._project.named("plugins", "loaders")

    def show(self) -> int:
        """Show what would be written, without secrets."""
        code = self._check()
        for change in self._changes.files if code == DONE else ():
            verb = "create" if change.before is None else "add to"
            click.echo(f"\nWould {verb} {change.path}:\n")
            click.echo("".join(_shown(change, self._answers)), nl=False)
        if code == DONE:
            code = self._summarize()
            click.echo("\nNothing was written, and the tap was not tried (--dry-run).")
        return code

    def write(self) -> int:
        """Write the files, try the tap, and suggest what to do next."""
        if (code := self._check()) != DONE:
            if not self._can_ask:
                complain("nothing was written; fix this, or use --no-check")
                return code
            ask("Write the files anyway, so that you can fix .env?")
        for change in self._changes.files:
            write(change, self._step)
            verb = "Created" if change.before is None else "Added to"
            shown = _shown(change, self._answers)
            lines = sum(not line.startswith(_PLACE) for line in shown)
            click.echo(f"{verb} {change.path} ({format_count(lines, 'line')})")
        codes = [code, self._summarize(), self._try_tap()]
        click.echo("\n".join(["", "Next:", *(f"  {each}" for each in self._next())]))
        return max(codes)

    def _check(self) -> int:
        """Validate the settings, and check the credentials if they are known."""
        raw, checks = self._raw(), Checks()
        is_known = set(_REQUIRED) <= set(raw)  # else they are where only Meltano looks
        config = settings.load(dict.fromkeys(_REQUIRED, "01") | raw)
        if self._checks and is_known:
            for name, work, text in setting_checks(config.settings):
                checks.run(name, work, text)
        else:
            reason = "they are not all in .env" if self._checks else "--no-check is set"
            click.echo(marked("note", f"credentials: not tried, because {reason}"))
        return _reported(checks)

    def _raw(self) -> dict[str, t.Any]:
        """Return the configuration of a run, as far as it can be known."""
        loader = self._project.named("plugins", "loaders").get(NAME, {})
        config = loader.get("config") or {}
        own = {key: value for key, value in config.items() if "$" not in str(value)}
        if mapped := cohorts(self._answers.streams) | (own.get("cohorts") or {}):
            own["cohorts"] = mapped
        variables = self._answers.variables | self._project.variables | os.environ
        names = {name: ENVIRONMENT_PREFIX + name.upper() for name in SETTING_NAMES - {"cohorts"}}
        found = {name: variables[each] for name, each in names.items() if variables.get(each)}
        return own | found

    def _summarize(self) -> int:
        """Show what was left alone, and what a person has to do; fail if a block has no place."""
        changes = self._changes
        if not changes.files:
            click.echo("Nothing to add.")
        if changes.kept:
            click.echo(f"Left as it is: {', '.join(changes.kept)}")
        for each in changes.advice:
            text, *lines = each.splitlines()
            click.echo("\n".join([marked("note", text), *lines]))
        for block in changes.to_paste:
            place = ".".join(block.path)
            complain(f"meltano.yml: cannot insert at {place}; paste this there:\n{block.text}")
        return FAILED if changes.to_paste else DONE

    def _try_tap(self) -> int:
        warehouse = self._answers.warehouse
        if warehouse is None or not self._checks:
            return DONE
        plugin = self._project.named("plugins", "extractors").get(warehouse.tap)
        streams = [each.name for each in self._answers.streams]
        checks = Checks()
        try:
            checks.run("tap", lambda: try_tap(self._project.root, warehouse.tap, plugin, streams))
        except NotTriedError as error:
            click.echo(marked("note", f"tap: not tried, because {error}"))
        return _reported(checks)

    def _next(self) -> Iterator[str]:
        """Yield the commands to type next."""
        warehouse, root = self._answers.warehouse, self._project.root
        if root != Path.cwd():
            yield f"cd {shlex.quote(str(root))}"
        taps = MeltanoProject(root).named("plugins", "extractors")
        if warehouse is not None and warehouse.tap not in taps:
            yield f"meltano add {warehouse.tap}"
        yield "meltano install"
        if warehouse is not None:
            tap = self._changes.tap
            yield f"meltano invoke {tap} --discover > catalog.json"
            yield f"meltano invoke {UTILITY} check --config=ENV --columns catalog.json"
            variable = f"{ENVIRONMENT_PREFIX}DRY_RUN=true"
            refresh = "" if self._is_new else " --refresh-catalog"  # for what the tap is to read
            yield f"{variable} meltano run{refresh} {tap} {NAME}"
            yield f"meltano run {tap} {NAME}"


def _reported(checks: Checks) -> int:
    """Show the results of checks; return the exit code."""
    for each in checks.done:
        click.echo(marked("ok" if each.ok else "FAIL", f"{each.name}: {each.message}"))
    for fault in checks.faults:
        complain(str(fault))
    return FAILED if checks.faults else DONE


def _shown(change: FileChange, answers: Answers) -> Iterator[str]:
    """Yield the added lines of a file, without secrets and without lines that are there."""
    if change.path.name == ENV_FILE:  # what is there may be secret, and a value have many lines
        for name, value in answers.variables.items():
            yield f"{name}={_MASK if name in answers.secrets else value}\n"
        return
    before, after = (text.splitlines(keepends=True) for text in (change.before or "", change.after))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, start, _, first, last in matcher.get_opcodes():
        if tag != "equal":
            if start:
                yield f"{_PLACE} {start} @@\n"
            yield from after[first:last]
