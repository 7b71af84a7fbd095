"""Taking over a region finder that was learned before: it knows no products, so it serves any data and any tower."""

from cope.config import TrainConfig
from cope.errors import UserError
from cope.model.modeling import CopeModel
from cope.serving import artefact


def take_finder(model: CopeModel, config: TrainConfig) -> None:
    """Takes the region finder of an artefact over, frozen.

    Raises:
        UserError: No artefact is named, or its finder reads another tower's maps.
    """
    m = config.model
    if not config.finder_from:
        raise UserError(
            f"regions={m.regions} needs a region finder: set finder_from to an artefact (cope-mini), or regions=0 for "
            f"whole frames"
        )
    theirs = artefact.load(config.finder_from)
    if (theirs.config.finder, theirs.config.hidden) != (m.finder, m.hidden) or not theirs.config.regions:
        raise UserError(
            f"the region finder of {config.finder_from} reads {theirs.config.finder} (hidden={theirs.config.hidden}), "
            f"not {m.finder} (hidden={m.hidden}); set model.finder and model.hidden to its values"
        )
    prefix = "finder."
    state = {k.removeprefix(prefix): v for k, v in theirs.weights.items() if k.startswith(prefix)}
    model.finder.load_state_dict(state)
    model.finder.requires_grad_(False)
