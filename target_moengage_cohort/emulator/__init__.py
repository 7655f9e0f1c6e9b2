r"""A local emulator of MoEngage's Cohort Sync, Segments and Analytics APIs, with fault injection.

It enforces everything that MoEngage documents.

    pip install 'target-moengage-cohort[emulator]'
    moengage-cohort emulator --port 8025

Its address (`GET /`) is a page that shows its cohorts and requests. In a test it runs in the same
process:

    with Emulator(order="last-writer-wins", clock=ManualClock()) as emulator:
        emulator.fail_next(503, 2, headers={"Retry-After": "3"})
        ...  # sync to emulator.url, as emulator.workspace_id with emulator.data_api_key
        assert {("u1", None)} == emulator.members("vip")

Checks
    `POST /v1/integrations/cohortsync` checks, in this order: HTTP Basic and `MOE-APPKEY` (401),
    the limit of requests per minute (429), scripted faults, content type (415), size (413), JSON
    (400 `Malformed JSON`), attributes (400 `MissingAttributeError`), poison members (400).
    `POST /v1/integrations/authentication` checks content type, size, JSON, attributes and the
    credentials in header and body. It is neither limited nor logged, and faults do not affect it.

Silently dropped requests
    These are answered with 200, but nothing is applied. The log records the reason in `dropped`:
    `cohort_name` (it breaks a documented rule), `name_taken` (another cohort has the name),
    `segment_limit` (the workspace is full), `older` (order `drop-older`).

The limit
    Every request with valid credentials counts from the moment its body is complete, whatever its
    answer. Requests that the limit refuses do not count: retrying does not prolong the wait.
    `x-ratelimit-reset` is the first whole second at which one more request is admitted. The
    window is 60 seconds; a request that is exactly that old is out of it.

Orders
    MoEngage does not document how it treats requests of one cohort that overlap or overtake each
    other, so a client must be correct under each of these orders. A request without `timestamp`
    gets its time of arrival. A change is applied when its request has arrived, before the answer is
    sent.

    `arrival`           In order of arrival, regardless of timestamps. Detects a client that lets
                        a later change of a cohort overtake one that it is still retrying.
    `last-writer-wins`  For each member of a cohort the newest timestamp wins; among equal ones
                        the later arrival. Detects a clock that runs backward, and a retry that
                        carries a new timestamp after a newer change has been sent.
    `drop-older`        A request older than the newest one of its cohort is dropped as a whole,
                        other members included. Detects every overlap within a cohort.
    `late`              Like `arrival`, but a change whose sender was cut off (a dropped connection
                        `after`, or an injected 5xx) is applied later: right after the next
                        `late_after` requests of its cohort (1), or by `/_emulator/late`. A client
                        that repeats the same bytes until they are answered, before anything else
                        of that cohort, ends in the correct state; one that continues first does
                        not.
                        `late_after` (2, say) together with `last-writer-wins` or `drop-older`
                        delays the change further, so that only its timestamp keeps it from doing
                        harm.

Control endpoints
    JSON, without credentials. Errors are 400 or 404 with `{"error": "…"}`. These endpoints and the
    page answer 403 to other sites' pages: to a foreign `Origin`, and over loopback to a `Host`
    that may be in the public DNS.

    GET /_emulator/cohorts
        `{"cohorts": […]}` with the fields of `CohortSummary`.
    GET /_emulator/members?cohort_id=vip[&partner=acme]
        A stream with a line of JSON per member: `{"uid": "u1", "anonymous_id": "a1"}`; a missing
        identifier is left out. Members with a uid come first, each kind in the order in which
        they were added.
    GET /_emulator/requests[?cohort_id=&partner=&action=&status=&outcome=&after=NUMBER&limit=1000]
        `{"requests": […], "more": false}`; the fields are those of `RequestRecord`. `outcome` is
        `applied`, `late` (held back), `applied_late`, `dropped` or `refused`. The log keeps the
        last 100,000 requests.
    GET /_emulator/overview[?cohort_id=&partner=…]
        The fields of `Overview`: the data of the page. The query selects its requests as above.
    GET /_emulator/totals
        The fields of `Totals`; `largest_window` is the largest number of requests in any rolling
        60 seconds.
    POST /_emulator/faults/status
        `{"status": 503, "count": 2, "headers": {"Retry-After": "3"}, "error_type": "…",
        "message": "…", "body": "…", "applied": false, "cohort_id": "vip"}`; only `status` is
        required. `applied` applies the change anyway; `body` replaces the documented one.
    POST /_emulator/faults/drop
        `{"when": "before", "count": 1, "cohort_id": "vip"}`: a TCP reset without an answer,
        before or `after` the change is applied.
    POST /_emulator/faults/share
        `{"share": 0.05, "seed": 7, "statuses": [500, 503], "applied": false}`
    POST /_emulator/faults/latency
        `{"seconds": 0.2, "count": 10}`: between change and answer; without `count` for all.
    POST /_emulator/faults/hold
        `{"held": true}`: changes are applied, answers wait until `{"held": false}`.
    POST /_emulator/faults/poison
        `{"ids": ["u7"], "message": "No such user: {id}", "error_type": "…", "attribute": "…"}`
    GET, DELETE /_emulator/faults
        Show or remove all faults. Scripted faults (`status`, `drop`) are injected in the order in
        which they were set up, one per request; the share applies when none is left.
    POST /_emulator/others
        `{"count": 250}`: simulates requests of other integrations, which use up the same limit;
        the answer `{"count": 250}` is the number admitted.
    POST /_emulator/late
        `{"cohort_id": "vip", "partner": "acme"}`, or `{}` for all: applies the changes that are
        held back; the answer `{"count": 1}` is their number.
    POST /_emulator/reset
        Clears everything: cohorts, log, totals, faults and the limit's window.

    GET /_emulator/segments, GET /_emulator/calls
        `{"segments": [{"id", "name", "kind", "is_archived", "users"}]}`, and `{"calls": […]}` with
        the fields of `apis.CallRecord`.
    POST /_emulator/users
        `{"uids": ["u1"], "anonymous_ids": []}`: from now on, only these users are known.
    POST /_emulator/members
        `{"cohort_id": "vip", "action": "remove_members", "uids": ["u1"]}`: changes a cohort without
        a request, as if one had been lost or sent by another client.
    POST /_emulator/segments/run
        `{"name": "VIP"}`: a campaign uses the segment now, which restarts its 60 days.
    POST /_emulator/queries/fail
        `{"count": 1, "reason": "…"}`: the next queries end as FAILED.
    POST /_emulator/calls/status, calls/drop, calls/latency
        Faults of the Segments and the Analytics API, with the fields of `faults/…` above.

Segments and Analytics
    `apis.ENDPOINTS` lists the calls. Each checks, in this order: credentials (401), the key's scope
    (403), content type (415), `MOE-DBNAME` (400), its limit (429), scripted faults, and its own
    rules. `segment_options.SegmentOptions` has the options; those marked "(open)" are choices
    that MoEngage's documentation leaves open. Also open: the values of `type` and `source` in a
    list; the error for results that are not ready (404 here); whether unarchiving restarts the 60
    days (it does here).

Where the documentation is silent
    A cohort keeps the name and description of its first request; a request with another name is
    applied to the same cohort. Removing from an unknown cohort creates it. A member is identified
    by its uid, or else by its anonymous ID. These are separate namespaces, so the same user can be
    in a cohort twice; with the option `merges`, a uid and an anonymous ID that arrive together are
    one user from then on, in all cohorts. Adding an existing member changes nothing, not even the
    other identifier. All users are known until `/_emulator/users` names them. Unknown members are
    in their cohort, but a query does not count them. A request whose body never ends is not
    counted.
"""

from .model import CohortSummary, Member, RequestRecord, Totals
from .options import Clock, ManualClock, Options, Order
from .server import Emulator

__all__ = [
    "Clock",
    "CohortSummary",
    "Emulator",
    "ManualClock",
    "Member",
    "Options",
    "Order",
    "RequestRecord",
    "Totals",
]
