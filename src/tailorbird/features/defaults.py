"""The built-in definitions: what shops, publishers and software services want to know of a visitor.

From the events of Segment's standard vocabularies: ecommerce, page and screen, video, B2B SaaS.
"""

from collections.abc import Iterable, Iterator, Sequence

from tailorbird.errors import Fault, InvalidInputError
from tailorbird.features.view import ALIASES
from tailorbird.features.vocabulary import slug
from tailorbird.schema.feature import (
    Affinity,
    CatalogueName,
    Context,
    Count,
    Distinct,
    Feature,
    FeatureConfig,
    Hashed,
    Last,
    LocalTime,
    Mean,
    Number,
    OneHot,
    Rate,
    Ratio,
    Session,
    Sum,
    TimeSince,
    Trait,
)
from tailorbird.schema.feature import (
    Sequence as LastEvents,
)

BASE_EVENTS = (
    "Page Viewed",
    "Screen Viewed",
    "Identified",
    "Decision Viewed",
    "Email Opened",
    "Email Link Clicked",
    "Push Notification Tapped",
    "Signed Up",
    "Signed In",
    "Signed Out",
)
COMMERCE_EVENTS = (
    "Products Searched",
    "Product List Viewed",
    "Product List Filtered",
    "Promotion Viewed",
    "Promotion Clicked",
    "Product Clicked",
    "Product Viewed",
    "Product Added",
    "Product Removed",
    "Cart Viewed",
    "Checkout Started",
    "Checkout Step Viewed",
    "Checkout Step Completed",
    "Payment Info Entered",
    "Order Updated",
    "Order Completed",
    "Order Refunded",
    "Order Cancelled",
    "Coupon Entered",
    "Coupon Applied",
    "Coupon Denied",
    "Coupon Removed",
    "Product Added to Wishlist",
    "Product Removed from Wishlist",
    "Wishlist Product Added to Cart",
    "Product Shared",
    "Cart Shared",
    "Product Reviewed",
)
MEDIA_EVENTS = (
    "Article Viewed",
    "Article Completed",
    "Article Shared",
    "Article Saved",
    "Comment Posted",
    "Author Followed",
    "Topic Followed",
    "Newsletter Subscribed",
    "Paywall Viewed",
    "Subscription Started",
    "Subscription Cancelled",
    "Video Playback Started",
    "Video Playback Paused",
    "Video Playback Completed",
    "Video Content Started",
    "Video Content Completed",
    "Video Ad Started",
    "Video Ad Completed",
    "Page Scrolled",
)
SAAS_EVENTS = (
    "Account Created",
    "Account Deleted",
    "Account Added User",
    "Account Removed User",
    "Trial Started",
    "Trial Ended",
    "Invite Sent",
    "Feature Used",
    "Project Created",
    "Report Viewed",
    "Export Completed",
    "Integration Connected",
    "Onboarding Step Completed",
    "Plan Viewed",
    "Plan Changed",
    "Payment Failed",
    "Support Requested",
    "Feedback Given",
    "Error Shown",
)


def expanded(config: FeatureConfig) -> tuple[Feature, ...]:
    """Return all definitions of an installation.

    Those built in that it takes, then its own in their places.

    Raises:
        InvalidInputError: Two own ones have the same name.
    """
    names = [definition.name for definition in config.definitions]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise InvalidInputError(Fault(f"definitions[{place}].name", "each name is given once", name))
    for place, definition in enumerate(config.definitions):
        _check_name(definition, f"definitions[{place}].name")
    own = {definition.name: definition for definition in config.definitions}
    built_in = [*_base(), *(made for name in config.catalogues for made in _CATALOGUES[name]())]
    taken = (
        {made.name: made for made in built_in if made.name not in config.without} if config.catalogues else {}
    )
    return tuple((taken | own).values())


def _check_name(definition: Feature, path: str) -> None:
    """Refuse a name that rules know as something else: `views_7d`, `category_shoes_7d`."""
    name = definition.name
    event = ALIASES.get(name)
    is_the_same = isinstance(definition, Count) and definition.event == event and not definition.where
    if event is not None and not is_the_same:
        raise InvalidInputError(Fault(path, f'another name: rules know this one as "{event}"', name))
    if name.startswith("category_") and name != "category_affinity":
        raise InvalidInputError(Fault(path, "another name: category_… is a category's counts", name))


def _base() -> Iterator[Feature]:
    yield from _of_events(BASE_EVENTS)
    yield Session("count", name="session_pages", event="Page Viewed")
    yield Distinct("properties.path", name="pages_distinct", event="Page Viewed")
    yield LastEvents(name="recent")
    yield Context("device", OneHot(("mobile", "tablet", "desktop", "bot")), name="device")
    yield Context("language", Hashed(16), name="language")
    yield Context("region", Hashed(16), name="region")
    kinds = ("direct", "internal", "search", "social", "email", "paid", "referral")
    yield Context("referrer", OneHot(kinds), name="referrer")
    yield Context("campaign_source", Hashed(16), name="campaign_source")
    yield Context("campaign_medium", Hashed(8), name="campaign_medium")
    yield LocalTime(name="local")
    for facet in ("category", "brand", "tag", "cluster"):
        yield Affinity(facet, name=f"{facet}_affinity")


