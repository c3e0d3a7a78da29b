"""Clipped sums of per-sample gradients in one backward pass, without keeping per-sample gradients where that pays."""
