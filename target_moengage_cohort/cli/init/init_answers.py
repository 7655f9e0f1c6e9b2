"""What `init` is to set up: from options, the environment, `.env`, and questions for the rest."""

from __future__ import annotations

import os
import typing as t

import msgspec

from target_moengage_cohort import NAME
from target_moengage_cohort.cli.init.stream_answers import ask_streams, given_streams
from target_moengage_cohort.cli.init.warehouses import WAREHOUSES, Warehouse, warehouse_of
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.addresses import data_center
from target_moengage_cohort.settings.declared import ENVIRONMENT_PREFIX

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.cli.init.init_questions import Questions
    from target_moengage_cohort.cli.init.meltano_project import MeltanoProject
    from target_moengage_cohort.cli.init.warehouses import ProjectStream, TapVariable

_EMULATED = {"WORKSPACE_ID": "demo-workspace", "DATA_API_KEY": "demo-key", "DATA_CENTER": "01"}
_NO_ACCOUNT_NOTE = (
    "Without a MoEngage account, stop here, run moengage-cohort emulator --port 8025 in another\n"
    "terminal, and start again with --emulator http://127.0.0.1:8025"
)
_PARTNER_NOTE = (
    "The partner is a name for the sender of these cohorts. MoEngage keeps the cohorts of each\n"
    "partner apart, so choose one name and never change it."
)


class InitOptions(msgspec.Struct, frozen=True):
    """The options of the command."""

    warehouse: str | None = None
    workspace_id: str | None = None
    data_center: str | None = None
    partner: str | None = None
    emulator: str | None = None
    tap_settings: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()


class Answers(msgspec.Struct, frozen=True):
    """What to set up.

    Attributes:
        warehouse: ``None`` if the project has a loader and several taps.
        streams: The streams to map.
        variables: Those to add to `.env`.
        secrets: The names of the variables that are not to be shown.
        ignored: Options that are not used, because `.env` has another value.
    """

    warehouse: Warehouse | None
    streams: tuple[ProjectStream, ...]
    variables: dict[str, str]
    secrets: frozenset[str]
    ignored: tuple[str, ...]


class _Variables:
    """Collects the variables that `.env` lacks."""

    def __init__(self, there: Mapping[str, str], questions: Questions) -> None:
        self.added: dict[str, str] = {}
        self.secrets: set[str] = set()
        self.ignored: list[str] = []
        self.there, self._questions = there, questions

    def value(self, name: str) -> str | None:
        """Return the value that `.env` has or is to have."""
        return self.there.get(name) or self.added.get(name)

    def has(self, name: str, given: str | None, fallback: str | None = None) -> bool:
        """Take a value from `.env`, an option or the environment; return whether there is one."""
        if name in self.there:
            if not self.there[name]:
                msg = f".env has {name} without a value; set it there or delete the line"
                raise SettingsError("empty_variable", msg)
            if given not in {None, self.there[name]}:
                self.ignored.append(name)
            return True
        if value := given or os.environ.get(name) or fallback:
            self.added[name] = value
            return True
        return False

    def take(self, variable: TapVariable, given: str | None, how: str) -> None:
        """Take a variable of the tap, and ask for it if need be."""
        name = variable.name
        if variable.is_secret:
            self.secrets.add(name)
            how = f"{name} in the environment"
        if self.has(name, given):
            return
        if variable.unless is not None and self.value(variable.unless):
            return
        if variable.is_secret:
            self.added[name] = self._questions.ask_secret(variable.question, how)
        else:
            default = variable.default if variable.is_required else ""
            if value := self._questions.ask(variable.question, how, default=default):
                self.added[name] = value


