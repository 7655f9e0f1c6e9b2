"""What `init` adds to a project: the parts that it lacks, and nothing in place of what is there."""

from __future__ import annotations

import re
import typing as t

import msgspec
import yaml

from target_moengage_cohort import NAME
from target_moengage_cohort.cli.init import project_parts as parts
from target_moengage_cohort.cli.init.meltano_project import (
    ENV_FILE,
    PROJECT_FILE,
    FileChange,
    MeltanoProject,
    items_at,
)
from target_moengage_cohort.cli.init.warehouses import tap_keys
from target_moengage_cohort.cli.init.yaml_insertion import Block, NoPlaceError, insert
from target_moengage_cohort.settings.about import json_schema
from target_moengage_cohort.settings.forms import OBJECTS

if t.TYPE_CHECKING:
    from target_moengage_cohort.cli.init.init_answers import Answers
    from target_moengage_cohort.cli.init.warehouses import Warehouse

_EXTRACTORS, _LOADERS = ("plugins", "extractors"), ("plugins", "loaders")
_UTILITIES = ("plugins", "utilities")
_HOW_TO_ADD = "moengage-cohort init --stream 'STREAM cohort_id=ID cohort_name=NAME'"


class ProjectChanges(msgspec.Struct, frozen=True):
    """The changes of a project's files.

    Attributes:
        files: In the order in which to write them: a process that is killed in between leaves a
            project to which the next one adds the rest.
        tap: The extractor that reads the streams; ``None`` if no warehouse is known.
        added: The parts that `meltano.yml` gets.
        kept: What is there already and stays as it is.
        advice: What a person is to look at.
        to_paste: Blocks that cannot be inserted.
    """

    files: list[FileChange]
    tap: str | None
    added: list[str]
    kept: list[str]
    advice: list[str]
    to_paste: list[Block]


def changes_of(project: MeltanoProject, answers: Answers) -> ProjectChanges:
    """Return what a project lacks."""
    growth = _Growth(project, answers)
    growth.add_all()
    yml = FileChange(project.root / PROJECT_FILE, project.text, growth.text)
    env = project.grown_env(answers.variables)
    ledger = answers.variables.get("TARGET_MOENGAGE_COHORT_LEDGER_URI")
    names = [ENV_FILE, ".meltano/"]
    names += ["ledger/"] if ledger == str(project.root / "ledger") else []
    has_secrets = bool(answers.variables)
    ignore = [project.grown_ignore(names)] if has_secrets else []
    files = [each for each in (*ignore, env, yml) if each.after != (each.before or "")]
    kept = [*growth.kept, *(f"{name} in {ENV_FILE}" for name in answers.ignored)]
    return ProjectChanges(files, growth.tap, growth.added, kept, growth.advice, growth.to_paste)


def _reading_tap(project: MeltanoProject, warehouse: Warehouse) -> str:
    """Return the name of the extractor that reads the streams of cohorts.

    A tap that other loaders use may select other streams, with which a run would fail. The cohorts
    get a variant of it.
    """
    tap, variant = warehouse.tap, f"{warehouse.tap}-cohorts"
    there = project.named(*_EXTRACTORS)
    if variant in there:
        return variant
    is_ours = project.reads_only_for(NAME) and project.is_own(*_EXTRACTORS, name=tap)
    return variant if tap in there and warehouse.definition and not is_ours else tap


