"""`plan --format markdown`: a plan as a comment on a pull request."""

import html
import json
import re

import comrak
import pytest

from target_moengage_cohort.cli.plan_markdown import markdown
from tests.cli.conftest import people
from tests.support.singer import lines, record, schema

HOSTILE = (
    "a|b`c` *d* _e_ <b>f</b> @octocat #1 [x](http://x.example) www.x.example ![i](/i) \\| &amp;"
)
MOST = 65_536  # characters of a comment


def plan(cohort_id="vip", **changes):
    """Return a plan as `plan --json` has it."""
    numbers = dict.fromkeys(("unchanged", "in_doubt", "requests", "bytes"), 0)
    facts = {"cohort_id": cohort_id, "desired": None, "accepted": None, "verdict": "within"}
    return numbers | facts | {"to_add": 0, "to_remove": 0} | changes


def rendered(text):
    """Return the HTML that GitHub's dialect gives, and the cells of its rows."""
    options = comrak.ExtensionOptions()
    options.table = options.autolink = options.strikethrough = True
    shown = comrak.render_markdown(text, extension_options=options)
    rows = re.findall(r"<tr>(.*?)</tr>", shown, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return shown, [[plain(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells]


def plain(text):
    return html.unescape(text).replace("\N{WORD JOINER}", "")


def test_a_comment_has_every_cohort(desk):
    """The comment has the numbers and the guard's decision of each cohort, the one with most
    changes first; the warnings are below."""
    desk.raw |= {"sync_mode": "mirror", "cohorts": {"fan": {"cohort_id_column": "c"}}}
    for cohort in ("one", "two"):
        desk.fill(cohort, people(*range(20)), stream="fan")
    rows = [record("fan", uid=member.uid, c="one") for member in people(*range(21))]
    rows += [record("fan", uid=member.uid, c="two") for member in people(*range(5))]
    data = lines(schema("fan", ("uid", "c")), *rows)
    result = desk.run("plan", "--format", "markdown", text=data)
    assert 0 == result.exit_code
    shown, (head, two, one) = rendered(result.stdout)
    assert ["two", "20", "5", "0", "15", "5"] == two[:6]
    assert two[-1].startswith("withheld: the plan would remove 15 of 20 members")
    assert ["one", "20", "21", "1", "0", "20", "1", "within the guard"] == one
    assert len(head) == len(one) == len(two)
    assert "1 addition, 15 removals" in shown
    warned = desk.run("plan", "--format", "json", text=data)
    assert ["one", "two"] == [each["cohort_id"] for each in json.loads(warned.stdout)]


def test_texts_are_text():
    """Names, verdicts and warnings are shown as they are: no link, mention, tag or format."""
    text = markdown([plan(HOSTILE, verdict=HOSTILE)], [HOSTILE], "1 request")
    shown, (_, row) = rendered(text)
    assert [HOSTILE[:59] + "…", HOSTILE] == [row[0], row[-1]]
    warning = re.search(r"<li>(.*?)</li>", shown, re.DOTALL)[1]
    assert HOSTILE == plain(warning)
    tags = {*re.findall(r"<(\w+)", shown)}
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    assert tags == {"h3", "p", "strong", "ul", "li"} | table
    assert not re.search(r"[@#]\w", html.unescape(text))


@pytest.mark.parametrize(("cohorts", "warnings"), [(3_000, 0), (10, 3_000), (3_000, 3_000)])
def test_a_comment_is_never_too_long(cohorts, warnings):
    """What is too much for a comment is left out from the end, and counted."""
    plans = [plan(f"c{number}-" + "<" * 90, to_add=number) for number in range(cohorts)]
    text = markdown(plans, ["é" * 200] * warnings, "1 request")
    assert MOST > len(text)
    _, (_, *rows) = rendered(text)
    left = re.search(r"^([\d,]+) more cohorts?, ", text, re.MULTILINE)
    assert cohorts - len(rows) == int(left[1].replace(",", "") if left else 0)
    assert rows[0][0].startswith(f"c{cohorts - 1}-")
    noted = text.count("\n- ")
    left = re.search(r"^([\d,]+) more warnings?:", text, re.MULTILINE)
    assert warnings - noted == int(left[1].replace(",", "") if left else 0)


def test_a_plan_without_cohorts():
    """A plan without any cohort says so, without an empty table."""
    text = markdown([], [], "0 requests")
    assert "0 cohorts" in text
    assert "|" not in text
