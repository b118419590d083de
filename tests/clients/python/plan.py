"""The frame of every client script: a JSON plan in on standard input, a JSON report out.

The report is the last line of standard output; a client library may print before it.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

SNAKE = {
    "userId": "user_id",
    "anonymousId": "anonymous_id",
    "groupId": "group_id",
    "previousId": "previous_id",
    "messageId": "message_id",
}


def run(deliver: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Run one client by the plan and print what it reported."""
    report: dict[str, Any] = {"errors": []}
    deliver(json.load(sys.stdin), report)
    print(json.dumps(report))


def send(client: Any, calls: list[dict[str, Any]]) -> None:
    """Make each call, given in Segment's fields, on a client with Segment's Python methods."""
    for call in calls:
        fields = {SNAKE.get(name, name): value for name, value in call.items() if name != "type"}
        getattr(client, call["type"])(**fields)
