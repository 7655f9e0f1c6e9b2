"""`moengage-cohort segments`: lists and changes MoEngage's segments of all kinds."""

from __future__ import annotations

import typing as t

import click
import msgspec

from target_moengage_cohort.cli.segments.file_segment_commands import file
from target_moengage_cohort.cli.segments.filter_file import read_filters
from target_moengage_cohort.cli.segments.segments_api import find_segment, segments_api
from target_moengage_cohort.cli.session import Session, configured, show
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.text import printable

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.moengage.segments import Segment, SegmentDetails

_NAME = click.argument("name", callback=require_utf8)
_FILE = click.argument(
    "filters",
    metavar="FILE|-",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    callback=require_utf8,
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Output full details as JSON.")


@click.group(epilog=example("moengage-cohort segments list --config config.json"))
def segments() -> None:
    """List and change MoEngage's segments.

    Uses the Segments API, with segments_api_key or else data_api_key. Specify segments by name, not
    by ID: arguments are visible in the process list.
    """


@segments.command(
    "list",
    epilog=example("moengage-cohort segments list --name Berlin --config config.json"),
)
@click.option("--name", callback=require_utf8, help="Show only the segment with exactly this name.")
@_JSON
@configured
def list_segments(session: Session, name: str | None, *, as_json: bool) -> None:
    """List segments.

    MoEngage does not document whether it lists cohorts: a cohort that is not listed may still
    exist.
    """
    with session.opener() as opener, segments_api(session, opener) as api:
        found = api.list(name)
    show(found, _table(found, name), as_json=as_json)


@segments.command(epilog=example("moengage-cohort segments get Berlin --config config.json"))
@_NAME
@_JSON
@configured
def get(session: Session, name: str, *, as_json: bool) -> None:
    """Show a segment with its filters.

    `create` and `update` accept the output of --json.
    """
    with session.opener() as opener, segments_api(session, opener) as api:
        details = api.get(find_segment(api, name).id)
    show(details, _details(details), as_json=as_json)


@segments.command(
    epilog=example("moengage-cohort segments create Paris filters.json --config config.json")
)
@_NAME
@_FILE
@_JSON
@configured
def create(session: Session, name: str, filters: str, *, as_json: bool) -> None:
    """Create a filter segment.

    FILE is JSON with `included_filters` and, optionally, `excluded_filters`, as documented by
    MoEngage; - is standard input.
    """
    session.refuse_dry_run()
    wanted = read_filters(filters)
    with session.opener() as opener, segments_api(session, opener) as api:
        details = api.create(name, wanted.included_filters, wanted.excluded_filters)
    show(details, [f"segment {name!r}: created"], as_json=as_json)


@segments.command(
    epilog=example("moengage-cohort segments update Berlin other.json --config config.json")
)
@_NAME
@_FILE
@click.option("--rename", metavar="NAME", callback=require_utf8, help="New name of the segment.")
@_JSON
@configured
def update(session: Session, name: str, filters: str, rename: str | None, *, as_json: bool) -> None:
    """Replace the filters of a filter segment.

    FILE is as in `create`. MoEngage does not document whether it removes `excluded_filters` that
    FILE does not contain.
    """
    session.refuse_dry_run()
    wanted = read_filters(filters)
    with session.opener() as opener, segments_api(session, opener) as api:
        details = api.update(
            find_segment(api, name).id, wanted.included_filters, wanted.excluded_filters, rename
        )
    show(details, [f"segment {rename or name!r}: updated"], as_json=as_json)


@segments.command(epilog=example("moengage-cohort segments archive Berlin --config config.json"))
@_NAME
@_JSON
@configured
def archive(session: Session, name: str, *, as_json: bool) -> None:
    """Archive a segment.

    MoEngage does not document whether this works for cohorts.
    """
    session.refuse_dry_run()
    with session.opener() as opener, segments_api(session, opener) as api:
        api.archive(name)
    show({"name": name, "archived": True}, [f"segment {name!r}: archived"], as_json=as_json)


@segments.command(epilog=example("moengage-cohort segments unarchive Berlin --config config.json"))
@_NAME
@_JSON
@configured
def unarchive(session: Session, name: str, *, as_json: bool) -> None:
    """Unarchive a segment or cohort.

    MoEngage does not document whether it keeps changes that were sent to a cohort while it was
    archived. To re-send the members, use `resync`.
    """
    session.refuse_dry_run()
    with session.opener() as opener, segments_api(session, opener) as api:
        api.unarchive(name)
    show({"name": name, "archived": False}, [f"segment {name!r}: unarchived"], as_json=as_json)


segments.add_command(file)


def _table(found: Sequence[Segment], name: str | None) -> Iterator[str]:
    if not found:
        which = "segments" if name is None else f"segment with the name {name!r}"
        yield f"MoEngage lists no {which}"
        return
    yield _row("created (UTC)", "type", "source", "name")
    for each in found:
        yield _row(_minute(each.created_time), each.type, each.source, each.name)


def _row(created: str, kind: str, source: str, name: str) -> str:
    return f"{created:<16} {printable(kind):<12} {printable(source):<12} {printable(name)}"


def _minute(moment: str) -> str:
    return printable(moment)[:16].replace("T", " ")


def _details(segment: SegmentDetails) -> Iterator[str]:
    yield f"name: {printable(segment.name)}"
    yield f"type: {printable(segment.type)}, source: {printable(segment.source)}"
    yield f"created: {_minute(segment.created_time)}, updated: {_minute(segment.updated_time)} UTC"
    if segment.description:
        yield f"description: {printable(str(segment.description))}"
    for label in ("included", "excluded"):
        if (filters := getattr(segment, f"{label}_filters")) is not None:
            text = msgspec.json.format(msgspec.json.encode(filters)).decode()
            yield f"{label} filters: {text}"
