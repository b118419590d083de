"""Links by the doors and the command line: declared, suggested, accepted, rejected, and revoked of any two identifiers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from tests.integration.api import Api

LINKS = "/admin/v1/links"
SUGGESTED = "/admin/v1/suggested-links"
REVOKED = "/admin/v1/revoked-links"


def view(api: Api, identifier: str) -> dict:
    answer = api.admin.get(f"/admin/v1/profiles/{identifier}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def is_one(api: Api, one: str, other: str) -> bool:
    return view(api, one)["profileId"] == view(api, other)["profileId"]


def two_visitors(api: Api) -> tuple[str, str]:
    names = api.name("one"), api.name("other")
    for name in names:
        api.track("Product Viewed", anonymousId=name)
    return f"anonymous_id:{names[0]}", f"anonymous_id:{names[1]}"


def declare(api: Api, *rows: dict) -> dict:
    answer = api.admin.put(LINKS, json={"links": list(rows)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def suggestion(api: Api, one: str, other: str, **query: str) -> dict | None:
    found = api.admin.get(SUGGESTED, params={"limit": 1000, **query}).json()["suggestions"]
    return next((each for each in found if set(each["identifiers"]) == {one, other}), None)


def links(api: Api, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `tailorbird links` against the server."""
    program = os.environ.get("TAILORBIRD_COMMAND") or str(Path(sys.executable).with_name("tailorbird"))
    command = [program, "links", *map(str, arguments), "--json", "--url", api.server.url]
    environment = os.environ | {"TAILORBIRD_ADMIN_KEY": api.server.admin_key}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_declared_link_makes_one_person_and_says_who_said_so(api):
    one, other = two_visitors(api)
    answer = declare(api, {"identifiers": [one, other], "source": "partner", "confidence": 0.95})
    assert answer == {"linked": 1, "suggested": 0, "refused": 0, "wrong": 0, "errors": []}
    assert is_one(api, one, other)
    link = view(api, one)["links"][-1]
    assert (link["rule"], link["messageId"]) == ("declared", "partner")
    assert link["mergedProfile"]


def test_rows_are_taken_one_by_one_and_each_fault_names_its_row(api):
    one, other = two_visitors(api)
    user, second = api.name("user"), api.name("user")
    api.identify(userId=user)
    api.identify(userId=second)
    answer = declare(
        api,
        {"identifiers": [one, other], "source": "s"},
        {"identifiers": [one, one], "source": "s"},
        {"identifiers": [one, "no colon"], "source": "s"},
        {"identifiers": [one, "user_id:null"], "source": "s"},
        {"identifiers": [one, "profile:p-1"], "source": "s"},
        {"identifiers": [one, other], "source": "s", "confidence": 2},
        {"identifiers": [one, other], "source": "s", "at": "yesterday"},
        {"identifiers": [one], "source": "s"},
        {"identifiers": [one, other]},
        {"identifiers": [f"user_id:{user}", f"user_id:{second}"], "source": "s"},
    )
    assert (answer["linked"], answer["refused"], answer["wrong"]) == (1, 1, 8)
    assert [error["path"] for error in answer["errors"]] == [
        "links[1].identifiers", "links[2].identifiers[1]", "links[3].identifiers[1]", "links[4].identifiers[1]",
        "links[5].confidence", "links[6].at", "links[7].identifiers", "links[8]", "links[9]",
    ]  # fmt: skip
    assert not is_one(api, f"user_id:{user}", f"user_id:{second}")


