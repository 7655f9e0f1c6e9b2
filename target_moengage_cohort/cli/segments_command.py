"""`moengage-cohort segments`: lists and changes MoEngage's segments of all kinds."""

from __future__ import annotations

import typing as t

import click
import msgspec

from target_moengage_cohort.cli.file_segment_commands import file
from target_moengage_cohort.cli.segments_api import find_segment, segments_api
from target_moengage_cohort.cli.session import Session, configured, show
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.text import printable
from target_moengage_cohort.moengage.filters import FilterGroup  # noqa: TC001 - msgspec resolves it

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.moengage.segments import Segment, SegmentDetails

_NAME = click.argument("name", callback=require_utf8)
_FILE = click.argument("filters", metavar="FILE|-", callback=require_utf8)
_JSON = click.option("--json", "as_json", is_flag=True, help="Output full details as JSON.")
_MOST_BYTES = 1 << 20


@click.group(epilog=example("moengage-cohort segments list --config config.json"))
def segments() -> None:
    """List and change MoEngage's segments.

    Uses the Segments API, with segments_api_key or else data_api_key. Segments are named, never
    given by id: the process list shows arguments.
    """


@segments.command(
    "list",
    epilog=example("moengage-cohort segments list --name Berlin --config config.json"),
)
@click.option("--name", callback=require_utf8, help="Only the segment with exactly this name.")
@_JSON
@configured
def list_segments(session: Session, name: str | None, *, as_json: bool) -> None:
    """List segments.

    Whether MoEngage lists cohorts is not documented: one that is missing may still be there.
    """
    with session.opener() as opener, segments_api(session, opener) as api:
        found = api.list(name)
    show(found, _table(found), as_json=as_json)


@segments.command(epilog=example("moengage-cohort segments get Berlin --config config.json"))
@_NAME
@_JSON
@configured
def get(session: Session, name: str, *, as_json: bool) -> None:
    """Show a segment with its filters.

    The output of --json is also what `create` and `update` take.
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

    FILE is JSON with `included_filters`, and `excluded_filters` if there are any, as MoEngage
    documents them; - is standard input.
    """
    session.refuse_dry_run()
    wanted = _read(filters)
    with session.opener() as opener, segments_api(session, opener) as api:
        details = api.create(name, wanted.included_filters, wanted.excluded_filters)
    show(details, [f"segment {name!r}: created"], as_json=as_json)


@segments.command(
    epilog=example("moengage-cohort segments update Berlin other.json --config config.json")
)
@_NAME
@_FILE
@click.option("--rename", metavar="NAME", callback=require_utf8, help="The segment's new name.")
@_JSON
@configured
def update(session: Session, name: str, filters: str, rename: str | None, *, as_json: bool) -> None:
    """Replace the filters of a filter segment.

    For FILE see `create`. Whether MoEngage removes `excluded_filters` that it does not have is not
    documented.
    """
    session.refuse_dry_run()
    wanted = _read(filters)
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

    Whether this works for a cohort is not documented.
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
    """Unarchive a segment, which may be a cohort.

    Whether MoEngage keeps what was sent to a cohort while it was archived is not documented:
    `resync` sends it again.
    """
    session.refuse_dry_run()
    with session.opener() as opener, segments_api(session, opener) as api:
        api.unarchive(name)
    show({"name": name, "archived": False}, [f"segment {name!r}: unarchived"], as_json=as_json)


segments.add_command(file)


class _Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The filters of a segment; the other fields are those of `get`, which nothing needs."""

    included_filters: FilterGroup
    excluded_filters: FilterGroup | None = None
    name: object = None
    id: object = None
    created_time: object = None
    updated_time: object = None
    type: object = None
    source: object = None
    description: object = None


def _read(path: str) -> _Filters:
    """Read filters; no error quotes them, because they may have identifiers."""
    name = "standard input" if path == "-" else path
    try:
        with click.open_file(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            msg = f"{name}: has more than {_MOST_BYTES:,} bytes, and MoEngage takes fewer"
            raise InputError("filters_too_large", msg)
        return msgspec.json.decode(content, type=_Filters)
    except OSError as error:
        msg = f"{name}: cannot be read ({error.strerror}); choose another file"
        raise InputError("unreadable_file", msg) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        msg = (
            f"{name}: must be a JSON object with `included_filters`, which has `filter_operator` "
            "(and, or) and `filters` (a list), and perhaps `excluded_filters`; it may have what "
            "`segments get --json` shows, and nothing else"
        )
        raise InputError("invalid_filters", msg) from None


def _table(found: Sequence[Segment]) -> Iterator[str]:
    if not found:
        yield "MoEngage lists no such segment."
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
