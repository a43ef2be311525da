"""Search that learns from every item's scores: surrogates, and coefficients by their slopes. Numpy alone, no torch."""
