"""What the documentation says is true: examples decode, links lead on, nothing is left out."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tailorbird.app.cli import COMMANDS
from tailorbird.app.config import Config
from tailorbird.decide.compiled import GOAL_VARIABLES, RULE_VARIABLES, check
from tailorbird.deliver.api import parse_decide
from tailorbird.features.defaults import expanded
from tailorbird.features.program import Program
from tailorbird.features.vocabulary import Vocabulary
from tailorbird.limits import PLACEMENTS_PER_REQUEST_MAX
from tailorbird.live.rule_segments import check_segment
from tailorbird.rules.cel import compile_expression
from tailorbird.schema.computed import Churn, ComputedAttribute, Engagement, LifetimeValue
from tailorbird.schema.feature import Feature, FeatureConfig, FeaturesPut
from tailorbird.schema.placement import (
    CandidateQuery,
    Constraints,
    Fixed,
    FrequencyCap,
    Goal,
    Placement,
    Rule,
    Strategy,
    Thompson,
    Variant,
)
from tailorbird.schema.segment import EventSequence, RuleSegment, SequenceStep

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PLACEMENT_STRUCTS = (
    Placement,
    Variant,
    Thompson,
    Fixed,
    Goal,
    Rule,
    FrequencyCap,
    Constraints,
    CandidateQuery,
    Strategy,
)

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PUT = re.compile(r"admin/v1/placements/(\S+) [^\n]*-d '(.*?)'\n", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def placements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where it stands, and the fields, of every placement that the documentation shows."""
    for page in PAGES:
        decoded = [json.loads(text) for text in blocks(page, "json")]
        decoded += [tomllib.loads(text) for text in blocks(page, "toml")]
        for script in blocks(page, "sh"):
            decoded += [{"key": key, **json.loads(body)} for key, body in _PUT.findall(script)]
        for fields in decoded:
            if {"variants", "candidates", "strategies"} & fields.keys():
                yield page.name, {"key": "from-its-file", **fields}


PLACEMENTS = list(placements())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def links() -> list[tuple[Path, str]]:
    found = [(page, link) for page in PAGES for link in _LINK.findall(page.read_text("utf-8"))]
    return [(page, link) for page, link in found if "://" not in link]


def test_placements_are_shown_in_the_readme_and_in_the_guide_as_json_and_toml():
    assert [name for name, _ in PLACEMENTS].count("README.md") == 1
    assert [name for name, _ in PLACEMENTS].count("placements.md") == 3


@pytest.mark.parametrize(("page", "fields"), PLACEMENTS)
def test_a_placement_that_is_shown_can_be_declared(page, fields):
    check(msgspec.convert(fields, Placement))


def test_the_computed_attributes_that_are_shown_are_the_defaults():
    shown = blocks(GUIDES / "computed-attributes.md", "json")
    decoded = [msgspec.json.decode(text, type=ComputedAttribute) for text in shown]
    assert decoded == [Engagement(), Churn(), LifetimeValue()]


def test_a_decision_request_that_is_shown_is_understood():
    (body,) = [text for text in blocks(GUIDES / "placements.md", "json") if '"visitor"' in text]
    asked = parse_decide(body.encode())
    assert 0 < len(asked.placements) <= PLACEMENTS_PER_REQUEST_MAX


def test_every_condition_that_is_shown_compiles():
    (text,) = blocks(GUIDES / "placements.md", "cel")
    assert len(text.splitlines()) > 10
    for line in text.splitlines():
        compile_expression(line, "placements.md", RULE_VARIABLES | GOAL_VARIABLES)


def test_a_segment_that_is_shown_can_be_declared_and_every_field_is_named():
    page = GUIDES / "segments.md"
    shown = [json.loads(text) for text in blocks(page, "json")]
    shown += [{"key": "from-its-file", **tomllib.loads(text)} for text in blocks(page, "toml")]
    segments = [
        msgspec.convert(fields, RuleSegment) for fields in shown if {"rule", "sequence"} & fields.keys()
    ]
    assert len(segments) == 2
    for segment in segments:
        check_segment(segment, {})
    text = page.read_text(encoding="utf-8")
    for struct in (RuleSegment, EventSequence, SequenceStep):
        fields = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert {name for name in fields if f"`{name}`" not in text and f'"{name}"' not in text} == set()


@pytest.mark.parametrize("struct", PLACEMENT_STRUCTS, ids=lambda struct: struct.__name__)
def test_the_guide_names_every_field_of_a_placement(struct):
    text = (GUIDES / "placements.md").read_text(encoding="utf-8")
    fields = {field.encode_name for field in msgspec.structs.fields(struct)}
    assert {name for name in fields if f"`{name}`" not in text and f'"{name}"' not in text} == set()


def test_every_setting_is_documented_with_its_default():
    text = (GUIDES / "operations.md").read_text(encoding="utf-8")
    for field in msgspec.structs.fields(Config):
        default = (
            f"`{json.dumps(field.default)}`"
            if not isinstance(field.default, msgspec.Struct | tuple)
            else "a table"
        )
        assert f"| `{field.name}` | {default} |" in text, field.name


def test_every_metric_is_documented():
    source = (ROOT / "src/tailorbird/app/metrics.py").read_text(encoding="utf-8")
    metrics = set(re.findall(r'"(tailorbird_\w+)"', source))
    text = (GUIDES / "operations.md").read_text(encoding="utf-8")
    assert len(metrics) > 5
    assert {name for name in metrics if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(("page", "link"), links(), ids=lambda value: getattr(value, "name", value))
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert target.is_relative_to(ROOT)
    assert not anchor or anchor in anchors(target)


def test_decisions_on_record_are_numbered_without_gaps_and_all_listed():
    folder = ROOT / "docs" / "adr"
    names = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    listed = (folder / "README.md").read_text(encoding="utf-8")
    assert {name for name in names if f"({name})" not in listed} == set()


def test_the_changelog_names_every_command():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert {name for name in COMMANDS if f"`{name}" not in text} == set()


def test_every_code_path_that_the_architecture_names_is_there():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+/\w+\.py)`", text))
    assert len(named) > 20
    assert {name for name in named if not (ROOT / "src/tailorbird" / name).is_file()} == set()


FEATURE_BLOCKS = [
    tomllib.loads(text)["features"]
    for text in blocks(GUIDES / "features.md", "toml")
    if "features" in tomllib.loads(text)
]


def test_every_kind_of_feature_is_in_the_guide():
    text = (GUIDES / "features.md").read_text(encoding="utf-8")
    for kind in get_args(Feature):
        assert f"| `{kind.__struct_config__.tag}` |" in text, kind


@pytest.mark.parametrize("fields", FEATURE_BLOCKS)
def test_features_that_are_shown_can_be_declared(fields):
    config = msgspec.convert(fields, FeatureConfig)
    Program(FeaturesPut(0.0, config, expanded(config)), Vocabulary(lambda _name, _code: None))
