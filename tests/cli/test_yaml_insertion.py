"""The insertion of blocks into YAML text."""

import textwrap

import pytest
import yaml

from target_moengage_cohort.cli.init.yaml_insertion import Block, NoPlaceError, insert

LIST = Block(("plugins", "loaders"), "- name: new\n  config:\n    a: 1\n")
ENTRY = Block(("plugins", "loaders", "old", "config", "cohorts"), "new:\n  cohort_id: n\n")
OLD = {"name": "old"}

LISTS = {
    "empty": ("", []),
    "comments only": ("# nothing yet\n", []),
    "no plugins": ("a: 1 # one\n\n# the end\n", []),
    "plugins without a value": ("plugins: # soon\nb: 2\n", []),
    "loaders without a value": ("plugins:\n  loaders: # soon\n  extractors:\n  - name: t\n", []),
    "indented": ("plugins:\n    loaders:\n        - name: old\n    extractors: []\n", [OLD]),
    "not indented": ("plugins:\n  loaders:\n  - name: old\n\n\n# jobs\njobs: []\n", [OLD]),
    "a comment of the last item": (
        "plugins:\n  loaders:\n  - name: old\n    # its end\n  # of extractors\n  extractors: []\n",
        [OLD],
    ),
    "a block of text": (
        "plugins:\n  loaders:\n  - name: old\n    a: |\n      x\n\n      # y\n",
        None,
    ),
    "an alias at the end": (
        "x: &x {a: 1}\nplugins:\n  loaders:\n  - name: old\n    config: *x\nz: 1\n",
        [OLD | {"config": {"a": 1}}],
    ),
    "a merge key": (
        "x: &x\n  name: old\nplugins:\n  loaders:\n  - <<: *x\n    y: 1\n",
        [OLD | {"y": 1}],
    ),
    "no line break at the end": ("plugins:\n  loaders:\n  - name: old", [OLD]),
    "a text without its line break at the end": (
        "plugins:\n  loaders:\n  - name: old\njobs:\n- a: |\n    x",
        [OLD],
    ),
    "line breaks of Windows": ("plugins:\r\n  loaders:\r\n  - name: old\r\njobs: []\r\n", [OLD]),
    "line breaks within a text": ('a: "x\u2028y"\nplugins:\n  loaders:\n  - name: old\n', [OLD]),
    "quoted keys": ("'plugins':\n  \"loaders\":\n  - name: 'old' # it\n", [OLD]),
    "an end of the document": ("plugins:\n  loaders:\n  - name: old\n...\n", [OLD]),
}


def only_grew(before, after):
    """Whether the text after has all lines of the one before, in their order."""
    rest = iter(after.splitlines(keepends=True))
    lines = before.splitlines(keepends=True)
    return all(any(line.rstrip("\r\n") == each.rstrip("\r\n") for each in rest) for line in lines)


@pytest.mark.parametrize("name", LISTS)
def test_an_item_is_added_at_the_end_of_its_list(name):
    """All lines stay as they are, with the comments where they belong, and the list has one item
    more."""
    before, there = LISTS[name]
    after = insert(before, LIST)
    assert only_grew(before, after)
    items = yaml.safe_load(after)["plugins"]["loaders"]
    assert {"name": "new", "config": {"a": 1}} == items[-1]
    assert there is None or there == items[:-1]
    rest = yaml.safe_load(after)
    del rest["plugins"]
    former = yaml.safe_load(before) or {}
    former.pop("plugins", None)
    assert former == rest
    assert ("\r\n" in before) == ("\r\n" in after)
    assert after.count("\r\n") in {0, after.count("\n")}


def test_comments_stay_with_what_they_are_about():
    """A comment within the last item stays in front of the new item; the next list's stays behind
    it."""
    after = insert(LISTS["a comment of the last item"][0], LIST)
    assert after.index("# its end") < after.index("name: new") < after.index("# of extractors")


@pytest.mark.parametrize("keys", ["", "config:\n", "config:\n  cohorts:\n    v: {}\n"])
def test_an_entry_is_added_to_the_mapping_of_an_item(keys):
    """An item is found by its name, and keys that are missing are created."""
    config = textwrap.indent(keys, "    ")
    before = f"plugins:\n  loaders:\n  - name: other\n  - name: old\n{config}  - name: last\n"
    after = insert(before, ENTRY)
    assert only_grew(before, after)
    other, old, last = yaml.safe_load(after)["plugins"]["loaders"]
    assert {"cohort_id": "n"} == old["config"]["cohorts"]["new"]
    assert ({"name": "other"}, {"name": "last"}) == (other, last)


@pytest.mark.parametrize(
    "text",
    [
        "plugins:\n  loaders: []\n",
        "plugins: {loaders: [{name: old}]}\n",
        "plugins:\n  loaders: $LOADERS\n",
        "plugins: {}\n",
    ],
)
def test_what_cannot_be_inserted_is_not(text):
    """A place that would have to be rewritten is refused."""
    with pytest.raises(NoPlaceError):
        insert(text, LIST)


def test_an_anchor_that_others_mean_is_not_redefined():
    """An insertion that changes a value behind it, here through an anchor, is refused."""
    text = "a: &x 1\nplugins:\n  loaders:\n  - name: old\nb: *x\n"
    with pytest.raises(NoPlaceError):
        insert(text, Block(("plugins", "loaders"), "- name: new\n  c: &x 2\n"))
