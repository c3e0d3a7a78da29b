"""The active-set loop that drives every iterative attack."""
