"""Privacy suppression: a heuristic WITHOUT a guarantee that masks the weights of chosen layers during training.

from vambrace.privacy import suppress
with suppress.Suppression(layers=("conv*.weight", "fc1.weight"), end_step=1000).attach(module, optimizer):
    ...  # the training loop as it was
"""

from vambrace.privacy.suppress.suppression import Handle, Suppression

__all__ = ["Handle", "Suppression"]
