"""Placements that the OpenFeature tests evaluate, one a type of value and a way to decide."""

from typing import Any

from tests.serving import Server

HERO = {"a": {"headline": "Hi", "items": [1, 2]}, "b": {"headline": "Hello", "items": []}}


def declare(server: Server) -> None:
    """Put all placements; nobody is held out, so that every answer is decided."""
    for key, placement in _placements().items():
        server.must("PUT", f"/admin/v1/placements/{key}", {"key": key, "holdout": 0.0, **placement})


def _placements() -> dict[str, dict[str, Any]]:
    hero = [{"id": name, "value": value} for name, value in HERO.items()]
    by_country = [
        {"id": "german", "value": "Hallo", "rule": "context.country == 'DE'"},
        {"id": "english", "value": "Hello", "rule": "context.country != 'DE'"},
    ]
    return {
        "home-hero": {"variants": hero, "policy": {"type": "fixed"}, "stickySeconds": 600},
        "greeting": {"variants": by_country},
        "banner": {"variants": [{"id": "on", "value": True}]},
        "slots": {"variants": [{"id": "three", "value": 3}]},
        "ratio": {"variants": [{"id": "whole", "value": 1.0}]},
        "checkout/button": {"variants": [{"id": "green", "value": "green"}]},
    }