@pytest.mark.parametrize(
    "body", [{}, {"links": []}, {"links": [1] * 1001}, {"links": 3}, {"links": [1], "more": 1}]
)
def test_a_body_that_is_no_list_of_links_is_refused_whole(api, body):
    answer = api.admin.put(LINKS, json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"]


def test_too_little_confidence_suggests_and_acceptance_links(api):
    one, other = two_visitors(api)
    assert declare(api, {"identifiers": [one, other], "source": "weak", "confidence": 0.4})["suggested"] == 1
    assert not is_one(api, one, other)
    found = suggestion(api, one, other)
    assert (found["source"], found["score"], found["rejected"]) == ("weak", 0.4, False)
    assert found["profiles"] == {name: view(api, name)["profileId"] for name in (one, other)}
    answer = api.admin.put(SUGGESTED, json={"identifiers": [other, one], "accepted": True})
    assert answer.status_code == 200, answer.text
    assert is_one(api, one, other)
    assert suggestion(api, one, other) is None
    again = api.admin.put(SUGGESTED, json={"identifiers": [one, other], "accepted": True})
    assert again.status_code == 404


def test_what_was_rejected_is_not_suggested_again(api):
    one, other = two_visitors(api)
    row = {"identifiers": [one, other], "source": "weak", "confidence": 0.4}
    declare(api, row)
    assert api.admin.put(SUGGESTED, json={"identifiers": [one, other], "accepted": False}).status_code == 200
    declare(api, {**row, "confidence": 0.8})
    assert suggestion(api, one, other) is None
    assert suggestion(api, one, other, rejected="true")["rejected"] is True
    assert not is_one(api, one, other)


def test_a_suggestion_that_a_rule_forbids_says_so_when_it_is_accepted(api):
    one, other = api.name("user"), api.name("user")
    api.identify(userId=one)
    api.identify(userId=other)
    pair = [f"user_id:{one}", f"user_id:{other}"]
    declare(api, {"identifiers": pair, "source": "splink", "needsReview": True})
    answer = api.admin.put(SUGGESTED, json={"identifiers": pair, "accepted": True})
    assert answer.status_code == 409
    assert "two people" in answer.json()["detail"]


def test_people_with_one_fingerprint_are_suggested_with_consent_and_never_joined(api):
    print_ = api.name("print")
    yes = {"consent": {"categoryPreferences": {"fingerprinting": True}}}
    names = [api.name("visitor") for _ in range(3)]
    for name in names[:2]:
        api.track("Product Viewed", anonymousId=name, context={"fingerprint": print_, **yes})
    api.track("Product Viewed", anonymousId=names[2], context={"fingerprint": print_})
    first, second, third = (f"anonymous_id:{name}" for name in names)
    assert suggestion(api, first, second)["score"] == 0.5
    assert suggestion(api, first, second)["source"] == "fingerprint"
    assert suggestion(api, first, third) is None
    assert not is_one(api, first, second)


def test_a_link_of_any_two_identifiers_can_be_taken_back(api):
    device, address = api.name("device"), f"{api.name('jo')}@x.example"
    api.track("Product Viewed", anonymousId=device)
    api.identify({"email": address}, anonymousId=device)
    pair = [f"anonymous_id:{device}", f"email:{address}"]
    assert is_one(api, *pair)
    answer = api.admin.put(REVOKED, json={"identifiers": pair})
    assert answer.status_code == 200, answer.text
    assert answer.json()["revoked"] is True
    assert not is_one(api, *pair)
    assert view(api, pair[0])["features"]["product_viewed_count"] == 1.0
    params = {"one": pair[0], "other": pair[1]}
    assert api.admin.delete(REVOKED, params=params).status_code == 200
    assert is_one(api, *pair)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"identifiers": ["a:1", "a:1"]}, {"identifiers": ["a:1"]}, {"identifiers": ["profile:p", "a:1"]},
        {"identifiers": ["a:1", "b:1"], "userId": "u"}, {"userId": "u"},
    ],
)  # fmt: skip
def test_a_revocation_names_two_identifiers(api, body):
    assert api.admin.put(REVOKED, json=body).status_code == 400


@pytest.mark.parametrize("key", ["write", "back_end"])
def test_links_are_for_operators(api, key):
    client = getattr(api, key)
    assert client.put(LINKS, json={"links": [1]}).status_code == 403
    assert client.get(SUGGESTED).status_code == 403
    assert client.put(SUGGESTED, json={"identifiers": ["a:1", "a:2"], "accepted": True}).status_code == 403


def test_a_graph_file_is_imported_row_by_row(api, tmp_path):
    pairs = [two_visitors(api) for _ in range(3)]
    file = tmp_path / "partner.csv"
    lines = [
        "one,other,source,confidence,time",
        f"{pairs[0][0]},{pairs[0][1]},,,2024-01-01T00:00:00Z",
        f"{pairs[1][0]},{pairs[1][1]},lab,0.2,",
        f"{pairs[2][0]},nonsense,,many,",
    ]
    file.write_text("\n".join(lines))
    done = links(api, "import", file)
    answer = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert (answer["linked"], answer["suggested"], answer["wrong"]) == (1, 1, 1)
    assert answer["errors"][0]["path"] == "row 3: confidence"
    assert is_one(api, *pairs[0])
    link = next(each for each in view(api, pairs[0][0])["links"] if each["rule"] == "declared")
    assert (link["messageId"], link["at"][:10]) == ("partner", "2024-01-01")
    assert suggestion(api, *pairs[1])["source"] == "lab"


def test_a_graph_file_may_be_parquet(api, tmp_path):
    one, other = two_visitors(api)
    file = tmp_path / "graph.parquet"
    pa.parquet.write_table(pa.table({"one": [one], "other": [other], "confidence": [1.0]}), file)
    done = links(api, "import", file, "--source", "lab")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["linked"] == 1
    assert is_one(api, one, other)


def test_a_file_that_is_no_graph_says_why(api, tmp_path):
    file = tmp_path / "odd.csv"
    file.write_text("a,b\n1,2\n")
    done = links(api, "import", file)
    assert done.returncode == 2
    assert "has no column one and other (it has a, b)" in done.stderr
    assert links(api, "import", tmp_path / "absent.csv").returncode == 2
    assert links(api, "import").returncode == 2


def test_links_are_revoked_restored_accepted_and_shown_on_the_command_line(api):
    one, other = two_visitors(api)
    declare(api, {"identifiers": [one, other], "source": "s", "confidence": 0.3})
    assert any(
        set(each["identifiers"]) == {one, other}
        for each in json.loads(links(api, "show").stdout)["suggestions"]
    )
    assert links(api, "accept", one, other).returncode == 0
    assert is_one(api, one, other)
    assert json.loads(links(api, "revoke", one, other).stdout)["revoked"] is True
    assert not is_one(api, one, other)
    shown = json.loads(links(api, "show").stdout)
    assert {"identifiers": sorted((one, other))} in shown["revoked"]
    assert json.loads(links(api, "restore", one, other).stdout)["revoked"] is False
    assert is_one(api, one, other)
    refused = links(api, "restore", one, other)
    assert refused.returncode == 1
    assert "is not revoked" in refused.stderr
