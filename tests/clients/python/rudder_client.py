"""rudder-sdk-python: gzip batches to `/v1/batch`; traits of identify stand in the context alone."""

from typing import Any

from plan import run, send
from rudderstack.analytics.client import Client


def deliver(plan: dict[str, Any], report: dict[str, Any]) -> None:
    client = Client(
        plan["writeKey"],
        host=plan["host"],
        on_error=lambda error, _batch: report["errors"].append(str(error)),
        upload_interval=0.1,
        **plan.get("options", {}),
    )
    send(client, plan["calls"])
    client.flush()
    client.join()


run(deliver)
