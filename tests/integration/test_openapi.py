"""The OpenAPI document describes the doors that are really there."""

import httpx
import pytest

PROMISED = {
    "/v1/decide": {"get", "post"},
    "/v1/outcomes": {"post"},
    "/v1/batch": {"post"},
    "/v1/track": {"post"},
    "/ofrep/v1/evaluate/flags": {"post"},
    "/ofrep/v1/evaluate/flags/{key}": {"post"},
    "/admin/v1/placements": {"get"},
    "/admin/v1/placements/{key}": {"get", "put", "delete"},
    "/admin/v1/items": {"put"},
    "/admin/v1/items/{id}": {"get", "patch", "delete"},
    "/admin/v1/profiles/{identifier}": {"get"},
    "/admin/v1/profiles/{identifier}/consent": {"put"},
    "/admin/v1/decisions/{id}": {"get"},
    "/admin/v1/readouts": {"get"},
    "/opendsr/v1/discovery": {"get"},
    "/opendsr/v1/requests": {"post"},
    "/opendsr/v1/requests/{id}": {"get", "delete"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
    "/openapi.json": {"get"},
}
"""The native interface's paths and methods: a contract with clients."""


@pytest.fixture(scope="module")
def document(server):
    return server.must("GET", "/openapi.json")


def test_every_promised_path_is_described(document):
    described = {path: set(methods) for path, methods in document["paths"].items()}
    for path, methods in PROMISED.items():
        assert methods <= described.get(path, set()), path


def test_every_reference_leads_somewhere(document):
    for reference in references(document):
        at = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(document):
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"].endswith(".") for operation in operations)


def test_what_is_not_open_says_that_it_needs_a_key(document, server):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "security" in operation and "{" not in path:
                answer = httpx.request(method, server.url + path, content=b"{}")
                # The source configuration is asked for by key alone: an unknown one finds nothing.
                expected = 404 if path.startswith("/sourceConfig") else 401
                assert answer.status_code == expected, (method, path)


def references(value):
    """Yield every `$ref` in a document."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)
