"""The command that fits computed attributes on a recorded log and says how good they are: `compute`."""

import argparse
from collections.abc import Iterator

import msgspec

from tailorbird.app.computing import ATTRIBUTES, clusters_of, cuts_of, models_of, past_of
from tailorbird.app.datasets import load
from tailorbird.clock import format_time
from tailorbird.errors import ConfigurationError
from tailorbird.schema.clusters import ClusterModel, Trial
from tailorbird.schema.computed import (
    ClassifierMetrics,
    ComputedAttribute,
    ComputedModel,
    Importance,
    LossDifference,
    Metrics,
    Training,
    ValueMetrics,
)

_BASELINES = {"classifier": "recency threshold", "value": "mean of past spend"}


class AttributeReport(msgspec.Struct, frozen=True, rename="camel"):
    """A model without its trees."""

    attribute: ComputedAttribute
    training: Training
    metrics: Metrics
    baseline: Metrics
    difference: LossDifference
    is_accepted: bool
    reason: str
    importances: tuple[Importance, ...]
    model_version: str


class ClusterReport(msgspec.Struct, frozen=True, rename="camel"):
    """A segment that was found, in words."""

    name: str
    size: int
    share: float
    description: str


class ClustersReport(msgspec.Struct, frozen=True, rename="camel"):
    """The segments that customers fall into, without what tells them."""

    people: int
    silhouette: float | None
    stability: float
    """Mean adjusted Rand index with what resampled customers gave."""
    unclustered: float
    tried: tuple[Trial, ...]
    cautions: tuple[str, ...]
    clusters: tuple[ClusterReport, ...]


class ComputeReport(msgspec.Struct, frozen=True, rename="camel"):
    """What `tailorbird compute --json` prints: the same for the same log and seed."""

    dataset: str
    notes: tuple[str, ...]
    features: int
    attributes: tuple[AttributeReport, ...]
    segments: ClustersReport


def run_compute(options: argparse.Namespace) -> int:
    """Fit every computed attribute and print metrics beside their baselines; 1 where one does not beat it."""
    shop = load(options.dataset)
    if options.dataset == "online-retail" and shop.name == "simulated":
        raise ConfigurationError(f"--dataset {options.dataset}: {shop.notes[0]}")
    past = past_of(shop, cuts_of(shop, ATTRIBUTES))
    models = list(models_of(past, seed=options.seed))
    clusters = clusters_of(past, options.seed)
    if options.json:
        told = tuple(map(_report, models))
        report = ComputeReport(shop.name, shop.notes, len(models[0].features), told, _found(clusters))
        print(msgspec.json.encode(report).decode())
    else:
        print(f"Computed attributes on {shop.name}: {len(models[0].features)} features.")
        for model in models:
            print("\n".join(_told(model)))
        print("\n".join(_told_clusters(clusters)))
    return 0 if all(model.is_accepted for model in models) else 1


def _report(model: ComputedModel) -> AttributeReport:
    return AttributeReport(
        attribute=model.attribute,
        training=model.training,
        metrics=model.metrics,
        baseline=model.baseline,
        difference=model.difference,
        is_accepted=model.is_accepted,
        reason=model.reason,
        importances=model.importances,
        model_version=model.version,
    )


def _told(model: ComputedModel) -> Iterator[str]:
    training = model.training
    days = model.attribute.horizon_days
    yield ""
    day = format_time(training.holdout_cut)[:10]
    yield f"{model.attribute.key}: {days:g} days ahead, judged on what came after {day}"
    yield (
        f"  rows: {training.fit_rows:,} of {len(training.fit_cuts)} cuts to fit,"
        f" {training.calibrate_rows:,} to calibrate, {training.holdout_rows:,} held out"
    )
    if isinstance(model.metrics, ClassifierMetrics) and isinstance(model.baseline, ClassifierMetrics):
        yield f"  it happened to {model.metrics.share:.1%}"
        yield f"  {'':20} {'AUC':>9} {'log loss':>9} {'Brier':>9} {'ECE':>9}"
        yield _classifier_row("model", model.metrics)
        yield _classifier_row(_BASELINES["classifier"], model.baseline)
    elif isinstance(model.metrics, ValueMetrics) and isinstance(model.baseline, ValueMetrics):
        yield f"  they spent {model.metrics.mean:,.2f} each"
        yield f"  {'':20} {'expected':>9} {'MAE':>9} {'RMSLE':>9} {'Spearman':>9} {'lift@10%':>9}"
        yield _value_row("model", model.metrics)
        yield _value_row(_BASELINES["value"], model.baseline)
        yield from _segments(model.metrics)
    strongest = ", ".join(one.feature for one in model.importances[:3])
    yield f"  told most by {strongest}"
    yield f"  {'accepted' if model.is_accepted else 'NOT SERVED'}: {model.reason}"


def _found(model: ClusterModel) -> ClustersReport:
    return ClustersReport(
        people=model.people,
        silhouette=model.silhouette,
        stability=model.stability,
        unclustered=model.unclustered,
        tried=model.tried,
        cautions=model.cautions,
        clusters=tuple(
            ClusterReport(found.name, found.size, found.share, found.description) for found in model.clusters
        ),
    )


def _told_clusters(model: ClusterModel) -> Iterator[str]:
    yield ""
    silhouette = "none" if model.silhouette is None else f"{model.silhouette:.2f}"
    yield (
        f"segments that customers fall into: {len(model.clusters)} of {model.people:,} people,"
        f" silhouette {silhouette}, stability {model.stability:.2f}"
    )
    for trial in model.tried:
        tried = "none" if trial.silhouette is None else f"{trial.silhouette:.2f}"
        yield f"  tried {trial.parameter:>4g}: silhouette {tried}, stability {trial.stability:.2f}"
    for found in model.clusters:
        yield f"  {found.share:>4.0%}  {found.description}"
    for caution in model.cautions:
        yield f"  mind: {caution}"


def _classifier_row(name: str, found: ClassifierMetrics) -> str:
    figures = (found.auc, found.log_loss, found.brier, found.calibration_error)
    return f"  {name:20} " + " ".join(f"{figure:>9.4f}" for figure in figures)


def _value_row(name: str, found: ValueMetrics) -> str:
    return (
        f"  {name:20} {found.expected:>9.2f} {found.mae:>9.2f} {found.rmsle:>9.3f}"
        f" {found.spearman:>9.4f} {found.decile_lift:>9.2f}"
    )


def _segments(found: ValueMetrics) -> Iterator[str]:
    yield f"  {'segment':20} {'people':>9} {'expected':>9} {'spent':>9}"
    for one in found.segments:
        yield f"  {one.name:20} {one.rows:>9,} {one.expected:>9.2f} {one.spent:>9.2f}"
