"""A made-up shop's database: users, a view for each cohort, and a day of changes."""

from tests.support.postgres import Postgres

USERS = 5_000
LAYOUT = """
create table users (
    id            bigint primary key,
    device_id     text,
    signed_up     boolean not null default true,
    orders        integer not null default 0,
    vip_since     timestamptz,
    vip_until     timestamptz,
    uninstalled   timestamptz,
    updated_at    timestamptz not null
);
create index on users (updated_at);

create view cohort_vip as
    select 'u-' || id as uid, vip_until is null as is_member, updated_at
    from users where vip_since is not null;

create view cohort_app as
    select case when signed_up then 'u-' || id end as uid, device_id,
           uninstalled as _sdc_deleted_at, updated_at
    from users where device_id is not null;

create view cohort_buyers as
    select 'u-' || id as uid, updated_at
    from users where orders > 0;

create view cohort_members as
    select 'u-' || id as uid, count(*) over () as row_count
    from users where signed_up;
"""
FILL = f"""
insert into users
select id,
       case when id % 2 = 0 then 'device-' || id end,
       id % 10 > 0,
       case when id % 3 = 0 then id % 7 else 0 end,
       case when id % 8 = 0 then timestamptz '2026-01-01' end,
       case when id % 80 = 0 then timestamptz '2026-03-01' end,
       case when id % 50 = 0 then timestamptz '2026-03-01' end,
       timestamptz '2026-03-01' + id * interval '1 second'
from generate_series(1, {USERS}) id
"""
# The bookmark is the newest row of the first run, so all changes must be newer.
LATER = "timestamptz '2026-03-02' + id * interval '1 second'"
NEW_USERS = f"generate_series({USERS + 1}, {USERS + 30}) id"


def update(change: str, users: str) -> str:
    """Return the SQL that changes some users."""
    return f"update users set {change}, updated_at = {LATER} where {users}"


DAY = (
    ("30 users become VIPs", update("vip_since = '2026-03-02'", "id % 8 = 1 and id <= 240")),
    ("20 VIPs lose their status", update("vip_until = '2026-03-02'", "id % 80 = 8 and id <= 1600")),
    ("25 users install the app", update("device_id = 'device-' || id", "id % 2 = 1 and id <= 50")),
    (
        "15 users remove the app",
        update("uninstalled = '2026-03-02'", "id % 100 = 2 and id <= 1500"),
    ),
    ("40 users order for the first time", update("orders = 1", "id % 3 = 1 and id <= 120")),
    (
        "30 users sign up",
        f"insert into users (id, updated_at) select id, {LATER} from {NEW_USERS}",
    ),
    (
        "50 users are deleted without a trace: only the mirror can notice",
        "delete from users where id % 60 = 1 and id between 1200 and 4200",
    ),
)
# The desired members of each cohort, as (uid, anonymous_id).
WANTED = {
    "vip": "select uid, null from cohort_vip where is_member",
    "app": "select uid, device_id from cohort_app where _sdc_deleted_at is null",
    "buyers": "select uid, null from cohort_buyers",
    "members": "select uid, null from cohort_members",
}


def open_shop(postgres: Postgres) -> None:
    """Create the tables and views, and fill them."""
    postgres.execute(LAYOUT)
    postgres.execute(FILL)


def live_a_day(postgres: Postgres) -> list[str]:
    """Change some users, and return a description of each change."""
    for _, sql in DAY:
        postgres.execute(sql)
    return [text for text, _ in DAY]


def wanted(postgres: Postgres, cohort_id: str) -> set[tuple[str | None, str | None]]:
    """Return the desired members of a cohort."""
    return set(postgres.query(WANTED[cohort_id]))
