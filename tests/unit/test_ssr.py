"""Ready HTML: nothing that comes from a value becomes markup."""

import html
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.deliver.ssr import render_list, render_template, render_value


class Tags(HTMLParser):
    """Every tag that a browser would see, with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_places_are_filled_with_escaped_fields():
    template = '<a href="{{ url }}">{{title}} {{ price.amount }} {{ missing }}{{ tags }}</a>'
    value = {"url": '/x?a=1&b="2"', "title": "<b>Hi</b>", "price": {"amount": 9.5}, "tags": ["a"]}
    assert render_template(template, value) == (
        '<a href="/x?a=1&amp;b=&quot;2&quot;">&lt;b&gt;Hi&lt;/b&gt; 9.5 [&quot;a&quot;]</a>'
    )


@pytest.mark.parametrize("value", [None, 7, "text", [], {}])
def test_a_value_without_fields_leaves_places_empty(value):
    assert render_template("<p>{{ a }}{{ a.b }}</p>", value) == "<p></p>"


def test_what_a_field_holds_is_not_filled_in_again():
    assert render_template("{{ a }}", {"a": "{{ b }}", "b": "x"}) == "{{ b }}"


@given(st.text())
def test_text_is_a_paragraph_and_never_markup(text):
    (tag,) = Tags(render_value(text)).found
    assert tag == ("p", {})
    assert html.unescape(render_value(text).removeprefix("<p>").removesuffix("</p>")) == html.unescape(
        html.escape(text)
    )


@given(
    st.dictionaries(
        st.text(max_size=9) | st.just("</script>"), st.text(max_size=9) | st.just("</script><!--")
    )
)
def test_a_value_as_json_cannot_leave_its_script(value):
    text = render_value(value)
    content = text.removeprefix('<script type="application/json" class="tailorbird">').removesuffix(
        "</script>"
    )
    assert "<" not in content
    assert msgspec.json.decode(content) == value


def test_a_list_is_linked_items():
    items = [
        ("i1", {"title": "One & only", "url": "/one?a=1&b=2"}),
        ("i2", msgspec.Raw(b'{"title": "Two"}')),
        ("i3", None),
    ]
    assert render_list(items) == (
        '<ul class="tailorbird-list"><li data-id="i1"><a href="/one?a=1&amp;b=2">One &amp; only</a></li>'
        '<li data-id="i2">Two</li><li data-id="i3">i3</li></ul>'
    )


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\nscript:alert(1)", "\x01javascript:x",
     "data:text/html,x", "vbscript:x", "mailto:x@y.z"],
)  # fmt: skip
def test_a_link_leads_to_a_page_or_is_none(url):
    assert [tag for tag, _ in Tags(render_list([("i", {"url": url})])).found] == ["ul", "li"]


@pytest.mark.parametrize("url", ["https://x.y/z", "http://x", "/a/b:c", "a/b", "?q=1:2", "#top", "page.html"])
def test_pages_are_linked(url):
    assert ("a", {"href": url}) in Tags(render_list([("i", {"url": url})])).found


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_no_item_brings_markup(key, title, url):
    tags = [tag for tag, _ in Tags(render_list([(key, {"title": title, "url": url})])).found]
    assert tags in (["ul", "li"], ["ul", "li", "a"])