def collect(project: MeltanoProject, options: InitOptions, questions: Questions) -> Answers:
    """Return what to set up; ask for what the project lacks.

    A project that has the loader gets further cohorts only, and those only by options.
    """
    has_loader = NAME in project.named("plugins", "loaders")
    taps = project.named("plugins", "extractors")
    own = [name for name, tap in taps.items() if "inherit_from" not in tap]
    warehouse = _warehouse(options, own, questions, is_needed=not has_loader)
    variables = _Variables(project.variables, questions)
    is_new_tap = warehouse is not None and warehouse.tap not in taps
    if not has_loader:
        _destination(options, variables, questions)
        variables.has(_variable("LEDGER_URI"), None, str(project.root / "ledger"))
    if warehouse is not None and is_new_tap:
        _tap_variables(warehouse, options.tap_settings, variables)
    streams = given_streams(options.streams, warehouse, questions)
    if not streams and not has_loader:
        streams = ask_streams(warehouse, questions)
    questions.end()
    secrets = frozenset(variables.secrets | {_variable("DATA_API_KEY")})
    return Answers(
        warehouse, tuple(streams), variables.added, secrets, tuple(sorted(variables.ignored))
    )


def _variable(setting: str) -> str:
    return ENVIRONMENT_PREFIX + setting


def _warehouse(
    options: InitOptions, taps: list[str], questions: Questions, *, is_needed: bool
) -> Warehouse | None:
    likely = taps[0] if len(taps) == 1 else None
    name = options.warehouse
    if name is None:
        if not is_needed:
            return warehouse_of(likely) if likely else None
        question = f"Warehouse: {', '.join(WAREHOUSES)}, or the name of a tap"
        name = questions.ask(question, "--warehouse", default=likely, convert=_checked_warehouse)
    return warehouse_of(_checked_warehouse(name)) if name else None


def _checked_warehouse(name: str) -> str:
    if warehouse_of(name) is None:
        msg = f"warehouse: must be {', '.join(WAREHOUSES)}, or the name of a tap, such as tap-mysql"
        raise SettingsError("invalid_value", msg)
    return name


def _destination(options: InitOptions, variables: _Variables, questions: Questions) -> None:
    """Take the destination's settings."""
    emulated = _EMULATED if options.emulator else {}
    name = _variable("WORKSPACE_ID")
    if not variables.has(name, options.workspace_id, emulated.get("WORKSPACE_ID")):
        questions.say(_NO_ACCOUNT_NOTE)
        variables.added[name] = questions.ask("MoEngage workspace ID", "--workspace-id")
    name = _variable("DATA_API_KEY")
    if not variables.has(name, None, emulated.get("DATA_API_KEY")):
        how = f"{name} in the environment"
        variables.added[name] = questions.ask_secret("Data API key (not shown)", how)
    name = _variable("DATA_CENTER")
    number = options.data_center and data_center(options.data_center)
    if not variables.has(name, number, emulated.get("DATA_CENTER")):
        question = "Data center, such as 01"
        value = questions.ask(question, "--data-center", convert=data_center)
        variables.added[name] = value
    name = _variable("PARTNER")
    if not variables.has(name, options.partner):
        questions.say(_PARTNER_NOTE)
        variables.added[name] = questions.ask("Partner", "--partner")
    variables.has(_variable("API_URL"), options.emulator)


def _tap_variables(warehouse: Warehouse, options: tuple[str, ...], variables: _Variables) -> None:
    """Take the tap's variables; an option names one without the tap's prefix."""
    prefix = warehouse.tap.replace("-", "_").upper() + "_"
    names = {each.name.removeprefix(prefix).lower(): each for each in warehouse.variables}
    given: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        variable = names.get(name.lower())
        if variable is None:
            msg = f"--tap-setting: unknown setting {name!r}; must be one of {', '.join(names)}"
            raise SettingsError("unknown_setting", msg)
        if variable.is_secret:
            msg = f"--tap-setting: {name} is secret; set {variable.name} in the environment"
            raise SettingsError("secret_argument", msg)
        given[variable.name] = value
    for name, variable in names.items():
        how = f"--tap-setting {name}=…"
        variables.take(variable, given.get(variable.name), how)
