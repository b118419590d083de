"""Metrics in the OpenMetrics text format, read off the engine when somebody asks.

Nothing is counted twice for the sake of metrics: the numbers are those that the engine, the fold and the
doors keep anyway. Only latencies are observed as they happen, in two histograms.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from tailorbird.app.engine import Engine
from tailorbird.app.exchange import Response

_BUCKETS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
"""From a tenth of a millisecond: decisions are promised in single-digit milliseconds."""


_NOTED_MAX = 256  # Counted at once in some half a millisecond.


class Metrics:
    """The installation's metrics."""

    def __init__(self, engine: Engine, served: dict[str, int], rejected: dict[str, int]) -> None:
        self._engine = engine
        self._served = served
        self._rejected = rejected
        self._registry = CollectorRegistry()
        self.decide_seconds = Histogram(
            "tailorbird_decide_seconds",
            "Time to decide, of one request",
            buckets=_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self.durable_seconds = Histogram(
            "tailorbird_durable_seconds",
            "Time that events which came together waited for the disk",
            buckets=_BUCKETS_SECONDS,
            registry=self._registry,
        )
        self._noted: list[float] = []
        self._registry.register(self)

    def observe_decide(self, seconds: float) -> None:
        """Note how long a request took; counted into its bucket later, many at once."""
        self._noted.append(seconds)
        if len(self._noted) >= _NOTED_MAX:
            self._count_noted()

    def _count_noted(self) -> None:
        noted, self._noted = self._noted, []
        for seconds in noted:
            self.decide_seconds.observe(seconds)

    def render(self) -> Response:
        """Return all metrics as text."""
        self._count_noted()
        text: bytes = generate_latest(self._registry)  # type: ignore[no-untyped-call]
        return Response(200, text, CONTENT_TYPE_LATEST.encode())

    def collect(self) -> Iterator[Metric]:
        """Yield what the engine knows; called by the registry."""
        engine, world = self._engine, self._engine.world
        yield _counter("tailorbird_served", "What was served", "what", self._served)
        yield _counter("tailorbird_rejected_events", "Refused events", "rule", self._rejected)
        yield _counter("tailorbird_decide_faults", "Answered all the same", "fault", engine.decider.faults)
        yield _counter("tailorbird_folded", "What the fold counted", "what", dict(world.counts.scan()))
        health = engine.log.health()
        behind = health.end - world.store.offset
        cached = world.profiles.cache_bytes
        gauges = {
            "tailorbird_log_end": ("Offset of the next record", health.end),
            "tailorbird_log_corrupt_records": ("Corrupt records met", health.records_corrupt),
            "tailorbird_log_quarantined_bytes": ("Bytes set aside as corrupt", health.bytes_quarantined),
            "tailorbird_state_behind_records": ("Records since the last checkpoint", behind),
            "tailorbird_profile_cache_bytes": ("Estimated bytes of cached profiles", cached),
            "tailorbird_dirty_entries": ("Changed entries that wait for a checkpoint", world.dirty_count),
            "tailorbird_catalogue_items": ("Items that can be shown", world.catalogue.size),
            "tailorbird_placements": ("Placements", len(world.placements)),
            "tailorbird_segments": ("Rule segments", len(world.segments.declared)),
            "tailorbird_suppressed_identifiers": ("Identifiers refused", len(world.suppressed)),
            "tailorbird_writable": ("Whether the disk takes writes", int(engine.failure is None)),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], float(value))
    return family
