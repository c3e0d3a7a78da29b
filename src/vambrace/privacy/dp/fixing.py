"""Replaces layers that look across the batch by ones that do not."""

from __future__ import annotations

from torch import nn

__all__ = ["fix_modules"]

_GROUPS = 32
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def fix_modules(module: nn.Module, *, groups: int = _GROUPS) -> nn.Module:
    """Every batch norm as a group norm, every instance norm with statistics as one without; in place where it can.

    A group norm gets the largest number of groups that is at most `groups` and divides the channels, and the batch
    norm's scale and shift. Its outputs differ, so train after it. Make the optimizer after it too: parameters are new.

    Args:
        module: of any depth.
        groups: at most so many groups a layer.

    Returns:
        The module; another one only where the module itself is such a layer.
    """
    if isinstance(module, _BATCH_NORMS):
        channels = module.num_features
        count = max(each for each in range(1, min(groups, channels) + 1) if channels % each == 0)
        return _like(module, nn.GroupNorm(count, channels, eps=module.eps, affine=module.affine))
    if isinstance(module, _INSTANCE_NORMS):
        module.track_running_stats = False
        module.running_mean = module.running_var = module.num_batches_tracked = None
        return module
    for name, child in module.named_children():
        fixed = fix_modules(child, groups=groups)
        if fixed is not child:
            setattr(module, name, fixed)
    return module


def _like(old: nn.Module, new: nn.GroupNorm) -> nn.Module:
    own = dict(old.named_parameters(recurse=False))
    if not own:
        return new.train(old.training)
    new.weight, new.bias = own["weight"], own["bias"]
    return new.train(old.training)