class _Growth:
    """Inserts parts into the text of a `meltano.yml`, one after the other."""

    def __init__(self, project: MeltanoProject, answers: Answers) -> None:
        self._project, self._answers = project, answers
        warehouse = answers.warehouse
        name = warehouse.name if warehouse else "moengage"
        self.tap = _reading_tap(project, warehouse) if warehouse else None
        self.text = parts.new_project(name) if project.text is None else project.text
        self.added: list[str] = []
        self.kept: list[str] = []
        self.advice: list[str] = []
        self.to_paste: list[Block] = []
        self._mirrors = [each.name for each in answers.streams if each.is_snapshot]

    def add_all(self) -> None:
        """Add each part that is missing."""
        loader = self._project.named(*_LOADERS).get(NAME)
        anchors = _free_anchors(self.text)
        self._add_tap()
        if loader is None:
            text = parts.loader_part(self._answers.streams, anchors)
            self._add(NAME, Block(_LOADERS, text))
        else:
            self._keep(NAME)
            self._add_cohorts(loader, _LOADERS, NAME)
            if not self._answers.streams:
                self.advice.append(f"to add a cohort: {_HOW_TO_ADD}")
        utility = self._project.named(*_UTILITIES).get(parts.UTILITY)
        if utility is None:
            config = None if loader is None else self._shared_config(loader)
            text = parts.utility_part(self._mirrors, config, anchors)
            self._add(parts.UTILITY, Block(_UTILITIES, text))
        else:
            self._keep(parts.UTILITY)
            self._add_cohorts(utility, _UTILITIES, parts.UTILITY)
        self._add_jobs(has_confirm=bool(self._mirrors) and utility is None)

    def _add(self, what: str, block: Block) -> None:
        try:
            self.text = insert(self.text, block)
            self.added.append(what)
        except NoPlaceError:
            self.to_paste.append(block)

    def _keep(self, what: str) -> None:
        self.kept.append(f"{what} in {PROJECT_FILE}")

    def _add_tap(self) -> None:
        warehouse, streams, reader = self._answers.warehouse, self._answers.streams, self.tap
        if warehouse is None or reader is None:
            return
        tap = warehouse.tap
        there = self._project.named(*_EXTRACTORS)
        if tap in there:
            self._keep(tap)
        if reader not in there and warehouse.definition:
            if reader == tap:
                self._add(tap, Block(_EXTRACTORS, parts.tap_part(warehouse, streams)))
            elif streams:
                variant = parts.tap_variant(reader, warehouse, streams)
                self._add(reader, Block(_EXTRACTORS, variant))
        elif self._is_for_cohorts(reader, tap):
            path = (*_EXTRACTORS, reader)
            self._grow(path, tap_keys(warehouse, streams), _content(self.text, _EXTRACTORS, reader))
        elif streams:
            keys = parts.to_yaml(tap_keys(warehouse, streams), "  ")
            self.advice.append(f"check that {tap} reads the streams in this way:\n{keys}")

    def _is_for_cohorts(self, reader: str, tap: str) -> bool:
        is_shared = reader == tap and not self._project.reads_only_for(NAME)
        return not is_shared and self._project.is_own(*_EXTRACTORS, name=reader)

    def _grow(self, path: tuple[str, ...], wanted: dict[str, t.Any], there: t.Any) -> None:
        """Add streams to the lists of a tap, and to its metadata.

        A list that is missing stands for all streams, tables or schemas, and is not begun.
        """
        for key, value in wanted.items():
            place, former = (*path, key), there.get(key) if isinstance(there, dict) else None
            if isinstance(value, list) and isinstance(former, list):
                if new := [each for each in value if each not in former]:
                    self._add(".".join(place[2:]), Block(place, parts.to_yaml(new)))
            elif key == "metadata":
                if new_keys := {key: value[key] for key in value if key not in (former or {})}:
                    self._add(".".join(place[2:]), Block(place, parts.to_yaml(new_keys)))
            elif isinstance(value, dict):
                self._grow(place, value, former)

    def _add_cohorts(self, plugin: dict[str, t.Any], path: tuple[str, ...], name: str) -> None:
        """Add the mappings that a plugin lacks to its `cohorts`."""
        config = _content(self.text, path, name).get("config") or plugin.get("config") or {}
        there = config.get("cohorts")
        known = OBJECTS["cohorts"](there) if isinstance(there, dict) else {}
        new = [each for each in self._answers.streams if each.name not in known]
        former = OBJECTS["cohorts"]((plugin.get("config") or {}).get("cohorts") or {})
        self.kept += [
            f"{each.name} in cohorts of {name}"
            for each in self._answers.streams
            if each.name in former
        ]
        if not new:
            return
        if not known:
            self.advice.append(
                f"{name} had no cohorts, so every stream was a cohort of its own name; from now "
                "on, a stream that is not listed is an error"
            )
        block = Block((*path, name, "config", "cohorts"), parts.to_yaml(parts.cohorts(new)))
        if self._project.is_own(*path, name=name):
            self._add(f"{', '.join(each.name for each in new)} in cohorts of {name}", block)
        else:
            self.to_paste.append(block)
        if self._mirrors and name == parts.UTILITY:
            streams = ", ".join(self._mirrors)
            self.advice.append(
                f"with removals: deferred, add {streams} to the args of {name}:confirm"
            )

    def _shared_config(self, loader: dict[str, t.Any]) -> dict[str, t.Any]:
        """Return the loader's configuration for the utility, without secrets."""
        self.advice.append(
            f"the config of {parts.UTILITY} is a copy of {NAME}'s; change both together"
        )
        properties = json_schema()["properties"]
        merged = _content(self.text, _LOADERS, NAME).get("config") or loader.get("config") or {}
        return {
            key: value for key, value in merged.items() if not properties.get(key, {}).get("secret")
        }

    def _add_jobs(self, *, has_confirm: bool) -> None:
        if self.tap is None:
            return
        there = self._project.named("jobs")
        for name, text in parts.jobs(self.tap, confirms=has_confirm).items():
            if name in there:
                self._keep(f"job {name}")
            else:
                self._add(f"job {name}", Block(("jobs",), text))
        if self._project.text is None:
            self._add("schedule hourly-cohorts", Block(("schedules",), parts.SCHEDULE))


def _content(text: str, path: tuple[str, ...], name: str) -> dict[str, t.Any]:
    """Return a plugin as it stands in the text."""
    return items_at(yaml.safe_load(text), *path).get(name, {})


def _free_anchors(text: str) -> tuple[str, str]:
    """Return names of two anchors that the text does not use."""
    for prefix in ("", "cohort_", "moengage_cohort_"):
        names = (f"{prefix}config", f"{prefix}settings")
        if not any(re.search(rf"[&*]{name}\b", text) for name in names):
            break
    return names
