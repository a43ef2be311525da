"""Learned coefficients: steps along the slopes of the loss, from the best fixed recipe on."""
