"""The doors of models: what was learned, with its account, and learning now."""

from typing import Any

from tailorbird.app.exchange import Exchange, Response, flag, json_response
from tailorbird.app.keys import Gate, Role
from tailorbird.app.learner import Learner
from tailorbird.live.model_segments import ModelSegments
from tailorbird.schema.computed import ComputedModel


class ModelDoors:
    """The doors of those who want to know what models say, and why."""

    def __init__(self, learner: Learner, gate: Gate) -> None:
        self._learner = learner
        self._gate = gate

    def models(self, exchange: Exchange) -> Response:
        """Return the models that were fitted last, each beside its baseline, and the clusters in words."""
        self._gate.require(exchange, Role.SERVER)
        return json_response(self._view())

    async def refit(self, exchange: Exchange) -> Response:
        """Fit all models now; with `wait`, answer when that is done."""
        self._gate.require(exchange, Role.ADMIN)
        if flag(exchange, "wait"):
            await self._learner.learn()
            return json_response(self._view())
        self._learner.learn_soon()
        return json_response(self._view(), 202)

    def _view(self) -> dict[str, Any]:
        return {
            "account": self._learner.account,
            "isLearning": self._learner.is_learning,
            "models": [_model(model) for model in self._learner.models],
            "clusters": _clusters(self._learner.clusters),
        }


def _model(model: ComputedModel) -> dict[str, Any]:
    """Return a model without its trees."""
    return {
        "key": model.attribute.key,
        "attribute": model.attribute,
        "version": model.version,
        "isAccepted": model.is_accepted,
        "reason": model.reason,
        "metrics": model.metrics,
        "baseline": model.baseline,
        "difference": model.difference,
        "training": model.training,
        "importances": model.importances[:20],
    }


def _clusters(clusters: ModelSegments) -> dict[str, Any] | None:
    model = clusters.model
    if model is None:
        return None
    return {
        "version": model.version,
        "people": model.people,
        "silhouette": model.silhouette,
        "stability": model.stability,
        "unclustered": model.unclustered,
        "tried": model.tried,
        "cautions": model.cautions,
        "clusters": [
            {
                "id": found.id,
                "name": found.name,
                "size": found.size,
                "share": found.share,
                "description": found.description,
            }
            for found in model.clusters
        ],
    }
