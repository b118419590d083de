"""Expressions: what compiles, what is refused and why, and what happens when values do not fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailorbird.errors import InvalidInputError
from tailorbird.limits import RULE_LENGTH_MAX
from tailorbird.rules.cel import RuleError, compile_expression, context_of

ALLOWED = frozenset({"profile", "item", "context", "now"})


def compiled(source: str):
    return compile_expression(source, "rules[0].when", ALLOWED)


def refusal(source: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        compiled(source)
    (fault,) = caught.value.faults
    assert fault.path == "rules[0].when"
    return fault.rule


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("profile.views_7d > 3.0 && 'vip' in profile.segments", True),
        ("item.price * 2.0", 9.0),
        ("profile.segments.exists(s, s == 'vip')", True),
        ("profile.segments.filter(s, s.startsWith('v'))", ["vip"]),
        ("now > 5.0 ? 'late' : 'early'", "late"),
        ("size(item.tags)", 0),
        ("has(profile.plan)", False),
    ],
)
def test_an_expression_is_evaluated_on_its_values(source, value):
    facts = {
        "profile": {"views_7d": 4.0, "segments": ["vip"]},
        "item": {"price": 4.5, "tags": []},
        "now": 9.0,
    }
    assert compiled(source).evaluate(facts) == value
    assert compiled(source).evaluate(context_of(facts)) == value


def test_variables_are_those_that_are_read_and_not_those_that_are_bound():
    assert compiled("item.price > 3.0 && context.x == 1").variables == {"item", "context"}
    assert compiled("profile.segments.exists(s, s == 'vip')").variables == {"profile"}
    assert compiled("true").variables == frozenset()


def test_an_unknown_variable_is_refused_by_name():
    assert "'visitor' is not one of them" in refusal("visitor.age > 3")
    assert "context, item, now, profile" in refusal("visitor.age > 3")


def test_limits_name_themselves():
    assert refusal("'" + "a" * RULE_LENGTH_MAX + "'") == f"at most {RULE_LENGTH_MAX} characters"
    assert refusal("(" * 33 + "1" + ")" * 33) == "at most 32 levels of brackets"
    assert "at most one of map" in refusal("item.tags.map(a, item.tags.map(b, a + b))")
    assert "at most one of map" in refusal("item.a.all(x, x) && item.b.exists_one (y, y)")


def test_brackets_and_macros_inside_text_do_not_count():
    assert compiled("item.title == '" + "(" * 40 + "'").evaluate({"item": {"title": "x"}}) is False
    assert compiled('item.title == ".map(.map(.filter("').variables == {"item"}


@pytest.mark.parametrize("source", ["", "profile.", "1 +", "'open", "a b", "profile.?a", "for x in y"])
def test_what_is_not_cel_is_refused(source):
    assert refusal(source).startswith("must be CEL: ")


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        ("profile.missing > 3", {"profile": {}}),
        ("profile.age > 3", {"profile": {"age": "old"}}),
        ("item.price / item.stock > 1", {"item": {"price": 1, "stock": 0}}),
        ("profile.tags[4] == 'x'", {"profile": {"tags": []}}),
        ("timestamp(profile.born) > timestamp('2000-01-01T00:00:00Z')", {"profile": {"born": "soon"}}),
        ("now > 3.0", {}),
        ("'text'", {}),
    ],
)
def test_values_that_do_not_fit_are_a_rule_error_that_quotes_the_source(source, facts):
    with pytest.raises(RuleError) as caught:
        compiled(source).is_true(facts)
    assert repr(source) in str(caught.value)


def test_facts_without_a_counterpart_are_a_rule_error():
    with pytest.raises(RuleError, match="the facts cannot be read"):
        context_of({"profile": {"age": object()}})


@pytest.mark.parametrize("value", [2**64, -(2**70)])
def test_an_integer_beyond_64_bits_is_seen_as_a_double(value):
    found = compiled("profile.age").evaluate(context_of({"profile": {"age": value}}))
    assert (type(found), found) == (float, float(value))


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("profile.views_7d > 3.0 && profile.plan == 'pro'", {"views_7d", "plan"}),
        ("'vip' in profile.segments", {"segments"}),
        ("profile.segments.exists(s, s == 'profile.x')", {"segments"}),
        ("item.profile.x == 1", set()),
        ("now > 1.0", set()),
        ("profile['plan'] == 'pro'", None),
        ("size(profile) > 3", None),
        ("profile.plan == 'pro' && size(profile) > 3", None),
        ("profile . plan == 'pro'", None),
        ("context.profile.x == 1 && profile['plan'] == 'pro'", None),
        ("context.profile.x == 1 && profile.plan == 'pro'", {"plan"}),
        ("profile.size() > 0", None),
        ("profile.exists(name, name == 'plan')", None),
    ],
)
def test_fields_are_told_or_said_not_to_be_known(source, fields):
    assert compiled(source).fields("profile") == fields


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["profile", "item", ".", "x", "(", ")", "[", "]", "'", '"', "\\", " ", "&&", "!", "-", "?", ":", "1",
             "2.5", "==", "in", "{", "}", ",", "map", "has", "\n", "//", "\x00", "é", "b'", "r'", "9" * 30]
        ),
        max_size=14,
    ).map("".join)
    | st.text(max_size=30)
)  # fmt: skip
def test_any_text_compiles_or_is_refused_and_then_evaluates_or_fails(source):
    try:
        expression = compiled(source)
    except InvalidInputError:
        return
    try:
        expression.is_true({"profile": {"x": 1}, "item": {}, "context": {}, "now": 1.0})
    except RuleError:
        return
