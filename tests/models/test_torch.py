import logging

import pytest
import torch
from torch import nn

from vambrace.core.access import Access, Bounds
from vambrace.errors import ConfigError, ModelMisbehaved, VambraceError
from vambrace.models import Model, from_torch
from vambrace.models.contract import Identity

MEAN, STD = (0.4, 0.5), (0.2, 0.25)


class Function(nn.Module):
    """A module of one function, with a parameter so that it has a place and a type."""

    def __init__(self, function, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))
        self.function = function

    def forward(self, inputs: torch.Tensor) -> object:
        return self.function(inputs)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 9, 3)).eval()


def images(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 2, 5, 5, generator=torch.Generator().manual_seed(1))


def test_is_a_model() -> None:
    model = from_torch(network())
    assert isinstance(model, Model)
    assert model.access is Access.INTERNALS
    assert (model.bounds.low, model.bounds.high) == (0.0, 1.0)
    assert (model.input_shape, model.num_classes, model.identity) == (None, None, None)
    model(images())
    assert (model.input_shape, model.num_classes) == ((2, 5, 5), 3)


def test_logits_and_gradient_equal_the_bare_module_normalised_by_hand() -> None:
    net, inputs = network(), images().requires_grad_()
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    weights = torch.randn(6, 3)
    expected = net((inputs - mean) / std)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), inputs)
    found = from_torch(net, mean=MEAN, std=STD)(inputs)
    assert torch.equal(found, expected)
    assert torch.equal(torch.autograd.grad((found * weights).sum(), inputs)[0], gradient)
    without, _ = net(inputs), None
    assert not torch.allclose(found, without), "the normalisation must matter for this test to mean anything"


def test_train_mode_is_reported_not_used_and_put_back(caplog: pytest.LogCaptureFixture) -> None:
    net = network().train()
    net[1].eval()
    with caplog.at_level(logging.WARNING):
        model = from_torch(net)
    assert model.was_training == ("", "0", "2", "3", "4")
    assert "train mode" in caplog.text
    assert torch.equal(model(images()), network()(images()))
    assert [part.training for part in net.modules()] == [True, True, False, True, True, True]


def test_eval_mode_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    assert from_torch(network()).was_training == ()
    assert caplog.text == ""


def test_batch_statistics_do_not_move() -> None:
    net = network().train()
    before = net[1].running_mean.clone()
    from_torch(net)(images())
    assert torch.equal(net[1].running_mean, before)


def test_flags_come_back_when_the_module_raises() -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise ValueError("unsupported value")

    net = Function(fail).train()
    with pytest.raises(
        ModelMisbehaved, match="Function raised ValueError on inputs of shape .* unsupported value"
    ) as caught:
        from_torch(net)(images())
    assert caught.value.code == "E406"
    assert net.training
    assert net.scale.requires_grad


def test_running_out_of_memory_is_not_blamed_on_the_model() -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        from_torch(Function(fail).eval())(images())


def test_our_own_errors_pass_through() -> None:
    inner = from_torch(Function(lambda x: x.flatten(1).long()).eval())
    outer = from_torch(Function(inner).eval())
    with pytest.raises(ModelMisbehaved) as caught:
        outer(images())
    assert caught.value.code == "E404"


@pytest.mark.parametrize("code", ["E401", "E402", "E403", "E404"])
def test_forms_are_checked_on_every_call(code: str) -> None:
    made = {
        "E401": lambda x: (x.flatten(1),),
        "E402": lambda x: x.flatten(1)[:, 0],
        "E403": lambda x: x.flatten(1)[1:],
        "E404": lambda x: x.flatten(1).long(),
    }
    net = Function(lambda x: x.flatten(1)).eval()
    model = from_torch(net)
    model(images())
    net.function = made[code]
    with pytest.raises(ModelMisbehaved, match="Function returned") as caught:
        model(images())
    assert caught.value.code == code


def test_nan_is_no_error_here() -> None:
    assert from_torch(Function(lambda x: x.flatten(1) * float("nan")).eval())(images()).isnan().all()


def test_in_place_changes_of_the_callers_tensor_are_noticed() -> None:
    inputs = images()
    model = from_torch(Function(lambda x: x.sub_(0.5).flatten(1)).eval())
    with pytest.raises(ModelMisbehaved, match="wrote into the tensor") as caught:
        model(inputs)
    assert caught.value.code == "E424"


@pytest.mark.parametrize("options", [{"mean": 0.5}, {"dtype": torch.float64}])
def test_in_place_changes_of_a_copy_harm_nobody(options: dict[str, object]) -> None:
    inputs, net = images(), Function(lambda x: x.mul_(2).flatten(1), options.pop("dtype", torch.float32)).eval()
    before = inputs.clone()
    from_torch(net, **options)(inputs)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_model_computes_in_its_own_type(dtype: torch.dtype) -> None:
    inputs = images().requires_grad_()
    model = from_torch(network().to(dtype), mean=MEAN, std=STD)
    logits = model(inputs)
    assert model.dtype == dtype
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), inputs)
    reference = from_torch(network(), mean=MEAN, std=STD)
    (expected,) = torch.autograd.grad(reference(inputs)[:, 0].sum(), inputs)
    assert gradient.dtype == torch.float32
    assert torch.allclose(gradient, expected, rtol=0.1, atol=0.02 * float(expected.abs().max()))


