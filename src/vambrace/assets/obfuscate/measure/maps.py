"""Families of networks over maps (channels, height, width), from plain convolutions to encoders with decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vambrace.assets.obfuscate.measure.sketch import Choices, Sketch, Value

__all__: list[str] = []


def _plain(net: Sketch, pick: Choices) -> Value:
    """Strided convolutions, one after the other."""
    x, width = net.input, pick.width(4, 10)
    for _ in range(pick.between(3, 7)):
        stride = 2 if x.shape[1] > 4 and pick.of(True, False) else 1
        x = net.conv(x, width, pick.of(3, 5), stride=stride)
        width += pick.width(0, 4)
    return net.classes(x, pick.between(2, 12))


def _vgg(net: Sketch, pick: Choices) -> Value:
    """Stages of 3x3 convolutions with max pooling between, dense layers at the end."""
    x, width = net.input, pick.width(4, 8)
    for _ in range(pick.between(2, 4)):
        for _ in range(pick.between(1, 3)):
            x = net.conv(x, width, 3)
        x = net.pool(x)
        width = min(2 * width, pick.scaled(24))
    x = net.flat(x)
    for _ in range(pick.between(1, 2)):
        x = net.active(net.linear(x, pick.width(16, 32)))
    return net.linear(x, pick.between(2, 12))


def _resnet_basic(net: Sketch, pick: Choices) -> Value:
    """Residual blocks of two 3x3 convolutions (He et al., CVPR 2016)."""
    width = pick.width(4, 8)
    x = net.conv(net.input, width, pick.of(3, 5))
    for stage in range(pick.between(2, 3)):
        for block in range(pick.between(1, 3)):
            x = _residual(net, x, width, stride=2 if stage and not block else 1, narrow=0)
        width *= 2
    return net.classes(x, pick.between(2, 12))


def _resnet_bottleneck(net: Sketch, pick: Choices) -> Value:
    """Residual blocks of 1x1, 3x3, 1x1 (He et al., CVPR 2016)."""
    narrow, times = pick.width(3, 5), pick.of(2, 4)
    x = net.conv(net.input, narrow * 2, pick.of(3, 5))
    for stage in range(pick.between(2, 3)):
        for block in range(pick.between(1, 3)):
            x = _residual(net, x, narrow * times, stride=2 if stage and not block else 1, narrow=narrow)
        narrow *= 2
    return net.classes(x, pick.between(2, 12))


def _residual(net: Sketch, x: Value, out: int, *, stride: int, narrow: int) -> Value:
    if narrow:
        inner = net.conv(net.conv(x, narrow, 1), narrow, 3, stride=stride)
        inner = net.normal(net.conv(inner, out, 1, bare=True))
    else:
        inner = net.normal(net.conv(net.conv(x, out, 3, stride=stride), out, 3, bare=True))
    same = x.shape == inner.shape
    short = x if same else net.normal(net.conv(x, out, 1, stride=stride, bare=True))
    return net.active(net.add(inner, short))


def _densenet(net: Sketch, pick: Choices) -> Value:
    """Every layer takes all before it (Huang et al., CVPR 2017)."""
    growth = pick.width(3, 6)
    x = net.conv(net.input, 2 * growth, 3)
    for stage in range(pick.between(2, 3)):
        if stage:
            x = net.pool(net.conv(x, max(x.shape[0] // 2, 4), 1), "AveragePool")
        for _ in range(pick.between(2, 4)):
            x = net.concat(x, net.conv(net.conv(x, 2 * growth, 1), growth, 3))
    return net.classes(x, pick.between(2, 12))


def _mobilenet(net: Sketch, pick: Choices) -> Value:
    """Inverted residuals: 1x1 up, depthwise, 1x1 down (Sandler et al., CVPR 2018)."""
    width, times = pick.width(4, 6), pick.between(2, 4)
    x = net.conv(net.input, width, 3, stride=2)
    for stage in range(pick.between(3, 6)):
        stride = 2 if stage % 2 and x.shape[1] > 4 else 1
        inner = net.conv(x, times * x.shape[0], 1)
        inner = net.conv(inner, inner.shape[0], pick.of(3, 5), stride=stride, group=inner.shape[0])
        inner = net.normal(net.conv(inner, width, 1, bare=True))
        x = net.add(x, inner) if x.shape == inner.shape else inner
        width += pick.scaled(pick.of(0, 0, 2))
    return net.classes(x, pick.between(2, 12))


def _inception(net: Sketch, pick: Choices) -> Value:
    """Branches of several kernel sizes, put together (Szegedy et al., CVPR 2015)."""
    width, few = pick.width(3, 6), pick.scaled(3)
    x = net.conv(net.input, 2 * width, 3)
    for _ in range(pick.between(2, 4)):
        branches = [net.conv(x, width, 1), net.conv(net.conv(x, width, 1), width + pick.scaled(1), 3)]
        branches.append(net.conv(net.conv(x, few, 1), few, 5))
        if pick.of(True, False):
            branches.append(net.conv(net.pool(x, "MaxPool", kernel=3, stride=1), few, 1))
        x = net.concat(*branches)
        if x.shape[1] > 4 and pick.of(True, False):
            x = net.pool(x)
    return net.classes(x, pick.between(2, 12))


def _squeezenet(net: Sketch, pick: Choices) -> Value:
    """Squeeze by 1x1, expand by 1x1 and 3x3 side by side (Iandola et al., 2016)."""
    narrow = pick.width(3, 5)
    x = net.conv(net.input, 4 * narrow, 3, stride=2)
    for fire in range(pick.between(2, 5)):
        squeezed = net.conv(x, narrow, 1)
        x = net.concat(net.conv(squeezed, 3 * narrow, 1), net.conv(squeezed, 3 * narrow, 3))
        if fire == 1 and x.shape[1] > 4:
            x = net.pool(x)
        narrow += pick.width(0, 1)
    x = net.conv(x, pick.between(2, 12), 1)
    return net.flat(net.average(x))


def _senet(net: Sketch, pick: Choices) -> Value:
    """Residual blocks whose channels are weighed by what the whole map says (Hu et al., CVPR 2018)."""
    width = pick.width(4, 8)
    x = net.conv(net.input, width, 3)
    for stage in range(pick.between(2, 4)):
        inner = net.normal(net.conv(net.conv(x, width, 3, stride=2 if stage else 1), width, 3, bare=True))
        gate = net.active(net.conv(net.average(inner), max(width // 2, 2), 1, bare=True), "Relu")
        gate = net.active(net.conv(gate, width, 1, bare=True), pick.of("Sigmoid", "HardSigmoid"))
        inner = net.add(inner, gate, "Mul")
        short = x if x.shape == inner.shape else net.conv(x, width, 1, stride=2 if stage else 1, bare=True)
        x = net.active(net.add(inner, short))
        width += pick.scaled(2 * pick.of(0, 1))
    return net.classes(x, pick.between(2, 12))


def _unet(net: Sketch, pick: Choices) -> Value:
    """Down and up again, each level joined to its counterpart (Ronneberger et al., MICCAI 2015)."""
    width, twice = pick.width(4, 6), pick.of(True, False)
    x, kept = net.input, list["Value"]()
    for _ in range(pick.between(2, 3)):
        x = net.conv(x, width, 3)
        x = net.conv(x, width, 3) if twice else x
        kept.append(x)
        x, width = net.pool(x), 2 * width
    x = net.conv(x, width, 3)
    for level in reversed(kept):
        x = net.transposed(x, level.shape[0]) if net.style.head == "gemm" else net.upsample(x)
        x = net.conv(net.concat(x, level), level.shape[0], 3)
    return net.conv(x, pick.between(1, 4), 1, bare=True)


def _autoencoder(net: Sketch, pick: Choices) -> Value:
    """Down to a narrow middle and up again, nothing joined."""
    width, levels = pick.width(4, 8), pick.between(2, 3)
    x = net.input
    for _ in range(levels):
        x, width = net.conv(x, width, 3, stride=2), width + pick.width(2, 6)
    x = net.conv(x, pick.width(2, 4), 1)
    for _ in range(levels):
        width = max(width - pick.scaled(3), pick.scaled(4))
        x = net.active(net.transposed(x, width)) if net.style.head == "gemm" else net.conv(net.upsample(x), width, 3)
    return net.active(net.conv(x, net.input.shape[0], 3, bare=True), pick.of("Sigmoid", "Tanh"))


def _pyramid(net: Sketch, pick: Choices) -> Value:
    """Scores at several scales, gathered into one list, as detectors do (Lin et al., CVPR 2017)."""
    width, levels, few = pick.width(4, 8), list["Value"](), pick.scaled(6)
    x = net.conv(net.input, width, 3, stride=2)
    for _ in range(pick.between(2, 3)):
        x = net.conv(net.conv(x, width, 3), width, 3, stride=2)
        levels.append(net.conv(x, few, 1))
    top, outputs, columns = levels[-1], list["Value"](), pick.between(3, 6)
    for level in [*reversed(levels[:-1]), None]:
        scores = net.conv(net.conv(top, few, 3), columns, 1, bare=True)
        outputs.append(net.reshape(scores, columns, scores.shape[1] * scores.shape[2]))
        top = net.add(net.upsample(top), level) if level is not None else top
    total = sum(each.shape[1] for each in outputs)
    joined = net.node("Concat", [each.name for each in outputs], (columns, total), axis=2)
    return net.transpose(joined, 2, 1)


FAMILIES: Mapping[str, Callable[[Sketch, Choices], Value]] = {
    "plain": _plain,
    "vgg": _vgg,
    "resnet_basic": _resnet_basic,
    "resnet_bottleneck": _resnet_bottleneck,
    "densenet": _densenet,
    "mobilenet": _mobilenet,
    "inception": _inception,
    "squeezenet": _squeezenet,
    "senet": _senet,
    "unet": _unet,
    "autoencoder": _autoencoder,
    "pyramid": _pyramid,
}
"""Name -> drawing."""
