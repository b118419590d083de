"""openfeature-provider-ofrep: one request an evaluation; strict about int and float."""

import dataclasses
from typing import Any

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from plan import run


def deliver(plan: dict[str, Any], report: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {plan['key']}"}
    api.set_provider(OFREPProvider(plan["host"], headers_factory=lambda: headers))
    client = api.get_client()
    report["details"] = [evaluate(client, evaluation) for evaluation in plan["evaluations"]]


def evaluate(client: Any, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Evaluate one flag and return the details, with the Python type of the value by name."""
    method = getattr(client, f"get_{evaluation['type']}_details")
    attributes = dict(evaluation["context"])
    context = EvaluationContext(attributes.pop("targetingKey", None), attributes)
    details = dataclasses.asdict(method(evaluation["flag"], evaluation["default"], context))
    return details | {"value_type": type(details["value"]).__name__}


run(deliver)
