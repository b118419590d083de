"""Decisions as ready HTML, for plain templates, edge-side includes and e-mail at send time."""

import html
import re
from typing import Any

import msgspec

_PLACE = re.compile(r"\{\{\s*([A-Za-z_][\w.]*)\s*\}\}")
_SAFE_URL = re.compile(r"^(?:https?://|/|[^:/?#]*(?:[/?#]|$))", re.IGNORECASE)


def render_template(template: str, value: Any) -> str:  # noqa: ANN401
    """Return a variant's template with `{{ field }}` replaced by the value's fields, escaped.

    >>> render_template("<h1>{{ headline }}</h1>", {"headline": "Hi & bye"})
    '<h1>Hi &amp; bye</h1>'
    """
    return _PLACE.sub(lambda match: html.escape(_text(_field(value, match[1]))), template)


def render_value(value: Any) -> str:  # noqa: ANN401
    """Return a value that has no template: text as a paragraph, anything else as JSON in a script."""
    if isinstance(value, str):
        return f"<p>{html.escape(value)}</p>"
    content = msgspec.json.encode(value).decode().replace("<", "\\u003c")
    return f'<script type="application/json" class="tailorbird">{content}</script>'


def render_list(items: list[tuple[str, Any]]) -> str:
    """Return a list of (id, value) as plain linked items."""
    lines = []
    for key, value in items:
        fields = msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value
        fields = fields if isinstance(fields, dict) else {}
        title = html.escape(str(fields.get("title") or key))
        url = str(fields.get("url") or "")
        link = f'<a href="{html.escape(url)}">{title}</a>' if url and _SAFE_URL.match(url) else title
        lines.append(f'<li data-id="{html.escape(key)}">{link}</li>')
    return f'<ul class="tailorbird-list">{"".join(lines)}</ul>'


def _field(value: Any, path: str) -> Any:  # noqa: ANN401
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:  # noqa: ANN401
    return "" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
