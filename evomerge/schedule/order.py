"""The order in which models are scored that share their first layers."""

from evomerge.recipe import Recipe


def hop_order(recipe: Recipe) -> tuple[str, ...]:
    """A key by which recipes that begin alike come one after another: the walk through the tree of their layers.

    It depends on the recipe alone, so that a resumed run goes on in the same order.
    """
    embeddings = recipe.outer.get("embeddings")
    layers = zip(recipe.layers, recipe.gains(), strict=True)
    return (
        embeddings.model_dump_json() if embeddings is not None else "",
        *(f"{layer.model_dump_json(exclude={'scale'})} {gain!r}" for layer, gain in layers),
    )