def _commerce() -> Iterator[Feature]:
    yield from _of_events(COMMERCE_EVENTS)
    order, viewed, added = "Order Completed", "Product Viewed", "Product Added"
    for name, event, value in (
        ("revenue", order, "properties.revenue"),
        ("order_total", order, "properties.total"),
        ("items_bought", order, "properties.products[].quantity"),
        ("discount", order, "properties.discount"),
        ("shipping", order, "properties.shipping"),
        ("refunded", "Order Refunded", "properties.total"),
        ("price_viewed", viewed, "properties.price"),
        ("price_added", added, "properties.price"),
    ):
        yield Sum(event, value, name=name)
        yield Mean(event, value, name=f"{name}_mean")
    for name, numerator, denominator in (
        ("clicks_per_list", "product_clicked", "product_list_viewed"),
        ("carts_per_view", "product_added", "product_viewed"),
        ("removals_per_cart", "product_removed", "product_added"),
        ("checkouts_per_cart", "checkout_started", "product_added"),
        ("orders_per_checkout", "order_completed", "checkout_started"),
        ("orders_per_view", "order_completed", "product_viewed"),
        ("refunds_per_order", "order_refunded", "order_completed"),
        ("clicks_per_promotion", "promotion_clicked", "promotion_viewed"),
        ("views_per_search", "product_viewed", "products_searched"),
        ("revenue_per_view", "revenue", "product_viewed"),
    ):
        yield Ratio(numerator, denominator, name=name)
    yield Distinct("properties.product_id", name="products_viewed_distinct", event=viewed, windows=("30d",))
    yield Distinct("properties.products[].product_id", name="products_bought_distinct", event=order)
    yield Distinct("properties.category", name="categories_viewed_distinct", event=viewed)
    yield Distinct("properties.query", name="searches_distinct", event="Products Searched")
    yield Last("properties.revenue", name="revenue_last", event=order)
    yield Last("properties.price", name="price_viewed_last", event=viewed)
    yield Last("properties.position", name="position_clicked_last", event="Product Clicked")
    yield Session("count", name="session_views", event=viewed)
    yield Session("count", name="session_carts", event=added)
    yield Session("count", name="session_searches", event="Products Searched")
    yield Session("sum", name="session_cart_value", event=added, value="properties.price")
    yield Session("max", name="session_price_max", event=viewed, value="properties.price")
    yield Session("last", name="session_price_last", event=viewed, value="properties.price")


def _media() -> Iterator[Feature]:
    yield from _of_events(MEDIA_EVENTS)
    for name, event, value in (
        ("reading_seconds", "Article Completed", "properties.seconds"),
        ("watched_seconds", "Video Playback Completed", "properties.position"),
        ("scroll_depth", "Page Scrolled", "properties.depth"),
        ("words_read", "Article Completed", "properties.words"),
    ):
        yield Sum(event, value, name=name)
        yield Mean(event, value, name=f"{name}_mean")
    for name, numerator, denominator in (
        ("completions_per_article", "article_completed", "article_viewed"),
        ("completions_per_video", "video_playback_completed", "video_playback_started"),
        ("subscriptions_per_paywall", "subscription_started", "paywall_viewed"),
    ):
        yield Ratio(numerator, denominator, name=name)
    viewed = "Article Viewed"
    yield Distinct("properties.article_id", name="articles_distinct", event=viewed, windows=("30d",))
    yield Distinct("properties.author", name="authors_distinct", event=viewed)
    yield Affinity("properties.author", name="author_affinity")
    yield Session("count", name="session_articles", event=viewed)
    yield Session("max", name="session_scroll_max", event="Page Scrolled", value="properties.depth")
    yield Session("sum", name="session_dwell_seconds", event="Article Completed", value="properties.seconds")


def _saas() -> Iterator[Feature]:
    yield from _of_events(SAAS_EVENTS)
    yield Affinity("properties.feature", name="feature_affinity")
    yield Distinct(
        "properties.feature", name="features_distinct", event="Feature Used", windows=("7d", "30d")
    )
    yield Distinct("properties.project_id", name="projects_distinct", event="Project Created")
    yield Session("count", name="session_features", event="Feature Used")
    yield Session("count", name="session_errors", event="Error Shown")
    for name, numerator, denominator in (
        ("errors_per_use", "error_shown", "feature_used"),
        ("changes_per_plan_view", "plan_changed", "plan_viewed"),
    ):
        yield Ratio(numerator, denominator, name=name)
    plans = ("free", "trial", "basic", "pro", "business", "enterprise")
    yield Trait("plan", OneHot(plans), name="plan")
    yield Trait("seats", Number(), name="seats")
    yield Trait("role", Hashed(8), name="role")


_CATALOGUES = {"commerce": _commerce, "media": _media, "saas": _saas}
CATALOGUES: tuple[CatalogueName, ...] = ("commerce", "media", "saas")


def _of_events(names: Sequence[str]) -> Iterable[Feature]:
    for event in names:
        name = slug(event)
        yield Count(event, name=name)
        yield TimeSince(event, name=f"{name}_seconds_since")
        yield Rate(event, name=f"{name}_per_day")
