"""The options of `moengage-cohort segments file`."""

from __future__ import annotations

import functools
import sys
import typing as t

import click
import msgspec

from target_moengage_cohort.cli.segments.segment_storage import address_fault
from target_moengage_cohort.cli.terminal import require_utf8
from target_moengage_cohort.core.errors import SettingsError

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.moengage.segment_files import AttributeType

_LAST_PORT = 65_535
_LONGEST_WAIT_MINUTES = 1_440


class FileOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a command that changes a file segment.

    Attributes:
        wait: Minutes to wait for all callbacks together.
        callback_listen: Host and port.
    """

    url: str | None
    csv: str | None
    cohort: str | None
    upload: str | None
    public_url: str | None
    attribute: str | None
    attribute_type: AttributeType
    wait: float | None
    callback_url: str | None
    callback_listen: tuple[str, int] | None
    as_json: bool

    @property
    def address(self) -> str | None:
        """The URL of a file that MoEngage can already fetch, if one is given."""
        if self.url != "-":
            return self.url
        url = sys.stdin.readline().strip()
        if fault := address_fault(url):
            raise SettingsError("invalid_address", f"--url: the URL on standard input {fault}")
        return url


def _address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Check a URL, of which no message shows anything: it may be signed."""
    if value not in {None, "-"} and (fault := address_fault(str(value))):
        raise click.BadParameter(fault)
    return value


def _minutes(_context: click.Context, _parameter: click.Parameter, value: float | None) -> object:
    if value is not None and not 0 < value <= _LONGEST_WAIT_MINUTES:  # this also refuses NaN
        msg = f"must be greater than 0, and at most {_LONGEST_WAIT_MINUTES:,}"
        raise click.BadParameter(msg)
    return value


def _listen(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        msg = "must be HOST:PORT, such as 127.0.0.1:8080"
        raise click.BadParameter(msg)
    return host.strip("[]"), int(port)


_OPTIONS = (
    click.argument("name", callback=require_utf8),
    click.option(
        "--url", callback=_address, help="URL of a CSV; - reads the URL from standard input."
    ),
    click.option(
        "--csv",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        help="CSV with one column and no header; - is standard input.",
    ),
    click.option("--cohort", callback=require_utf8, help="Cohort whose accepted members to use."),
    click.option(
        "--upload",
        metavar="URL",
        callback=require_utf8,
        help="Directory from which MoEngage fetches the file: a path, or a URL of any storage that "
        "fsspec supports.",
    ),
    click.option(
        "--public-url",
        metavar="URL",
        callback=_address,
        help="URL of that directory, if the storage does not sign URLs.",
    ),
    click.option(
        "--attribute", help="Attribute that the values belong to; defaults to id_attribute."
    ),
    click.option(
        "--type",
        "attribute_type",
        type=click.Choice(["string", "double"]),
        default="string",
        show_default=True,
        help="Type of that attribute.",
    ),
    click.option(
        "--wait",
        metavar="MINUTES",
        type=float,
        callback=_minutes,
        help="Wait up to this long for MoEngage's callbacks for all files, and delete each file "
        "after its callback. Uploads and API calls take additional time.",
    ),
    click.option(
        "--callback-url",
        metavar="URL",
        callback=_address,
        help="URL that MoEngage calls once a file is processed.",
    ),
    click.option(
        "--callback-listen",
        metavar="HOST:PORT",
        callback=_listen,
        help="With --wait: address on which this command listens for the callbacks.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Output full details as JSON."),
)


def takes_file(work: Callable[..., int]) -> Callable[..., t.Any]:
    """Give a command the argument and the options that it shares with others."""

    @functools.wraps(work)
    def run(session: Session, name: str, expiry_days: int = 0, **options: t.Any) -> int:
        given = FileOptions(**options)
        _check(given)
        return work(session, name, given, expiry_days)

    return functools.reduce(lambda command, option: option(command), reversed(_OPTIONS), run)


def _check(given: FileOptions) -> None:
    """Raise a `UsageError` for options that cannot be combined."""
    if sum(each is not None for each in (given.url, given.csv, given.cohort)) != 1:
        msg = "use exactly one of --url, --csv and --cohort"
    elif (given.url is None) is (given.upload is None):
        msg = "--csv and --cohort require --upload, and --url excludes it"
    elif given.wait and not (given.callback_url and given.callback_listen):
        msg = "--wait requires --callback-listen, and --callback-url, which leads MoEngage to it"
    elif given.callback_listen and not given.wait:
        msg = "--callback-listen requires --wait"
    elif _has_query(given.public_url) or (given.callback_listen and _has_query(given.callback_url)):
        msg = "--public-url and --callback-url must not have ? or #: a name is appended to them"
    else:
        return
    raise click.UsageError(msg)


def _has_query(url: str | None) -> bool:
    return url is not None and not {"?", "#"}.isdisjoint(url)
