"""Replaces layers that look across the batch by ones that do not."""

from __future__ import annotations

from torch import nn

__all__ = ["fix_modules"]

_GROUPS = 32
_LEAST = 4  # channels in a group, where there are so many: one channel alone would lose its mean
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def fix_modules(module: nn.Module, *, groups: int = _GROUPS) -> nn.Module:
    """Every batch norm as a group norm, every instance norm with statistics as one without; in place where it can.

    A group norm gets the largest number of groups that is at most `groups`, divides the channels and leaves four
    channels in each; a `BatchNorm1d`, whose inputs may have no positions to average over, becomes one group. It takes
    over the batch norm's scale and shift, as the same parameters. Its outputs differ, so train after it. Subclasses of
    torch's own layers are left alone, since what else they do is not known; `make_private` refuses them by name.

    Args:
        module: of any depth.
        groups: at most so many groups a layer, 1 or more.

    Returns:
        The module; another one only where the module itself is such a layer.
    """
    return _fixed(module, max(1, groups), {})


def _fixed(module: nn.Module, groups: int, known: dict[int, nn.Module]) -> nn.Module:
    if id(module) in known:  # a layer that hangs in several places stays one layer
        return known[id(module)]
    known[id(module)] = found = _replaced(module, groups)
    if found is not module:
        return found
    for name, child in list(module._modules.items()):  # pyright: ignore[reportPrivateUsage]  named_children leaves out repeats
        if child is not None:
            setattr(module, name, _fixed(child, groups, known))
    return module


def _replaced(module: nn.Module, groups: int) -> nn.Module:
    if type(module) in _INSTANCE_NORMS and isinstance(module, _INSTANCE_NORMS) and module.track_running_stats:
        module.track_running_stats = False
        module.running_mean = module.running_var = module.num_batches_tracked = None
    if type(module) not in _BATCH_NORMS or not isinstance(module, _BATCH_NORMS):
        return module
    channels = module.num_features
    most = 1 if isinstance(module, nn.BatchNorm1d) else min(groups, max(1, channels // _LEAST))
    count = max(each for each in range(1, most + 1) if channels % each == 0)
    fixed = nn.GroupNorm(count, channels, eps=module.eps, affine=module.affine)
    for name, parameter in module.named_parameters(recurse=False):
        setattr(fixed, name, parameter)
    return fixed.train(module.training)