def test_half_inputs_are_normalised_in_single_precision() -> None:
    inputs = (images() * 255).half()
    model = from_torch(Function(lambda x: x.flatten(1), torch.float16).eval(), bounds=(0, 255), mean=127.0, std=64.0)
    expected = ((inputs.float() - 127) / 64).half().float().flatten(1)
    assert torch.equal(model(inputs), expected)


@pytest.mark.parametrize("flatten", [nn.Flatten(), Function(lambda x: x.view(x.shape[0], -1))])
@pytest.mark.parametrize("channels", [1, 2])
def test_channels_last_inputs(flatten: nn.Module, channels: int) -> None:
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), flatten, nn.Linear(36, 3)).eval()
    inputs = images()[:, :channels].contiguous()
    model = from_torch(net)
    for _ in range(2):
        fed = inputs.to(memory_format=torch.channels_last).requires_grad_()
        found = model(fed)
        assert torch.allclose(found, net(inputs), atol=1e-6)
        assert torch.autograd.grad(found.sum(), fed)[0].abs().sum() > 0


def test_predict_counts_one_query_a_sample() -> None:
    model = from_torch(network())
    labels = model.predict(images().requires_grad_())
    assert labels.dtype == torch.int64
    assert not labels.requires_grad
    assert torch.equal(labels, network()(images()).argmax(1))
    assert (model.calls, model.rows, model.queries) == (1, 6, 6)
    model(images(4))
    assert (model.calls, model.rows, model.queries) == (2, 10, 6)


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (torch.ones(2, 2, 5, 5, dtype=torch.uint8), {}),
        (torch.rand(2, 2, 5, 5).numpy(), {}),
        (torch.ones(2, 2, 5, 5, dtype=torch.int64), {}),
        (torch.rand(2, 5, 5), {"input_shape": (2, 5, 5)}),
        (torch.rand(2, 2, 6, 6), {"input_shape": (2, 5, 5)}),
    ],
)
def test_inputs_that_cannot_be_fed(inputs: torch.Tensor, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_torch(network(), **options)(inputs)
    assert caught.value.code == "E113"


def test_a_shape_that_was_only_learned_binds_nobody() -> None:
    model = from_torch(nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval())
    assert model(torch.rand(1, 2, 5, 5)).shape == model(torch.rand(1, 2, 9, 9)).shape


@pytest.mark.parametrize(
    "arguments",
    [{"module": lambda x: x}, {"outputs": "labels"}, {"outputs": "Logits"}, {"device": "gpu"}, {"device": "cuda:99"}],
)
def test_arguments_that_cannot_be(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_torch(**{"module": network(), **arguments})
    assert caught.value.code == "E115"


def test_declared_classes_must_come() -> None:
    with pytest.raises(ModelMisbehaved, match="3 columns"):
        from_torch(network(), num_classes=10)(images())


def test_bounds_of_every_kind() -> None:
    low, high = torch.zeros(2, 5, 5), torch.ones(2, 5, 5)
    assert from_torch(network(), bounds=None).bounds is None
    assert from_torch(network(), bounds=(low, high)).bounds.span == 1.0
    assert from_torch(network(), bounds=Bounds(0.0, 255.0)).bounds.span == 255.0
    with pytest.raises(VambraceError, match="E101"):
        from_torch(network(), bounds=(1, 0))


def test_a_name_becomes_an_identity() -> None:
    first, again = (from_torch(network(), identity="mine", mean=MEAN).identity for _ in range(2))
    assert first == again
    assert first.name == "mine"
    assert len(first.weights) == 64
    other = network()
    other[4].bias.data[0] += 1
    assert from_torch(other, identity="mine", mean=MEAN).identity.weights != first.weights
    given = Identity(name="x", kind="torch", weights=None, source=None, detail={})
    assert from_torch(network(), identity=given).identity is given


def test_probabilities_become_logits() -> None:
    net = network()
    soft = from_torch(nn.Sequential(net, nn.Softmax(1)).eval(), outputs="probabilities")
    assert torch.allclose(soft(images()), net(images()).log_softmax(1), atol=1e-5)
    assert soft.outputs == "probabilities"


def test_a_module_without_parameters() -> None:
    model = from_torch(nn.Flatten())
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert model(images()).shape == (6, 50)


def test_the_device_of_the_inputs_is_that_of_the_logits(device: torch.device) -> None:
    model = from_torch(network(), device=device, mean=MEAN, std=STD)
    assert model.device.type == device.type
    assert model(images()).device.type == "cpu"
    assert model(images().to(device)).device.type == device.type


def test_gradients_stay_off_the_parameters_even_in_train_mode() -> None:
    net, inputs = network().train(), images().requires_grad_()
    from_torch(net)(inputs).sum().backward()
    assert all(part.grad is None for part in net.parameters())
    assert inputs.grad.abs().sum() > 0
