"""Differentially private training: clipped sums in one backward pass, secret noise, a ledger, honest accounting."""
