"""What a declaration must be before it can be decided on: each fault is named with its path."""

import msgspec
import pytest

from tailorbird.decide.compiled import CompiledPlacement, check
from tailorbird.errors import InvalidInputError
from tailorbird.schema.placement import Fixed, Placement

AB = [{"id": "a"}, {"id": "b"}]


def placement(**fields) -> Placement:
    return msgspec.convert({"key": "hero", **fields}, Placement)


def faults(**fields) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInputError) as caught:
        check(placement(**fields))
    return [(fault.path, fault.rule) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("fields", "path", "rule"),
    [
        ({}, "variants", "a variant placement needs at least one"),
        ({"variants": AB, "candidates": {}}, "candidates", "belongs to a list placement"),
        (
            {"variants": AB, "strategies": [{"id": "s", "weights": {"recency": 1}}]},
            "candidates",
            "belongs to a list",
        ),
        ({"kind": "list", "variants": AB}, "variants", "a list placement has strategies instead"),
        ({"variants": AB, "floor": 0.6}, "floor", "floors of 2 candidates add up to at most 1"),
        ({"kind": "list", "floor": 0.3}, "floor", "floors of 4 candidates"),
        ({"variants": [*AB, {"id": "a"}]}, "variants.id", "each id is given once"),
        ({"variants": AB, "fallback": "c"}, "fallback", "one of a, b"),
        (
            {"variants": AB, "policy": {"type": "fixed", "weights": {"c": 1}}},
            "policy.weights",
            "names a candidate",
        ),
        ({"variants": [{"id": "a", "rule": "profile."}]}, "variants[0].rule", "must be CEL"),
        (
            {"variants": [{"id": "a", "rule": "item.price > 1"}]},
            "variants[0].rule",
            "'item' is not one of them",
        ),
        ({"variants": AB, "rules": [{"name": "r", "when": "("}]}, "rules[0].when", "must be CEL"),
        (
            {"variants": AB, "goal": {"event": "E", "value": "profile.x"}},
            "goal.value",
            "'profile' is not one",
        ),
        (
            {"kind": "list", "candidates": {"query": "profile.x > 1"}},
            "candidates.query",
            "'profile' is not one",
        ),
        (
            {"variants": AB, "rules": [{"name": "r", "when": "true"}, {"name": "r", "when": "false"}]},
            "rules.name",
            "each name is given once",
        ),
        (
            {
                "kind": "list",
                "candidates": {"sources": ["popularity"]},
                "strategies": [{"id": "s", "weights": {"recency": 1}}],
            },
            "strategies[0].weights",
            "names a source of candidates.sources",
        ),
    ],
)
def test_a_contradiction_is_named(fields, path, rule):
    found = faults(**fields)
    assert found[0][0] == path
    assert rule in found[0][1]


def test_several_faults_are_named_at_once():
    found = faults(variants=[{"id": "a"}, {"id": "a"}], floor=0.9, fallback="z")
    assert [path for path, _ in found] == ["floor", "variants.id", "fallback"]


def test_floors_may_add_up_to_one_exactly():
    for count in range(1, 101):
        check(placement(variants=[{"id": str(number)} for number in range(count)], floor=1 / count))


def test_defaults_of_a_list_are_written_out():
    made = check(placement(kind="list"))
    assert [strategy.id for strategy in made.strategies] == ["popularity", "covisitation", "recency", "blend"]
    assert made.candidates.limit == 100
    assert check(made) == made
    single = check(placement(kind="list", candidates={"sources": ["recency"]}))
    assert [strategy.id for strategy in single.strategies] == ["recency"]


def test_a_variant_placement_passes_as_it_is():
    declared = placement(variants=AB, policy={"type": "fixed", "weights": {"b": 2}}, fallback="b")
    assert check(declared) == declared
    assert declared.policy == Fixed({"b": 2})


def test_rules_are_told_apart_by_what_they_read():
    compiled = CompiledPlacement(
        check(
            placement(
                kind="list",
                rules=[
                    {"name": "static", "when": "item.margin < 0.2"},
                    {"name": "personal", "when": "item.price > profile.budget"},
                    {"name": "visit", "when": "context.page.path == '/cart'"},
                ],
            )
        )
    )
    assert [(rule.is_static, rule.is_about_item) for rule in compiled.rules] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert compiled.profile_fields == {"budget"}


def test_the_profile_fields_that_rules_read_are_told_or_not_known():
    def fields_of(*rules: str) -> frozenset[str] | None:
        variants = [{"id": str(number), "rule": rule} for number, rule in enumerate(rules)]
        return CompiledPlacement(check(placement(variants=variants))).profile_fields

    assert fields_of("profile.plan == 'pro'", "profile.views_7d > 1.0") == {"plan", "views_7d"}
    assert fields_of("now > 1.0") == frozenset()
    assert fields_of("profile.plan == 'pro'", "size(profile) > 1") is None


def test_sets_of_eligible_arms_that_are_remembered_are_bounded():
    compiled = CompiledPlacement(check(placement(variants=AB)))
    first = compiled.cache_of(("a",))
    assert compiled.cache_of(("a",)) is first
    for number in range(200):
        compiled.cache_of((str(number),))
    assert compiled.cache_of(("a",)) is not first
