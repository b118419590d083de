"""Benchmarks measure what they say: the same people from the same seed, values that agree, every promise kept."""

import numpy as np
import pytest
from benchmarks import identity, peers
from benchmarks.budget import check
from benchmarks.feast_peer import SQLITE, Feast, is_installed
from benchmarks.inside import DAY, Inside, anonymous_id, histories, signed_in, user_id
from benchmarks.report import flatten

from tailorbird.live.profiles import by_identifier, find
from tailorbird.live.variables import by_name


@pytest.fixture
def own(tmp_path):
    installation = peers.filled(tmp_path / "own", 40)
    yield installation
    installation.close()


def test_one_seed_makes_the_same_people_byte_for_byte(tmp_path):
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        own = Inside(tmp_path / name)
        own.write(list(histories(np.random.default_rng(3), range(30), 10, DAY)))
        own.write([signed_in(1, 1, identity.BEGIN + DAY, "link")])
        own.world.checkpoint()
        digests.add(own.world.store.digest())
        assert by_identifier(own.world, f"user_id:{user_id(1)}") is find(own.world, anonymous_id(1), None)
        own.close()
    assert len(digests) == 1


def test_every_promise_about_identity_is_measured(tmp_path):
    plan = identity.Plan(
        300, rounds=1, reads=200, warm_up=100, merges=20, unmerge_visitors=50, idle_seconds=0.2
    )
    figures = identity.measured(tmp_path, plan)
    assert figures["profiles"] == 300
    assert figures["identifiers"] == 600
    assert figures["unmerge"]["records"] > 50
    assert figures["unmerge"]["door"]["events"] > 0
    breaches = check("identity", flatten(figures))
    assert not [breach for breach in breaches if "was not measured" in breach]


def test_the_hundred_variables_are_what_they_are_called(own):
    at = own.world.newest + 60.0
    assert len(set(peers.NAMES)) == peers.VARIABLES
    for number in range(40):
        profile = find(own.world, anonymous_id(number), None)
        named = by_name(own.world, profile, at)
        row = peers.hundred_of(own.world, number, at)
        assert row == pytest.approx({name: named.get(name, 0.0) for name in peers.NAMES}, rel=1e-6)
        assert any(row.values())


def test_one_value_that_differs_stops_the_comparison(own):
    rows = {"v": peers.hundred_of(own.world, 0, own.world.newest)}
    peers.agree(rows, {"v": dict(rows["v"])})
    name = peers.NAMES[-1]
    with pytest.raises(AssertionError, match=name):
        peers.agree(rows, {"v": rows["v"] | {name: rows["v"][name] + 1.0}})


def test_ratios_are_to_the_quickest_of_the_peer_s_ways_and_stores():
    def took(us):
        return {"p50_us": us, "cpu_p50_us": us}

    figures = {
        "read": {
            "tailorbird": {"hundred": took(10.0), "vector": took(5.0), "cold": took(50.0)},
            "feast_sqlite": {"sdk": took(1_000.0)},
            "feast_redis": {"sdk": took(500.0)},
        },
        "update": {
            "tailorbird": {"fold": took(50.0), "committed": took(100.0), "durable": took(200.0)},
            "feast_sqlite": {"push": took(40_000.0), "write": took(20_000.0)},
            "feast_redis": {"push": took(10_000.0), "write": took(30_000.0)},
        },
        "http": {
            "tailorbird": {"profile": took(400.0), "event": took(800.0)},
            "feast_sqlite": {"read": took(4_000.0), "push": took(32_000.0)},
            "feast_redis": {"read": took(6_000.0), "push": took(16_000.0)},
        },
    }
    assert peers.ratios(figures) == {
        "read": 50.0,
        "read_vector": 100.0,
        "read_cold": 10.0,
        "read_http": 10.0,
        "update": 200.0,
        "update_committed": 100.0,
        "update_durable": 50.0,
        "update_http": 20.0,
    }
    assert not check("peers", flatten({"ratio": peers.ratios(figures)}))


def test_without_feast_the_comparison_says_what_to_make(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "is_installed", lambda: False)
    with pytest.raises(SystemExit, match="make bench-peers"):
        peers.measure(tmp_path, is_fast=True)


@pytest.mark.skipif(not is_installed(), reason="Feast is not installed: make bench-peers")
def test_feast_holds_the_same_values_and_is_timed(tmp_path, own):
    rows = {anonymous_id(n): peers.hundred_of(own.world, n, own.world.newest) for n in range(40)}
    feast = Feast(tmp_path / "feast", SQLITE)
    peers.agree(rows, feast.prepare(rows, own.world.newest))
    found = feast.measure(reads=3, updates=2, seed=1)
    assert {name: len(times) for name, times in found.items()} == {"read": 3, "push": 2, "write": 2}
    assert feast.versions["feast"]
