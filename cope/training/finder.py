"""Taking over what was learned before: a region finder, which knows no products, or a whole model to go on from."""

from cope.config import ModelConfig
from cope.errors import UserError
from cope.model.modeling import CopeModel
from cope.serving import artefact


def take_finder(model: CopeModel, name: str, m: ModelConfig) -> None:
    """Takes the region finder of an artefact over, frozen.

    Raises:
        UserError: No artefact is named, or its finder reads another tower's maps.
    """
    if not name:
        raise UserError(
            f"regions={m.regions} needs a region finder: set finder_from to an artefact (cope-mini), or regions=0 for "
            f"whole frames"
        )
    theirs = artefact.load(name)
    if (theirs.config.finder, theirs.config.hidden) != (m.finder, m.hidden) or not theirs.config.regions:
        raise UserError(
            f"the region finder of {name} reads {theirs.config.finder} (hidden={theirs.config.hidden}), "
            f"not {m.finder} (hidden={m.hidden}); set model.finder and model.hidden to its values"
        )
    prefix = "finder."
    state = {k.removeprefix(prefix): v for k, v in theirs.weights.items() if k.startswith(prefix)}
    model.finder.load_state_dict(state)
    model.finder.requires_grad_(False)


def go_on(model: CopeModel, name: str) -> None:
    """Takes the weights of an artefact over, its region finder frozen.

    Raises:
        UserError: There is no such artefact, or it is built otherwise.
    """
    theirs = artefact.load(name)
    try:
        model.load_state_dict(theirs.weights)
    except RuntimeError:
        raise UserError(
            f"init_from={name} is built otherwise than this run's model; leave out the settings of model.*"
        ) from None
    model.finder.requires_grad_(False)
