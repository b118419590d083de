"""Links taken back, through the doors: two people, at once and after every kind of restart."""

import pytest
from tests.integration.api import Api

PATH = "/admin/v1/revoked-links"


def view(api: Api, identifier: str) -> dict:
    answer = api.admin.get(f"/admin/v1/profiles/{identifier}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def sign_in(api: Api) -> tuple[str, str]:
    """Let somebody look around, and somebody else sign in on the same device."""
    device, user = api.name("device"), api.name("user")
    api.track("Product Viewed", anonymousId=device, category="hats")
    api.track("Product Viewed", anonymousId=device, userId=user, category="shoes")
    return device, user


def revoke(api: Api, device: str, user: str) -> dict:
    answer = api.admin.put(PATH, json={"anonymousId": device, "userId": user})
    assert answer.status_code == 200, answer.text
    return answer.json()


def lift(api: Api, device: str, user: str):
    return api.admin.delete(PATH, params={"anonymousId": device, "userId": user})


def test_a_link_taken_back_leaves_two_people_as_if_it_had_never_been(api):
    device, user = sign_in(api)
    whole = view(api, f"user_id:{user}")
    assert whole["features"]["product_viewed_count"] == 2.0
    answer = revoke(api, device, user)
    assert answer["revoked"] is True
    one, two = view(api, f"anonymous_id:{device}"), view(api, f"user_id:{user}")
    assert answer["profiles"] == {
        f"anonymous_id:{device}": one["profileId"],
        f"user_id:{user}": two["profileId"],
    }
    assert one["profileId"] != two["profileId"]
    assert (one["primaryInterest"], two["primaryInterest"]) == ("hats", "shoes")
    assert one["features"]["product_viewed_count"] == two["features"]["product_viewed_count"] == 1.0
    api.track("Product Viewed", anonymousId=device, userId=user)
    assert view(api, f"anonymous_id:{device}")["features"]["product_viewed_count"] == 1.0
    assert view(api, f"user_id:{user}")["features"]["product_viewed_count"] == 2.0
    assert revoke(api, device, user) == answer, "a second time changes nothing"
    pair = [f"anonymous_id:{device}", f"user_id:{user}"]
    assert {"identifiers": pair} in api.admin.get(PATH).json()["links"]

    assert lift(api, device, user).status_code == 200
    again = view(api, f"user_id:{user}")
    assert again["profileId"] == whole["profileId"]
    assert again["features"]["product_viewed_count"] == 3.0
    assert {"identifiers": pair} not in api.admin.get(PATH).json()["links"]


def test_what_is_not_linked_cannot_be_taken_apart(api):
    device, user = sign_in(api)
    other = api.name("device")
    api.track("Product Viewed", anonymousId=other)
    for named, status in (
        ({"anonymousId": other, "userId": user}, 409),
        ({"anonymousId": "nobody-met", "userId": user}, 409),
        ({"anonymousId": device}, 400),
        ({"anonymousId": device, "userId": "null"}, 400),
        ({"anonymousId": device, "userId": user, "more": 1}, 400),
    ):
        answer = api.admin.put(PATH, json=named)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert lift(api, device, user).status_code == 404
    assert lift(api, device, "").status_code == 400


@pytest.mark.parametrize("key", ["write", "back_end"])
def test_taking_links_back_is_for_operators(api, key):
    client = getattr(api, key)
    assert client.put(PATH, json={"anonymousId": "a", "userId": "u"}).status_code == 403
    assert client.get(PATH).status_code == 403
    assert client.delete(PATH, params={"anonymousId": "a", "userId": "u"}).status_code == 403


def test_an_erased_person_s_revocation_goes_with_them(api):
    device, user = sign_in(api)
    revoke(api, device, user)
    identity = {"identity_type": "controller_customer_id", "identity_value": user, "identity_format": "raw"}
    body = {
        "subject_request_id": api.name("erase"),
        "subject_request_type": "erasure",
        "subject_identities": [identity],
    }
    answer = api.admin.post("/opendsr/v1/requests", params={"wait": "true"}, json=body)
    assert answer.status_code == 201, answer.text
    assert api.admin.get(f"/admin/v1/profiles/user_id:{user}").status_code == 404
    assert view(api, f"anonymous_id:{device}")["features"]["product_viewed_count"] == 1.0
    assert f"user_id:{user}" not in api.admin.get(PATH).text
