r"""MoEngage's Cohort Sync API on loopback: strict about what is documented, faults on demand.

    pip install 'target-moengage-cohort[emulator]'
    moengage-cohort emulator --port 8025

with a page at its address (`GET /`) to watch it by; or in a test, with everything at hand in the
same process:

    with Emulator(order="last-writer-wins", clock=ManualClock()) as emulator:
        emulator.fail_next(503, 2, headers={"Retry-After": "3"})
        ...  # sync to emulator.url, as emulator.workspace_id with emulator.data_api_key
        assert {("u1", None)} == emulator.members("vip")

What it is strict about
    `POST /v1/integrations/cohortsync` checks, in this order: HTTP Basic and `MOE-APPKEY` (401),
    the limit of requests a minute (429), scripted faults, content type (415), size (413), JSON
    (400 `Malformed JSON`), attributes (400 `MissingAttributeError`), poison members (400).
    `POST /v1/integrations/authentication` checks content type, size, JSON, attributes and the
    credentials in header and body; it is neither limited nor logged, and no fault happens to it.

Dropped in silence
    Answered with 200, but nothing is applied; the log says why in `dropped`:
    `cohort_name` (it breaks a documented rule), `name_taken` (another cohort has it),
    `segment_limit` (the workspace is full), `older` (order `drop-older`).

The limit
    Every request with the right credentials counts, from the moment its body is complete,
    whatever its answer is, except a 429 by the limit itself: whoever keeps asking isn't kept out
    longer. `x-ratelimit-reset` is the first whole second at which one more is admitted. The
    window is 60 seconds; a request that is exactly as old is out of it.

Orders
    Nobody says how MoEngage treats requests of one cohort that overlap or change places, so a
    client has to be right under each of these. A request without `timestamp` has the moment of
    its arrival. A change is applied when its request has arrived, before its answer leaves.

    `arrival`           as they arrive, whatever their timestamps say. Catches a client that lets
                        a later change of a cohort overtake one that it is still retrying.
    `last-writer-wins`  for each member of a cohort the newest timestamp wins; at equal ones the
                        later arrival. Catches a clock that goes back, and a retry that carries a
                        new timestamp after a newer change has been sent.
    `drop-older`        a request older than the newest that its cohort has seen is dropped whole,
                        other members included. Catches every overlap within a cohort.
    `late`              as `arrival`, but a change whose sender was cut off (a dropped connection
                        `after`, or an injected 5xx) is applied later: right after the next
                        `late_after` requests of its cohort (1), or by `/_emulator/late`. A client
                        that repeats the same bytes until they are answered, before anything else
                        of that cohort, ends right; one that moves on first ends wrong. With
                        `late_after` (2, say) on top of `last-writer-wins` or `drop-older` the
                        straggler comes later still, and only its timestamp keeps it from harm.

Control endpoints
    JSON, without credentials. Errors are 400 or 404 with `{"error": "…"}`. They and the page
    answer 403 to other sites' pages: to an `Origin` that isn't their own, and over loopback to a
    `Host` that the public DNS may hold.

    GET /_emulator/cohorts
        `{"cohorts": [{"partner", "cohort_id", "name", "description", "members", "late"}]}`
    GET /_emulator/members?cohort_id=vip[&partner=acme]
        A line of JSON for each, streamed: `{"uid": "u1", "anonymous_id": "a1"}`, without what a
        member hasn't got. Those with a uid first, each kind in the order in which they joined.
    GET /_emulator/requests[?cohort_id=&partner=&action=&status=&outcome=&after=NUMBER&limit=1000]
        `{"requests": […], "more": false}`; the fields are those of `RequestRecord`. `outcome` is
        `applied`, `late` (held back), `applied_late`, `dropped` or `refused`. The log remembers
        the last 100,000.
    GET /_emulator/overview
        The fields of `Overview`: what the page shows.
    GET /_emulator/totals
        The fields of `Totals`; `largest_window` is the largest number of requests in any rolling
        60 seconds.
    POST /_emulator/faults/status
        `{"status": 503, "count": 2, "headers": {"Retry-After": "3"}, "error_type": "…",
        "message": "…", "body": "…", "applied": false, "cohort_id": "vip"}`; all but `status` may
        be left out. `applied` applies the change all the same; `body` replaces the documented one.
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
        What is set up; forget all of it. Scripted faults (`status`, `drop`) happen in the order in
        which they were given, one to a request; the share is asked when none is left.
    POST /_emulator/others
        `{"count": 250}`: other integrations use up so much of the limit; `{"count": 250}` says
        how many were admitted.
    POST /_emulator/late
        `{"cohort_id": "vip", "partner": "acme"}`, or `{}` for all: apply what is held back;
        `{"count": 1}` says how many changes.
    POST /_emulator/reset
        Forget everything: cohorts, log, totals, faults and the limit's window.

Where the documentation is silent
    A cohort keeps the name and description of its first request; a changed name is applied to the
    same cohort. Removing from an unknown cohort creates it. A member is its uid, or else its
    anonymous id: two name spaces, so the same person can be in a cohort twice. Adding a member
    who is there changes nothing, not even the other identifier. Every user is known here, though
    MoEngage skips unknown ones. A request whose body never ends is nobody's request.
"""

from .model import (
    Clock,
    CohortSummary,
    ManualClock,
    Member,
    Options,
    Order,
    RequestRecord,
    Totals,
)
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
