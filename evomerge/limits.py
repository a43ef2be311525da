"""The largest of everything that a file may ask for: far above what searches need, below what harms a machine."""

from typing import Annotated, TypeAlias

from pydantic import Field

FILE_BYTES = 16 * 2**20
"""Bytes of one YAML or JSON file."""
CALIBRATION_BYTES = 512 * 2**20
"""Bytes of a calibration in JSON, which has numbers for every item."""
EXPANDED = 32 * 2**20
"""Characters of a file after its aliases were written out, each value counting for 16 more."""
NESTING = 64
"""Lists and mappings within one another."""
RECIPES_NESTED = 8
"""Recipes among the parents of recipes among the parents of recipes, and so on."""
HOPS = 2_000
"""Layers of a merged model."""
GENES = 5_000
"""Genes of a space: what an optimiser keeps of them for every candidate, and CMA-ES as a square of them."""
PAIRED = 8
"""Up to so many experts every pair of them is a fixed recipe; above, none is, as all would be confirmed."""

Positive: TypeAlias = Annotated[int, Field(ge=1, le=10_000_000)]
"""How many candidates, items, shots: whatever is counted and takes no memory before it is there."""
Population: TypeAlias = Annotated[int, Field(le=10_000)]
"""Candidates of one generation."""
Copies: TypeAlias = Annotated[int, Field(ge=1, le=10_000)]
"""How many workers, cores of one, lives of one candidate."""
Amount: TypeAlias = Annotated[float, Field(gt=0, le=1e9)]
"""Seconds (of 30 years), hours, GiB."""
Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1)]
MOST_WEIGHT = 1e6
Weight: TypeAlias = Annotated[float, Field(ge=-MOST_WEIGHT, le=MOST_WEIGHT)]
"""What a model or a task vector is multiplied by; 32-bit sums of so many are still finite."""
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
