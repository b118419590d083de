"""Cold start: what is presumed of newcomers by where they come from, and how soon it gives way to what they do."""

from tests.house import House

PRIORS = {
    "catalogues": ["commerce"],
    "priors": [
        {
            "when": {"context.campaign.source": "runners-blog"},
            "of": "category",
            "value": "shoes",
            "weight": 4,
        },
        {"when": {"context.campaign.source": ["hat-fans", "hat-news"]}, "of": "category", "value": "hats"},
        {"when": {"traits.interests": "bags"}, "of": "category", "value": "bags", "weight": 10},
    ],
}
HERO = {
    "variants": [
        {"id": "shoes", "rule": "profile.primaryInterest == 'shoes'"},
        {"id": "hats", "rule": "profile.primaryInterest == 'hats'"},
        {"id": "bags", "rule": "profile.primaryInterest == 'bags'"},
        {"id": "everyone", "rule": "profile.primaryInterest == ''"},
    ]
}


def home() -> House:
    made = House(features=PRIORS)
    made.declare("hero", **HERO)
    return made


def first_decision(source: str | None) -> str:
    context = {} if source is None else {"campaign": {"source": source}}
    return home().decide("new", "hero", context=context).decision.choices[0].id


def test_the_first_decision_for_a_new_visitor_differs_by_source():
    sources = ("runners-blog", "hat-fans", "hat-news", None, "elsewhere")
    assert [first_decision(source) for source in sources] == ["shoes", "hats", "hats", "everyone", "everyone"]


def test_what_is_presumed_is_kept_from_the_first_event_on_and_given_once():
    made = home()
    for _ in range(3):
        made.send("a", event="Page Viewed", context={"campaign": {"source": "runners-blog"}})
    assert made.decide("a", "hero").decision.choices[0].id == "shoes"
    found = made.variables("anonymous_id:a")
    assert found["category_affinity_total_30d"] == 4.0
    assert made.world.features.reading.index["category_affinity_total_30d"]


def test_answers_at_onboarding_are_affinities():
    made = home()
    made.send(None, "u", type="identify", traits={"interests": ["bags", "belts"]})
    assert made.decide(None, "hero", user="u").decision.choices[0].id == "bags"


def test_what_somebody_does_soon_outweighs_what_was_presumed():
    made = home()
    made.send("a", event="Page Viewed", context={"campaign": {"source": "hat-fans"}})
    for _ in range(2):
        made.send("a", event="Product Viewed", properties={"category": "shoes"})
    assert made.decide("a", "hero").decision.choices[0].id == "shoes", (
        "two early events weigh four, the prior three"
    )
