"""Every kind of definition behind one function.

A new kind is a struct in `schema.feature`, a function in a file beside this one, and a case here.
"""

from tailorbird.features import affinity, aggregates, encoders, visits
from tailorbird.features.base import Builder
from tailorbird.schema.feature import (
    Affinity,
    Computed,
    Context,
    Count,
    Distinct,
    Feature,
    Last,
    LocalTime,
    Mean,
    Rate,
    Ratio,
    Sequence,
    Session,
    Sum,
    TimeSince,
    Trait,
)


def add(definition: Feature, builder: Builder, others: dict[str, Feature]) -> None:  # noqa: C901, PLR0912
    """Tell `builder` what one definition needs and gives; `others` are all definitions by name.

    Raises:
        InvalidInputError: It clashes with another one, or asks for what there is not.
    """
    match definition:
        case Count():
            aggregates.count(definition, builder)
        case Sum():
            aggregates.total(definition, builder)
        case Mean():
            aggregates.mean(definition, builder)
        case Distinct():
            aggregates.distinct(definition, builder)
        case Rate():
            aggregates.rate(definition, builder)
        case Ratio():
            aggregates.ratio(definition, builder, others)
        case Last():
            aggregates.last(definition, builder)
        case TimeSince():
            aggregates.time_since(definition, builder)
        case Affinity():
            affinity.affinity(definition, builder)
        case Sequence():
            visits.sequence(definition, builder)
        case Session():
            visits.session(definition, builder)
        case Trait():
            encoders.trait(definition, builder)
        case Context():
            encoders.context(definition, builder)
        case LocalTime():
            encoders.local_time(definition, builder)
        case Computed():
            builder.computed.append((builder.missing(definition.name), definition.attribute))
