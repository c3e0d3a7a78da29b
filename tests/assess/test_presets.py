"""Profiles: what fits runs, what does not is said, what the user named is an error; and the gates that ship."""

from __future__ import annotations

import dataclasses

import pytest

from vambrace.assess.fit import Subject
from vambrace.assess.plan import DataSpec, GateSpec, ModelSpec, Plan, PlannedCheck, RunSpec, TrustSpec
from vambrace.assess.presets import resolve, select
from vambrace.assess.radii import radii
from vambrace.assess.shipped import Named, shipped_gates
from vambrace.core import registry
from vambrace.core.access import Access
from vambrace.core.contract import InputContract
from vambrace.errors import AccessError, ConfigError

NATURAL = ["natural-gaussian_noise", "natural-gaussian_blur", "natural-rotate", "natural-contrast", "natural-jpeg"]
WHOLE = Subject(
    access=Access.GRADIENTS,
    roles=("eval", "members", "nonmembers"),
    input_shape=(3, 32, 32),
    span=1.0,
    num_classes=10,
)


def ids(selection):
    return [planned.id for planned in selection.checks]


def check(name, **options):
    return registry.load(registry.CHECKS, name)(**options)


def attack(eps=(0.1,)):
    return check("adversarial", attack=registry.load(registry.ATTACKS, "pgd")(norm="linf", eps=0.1), eps=eps)


def natural(name="rotate", **options):
    return check("natural", perturbation=registry.load(registry.PERTURBATIONS, name)(), **options)


class TestProfiles:
    def test_smoke(self):
        found = select("smoke", WHOLE)
        assert ids(found) == ["clean", "pgd-linf", "natural-gaussian_noise", "natural-rotate"]
        assert all(planned.limit is not None and planned.limit <= 256 for planned in found.checks)
        assert {planned.check.severities for planned in found.checks if planned.check.kind == "natural"} == {(1,)}

    def test_ci(self):
        found = select("ci", WHOLE)
        assert ids(found) == ["clean", "pgd-linf", "adaptive-linf", "adaptive-l2", *NATURAL, "membership"]
        pgd = found.checks[1].check
        assert pgd.eps == (2 / 255, 4 / 255, 8 / 255)
        assert found.checks[2].check.eps == (8 / 255,)
        assert all(planned.limit in (1000, 2000) for planned in found.checks)
        assert {planned.check.severities for planned in found.checks if planned.check.kind == "natural"} == {(1, 3, 5)}

    def test_full(self):
        found = select("full", WHOLE)
        assert ids(found) == [
            "clean", "fgsm-linf", "pgd-linf", "adaptive-linf", "adaptive-l2", "ddn-l2", "standard-linf", *NATURAL,
            "membership",
        ]  # fmt: skip
        assert all(planned.limit is None for planned in found.checks)
        assert found.left_out == ()
        assert found.checks[2].check.attack.restarts == 5
        assert len(found.checks[2].check.eps) == 5

    @pytest.mark.parametrize("profile", ["smoke", "ci", "full"])
    def test_every_check_is_required_and_none_is_named(self, profile):
        assert all(planned.required and not planned.named for planned in select(profile, WHOLE).checks)

    @pytest.mark.parametrize("profile", ["smoke", "ci", "full"])
    @pytest.mark.parametrize("access", list(Access))
    @pytest.mark.parametrize("roles", [("eval",), WHOLE.roles])
    @pytest.mark.parametrize(
        "shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 224, 224), (1, 64, 64), (4, 9, 9), (20,), (5, 7)]
    )
    @pytest.mark.parametrize("span", [1.0, 255.0, None])
    def test_whatever_the_subject_all_that_is_chosen_can_run(self, profile, access, roles, shape, span):
        subject = Subject(access=access, roles=roles, input_shape=shape, span=span, num_classes=10)
        found = select(profile, subject)
        assert ids(found)[0] == "clean"
        for planned in found.checks:
            assert access >= planned.check.needs
            assert set(planned.check.roles) <= set(roles)
        assert len(set(ids(found))) == len(found.checks)
        everything = set(ids(select(profile, dataclasses.replace(WHOLE, input_shape=shape, span=1.0))))
        missing = everything - set(ids(found))
        told = " ".join(left.name for left in found.left_out)
        for name in missing:
            family = {"natural": "natural perturbations", "membership": "membership"}.get(
                name.split("-")[0], "adversarial attacks"
            )
            assert name in told or family in told, f"{name} vanished in silence"
        assert all(left.reason for left in found.left_out)

    def test_scores_only_leaves_white_box_attacks_out_with_a_reason(self):
        found = select("ci", dataclasses.replace(WHOLE, access=Access.SCORES))
        left = {each.name: each.reason for each in found.left_out}
        assert left["pgd-linf"] == "pgd-linf needs gradients, and the model gives scores"
        assert "membership" in ids(found)
        assert "membership" not in ids(select("ci", dataclasses.replace(WHOLE, access=Access.LABELS)))

    @pytest.mark.parametrize(
        ("profile", "access", "expected"),
        [
            ("smoke", Access.SCORES, ["square-linf"]),
            ("ci", Access.SCORES, ["square-linf", "square-l2"]),
            ("full", Access.SCORES, ["square-linf", "square-l2"]),
            ("smoke", Access.LABELS, ["hop_skip_jump-l2"]),
            ("ci", Access.LABELS, ["hop_skip_jump-l2", "rays-linf"]),
            ("full", Access.LABELS, ["hop_skip_jump-l2", "rays-linf"]),
            ("smoke", Access.GRADIENTS, ["pgd-linf"]),
        ],
    )
    def test_black_box_attacks_take_the_place_of_those_that_cannot_run(self, profile, access, expected):
        found = select(profile, dataclasses.replace(WHOLE, access=access))
        attacks = [planned for planned in found.checks if planned.check.kind == "adversarial"]
        assert [planned.id for planned in attacks] == expected
        assert all((planned.limit is None) == (profile == "full") for planned in attacks)

    def test_membership_only_with_both_roles(self):
        found = select("ci", dataclasses.replace(WHOLE, roles=("eval", "members")))
        assert "membership" not in ids(found)
        assert any(each.name == "membership" and "nonmembers" in each.reason for each in found.left_out)

    def test_features_get_noise_and_attacks_but_no_picture_changes(self):
        found = select("ci", dataclasses.replace(WHOLE, input_shape=(54,)))
        assert [each for each in ids(found) if each.startswith("natural")] == ["natural-gaussian_noise"]
        assert "pgd-linf" in ids(found)

    def test_jpeg_needs_one_or_three_channels(self):
        found = select("ci", dataclasses.replace(WHOLE, input_shape=(4, 32, 32)))
        assert "natural-jpeg" not in ids(found)
        assert any(each.name == "natural-jpeg" and "4" in each.reason for each in found.left_out)

    def test_radii_scale_with_the_bounds(self):
        found = select("ci", dataclasses.replace(WHOLE, span=255.0))
        assert found.checks[1].check.eps == (2.0, 4.0, 8.0)


class TestNamed:
    def test_the_plan_s_own_checks_replace_the_profile_s_and_clean_is_added(self):
        mine = PlannedCheck(id="mine", check=attack(), named=True)
        found = select("ci", WHOLE, named=(mine,))
        assert ids(found) == ["clean", "mine"]
        assert any("own checks" in each.reason for each in found.left_out)

    def test_a_clean_check_of_one_s_own_stays(self):
        named = (PlannedCheck(id="a", check=attack()), PlannedCheck(id="base", check=check("clean")))
        assert ids(select("ci", WHOLE, named=named)) == ["a", "base"]

    def test_what_the_model_cannot_serve_is_an_error(self):
        scores = dataclasses.replace(WHOLE, access=Access.SCORES)
        with pytest.raises(AccessError, match="E110: mine needs gradients"):
            select("ci", scores, named=(PlannedCheck(id="mine", check=attack(), named=True),))
        found = select("ci", scores, named=(PlannedCheck(id="mine", check=attack(), named=False),))
        assert ids(found) == ["clean"]
        assert found.left_out[0].name == "mine"

    def test_what_the_data_cannot_serve_is_an_error(self):
        subject = dataclasses.replace(WHOLE, roles=("eval",))
        with pytest.raises(ConfigError, match="E169: leak needs data for members and nonmembers") as caught:
            select("ci", subject, named=(PlannedCheck(id="leak", check=check("membership"), named=True),))
        assert "--members SOURCE --nonmembers SOURCE" in caught.value.fix

    @pytest.mark.parametrize(
        ("change", "name"),
        [({"input_shape": (54,)}, "rotate"), ({"span": None}, "gaussian_noise"), ({"input_shape": (2, 9, 9)}, "jpeg")],
    )
    def test_what_the_inputs_cannot_serve_is_an_error(self, change, name):
        with pytest.raises(ConfigError, match="E169"):
            select(
                "ci",
                dataclasses.replace(WHOLE, **change),
                named=(PlannedCheck(id="r", check=natural(name), named=True),),
            )


class TestOnly:
    @pytest.mark.parametrize(
        ("only", "expected"),
        [
            (["pgd-linf"], ["clean", "pgd-linf"]),
            (["adaptive-*"], ["clean", "adaptive-linf", "adaptive-l2"]),
            (["adaptive"], ["clean", "adaptive-linf", "adaptive-l2"]),
            (["adversarial"], ["clean", "pgd-linf", "adaptive-linf", "adaptive-l2"]),
            (["rotate", "natural-jpeg"], ["clean", "natural-rotate", "natural-jpeg"]),
            (["clean"], ["clean"]),
            (["*"], ["clean", "pgd-linf", "adaptive-linf", "adaptive-l2", *NATURAL, "membership"]),
        ],
    )
    def test_keeps(self, only, expected):
        found = select("ci", WHOLE, only=only)
        assert ids(found) == expected
        dropped = {each.name for each in found.left_out if "--only" in each.reason}
        assert dropped == set(ids(select("ci", WHOLE))) - set(expected)

    def test_a_name_that_nothing_has(self):
        with pytest.raises(ConfigError, match="E170") as caught:
            select("ci", WHOLE, only=["clean", "rotat"])
        assert "rotate" in caught.value.fix

    def test_a_name_that_was_left_out_says_why(self):
        for name in ("pgd-linf", "pgd"):
            with pytest.raises(ConfigError, match=f"E170: --only {name} .* needs gradients"):
                select("ci", dataclasses.replace(WHOLE, access=Access.SCORES), only=[name])


class TestResolve:
    def plan(self, **other):
        fields = {
            "profile": "ci", "seed": 0, "model": ModelSpec(), "contract": InputContract(), "run": RunSpec(),
            "data": {"eval": DataSpec(source="x")}, "trust": TrustSpec(), "checks": (), "gates": (),
        }  # fmt: skip
        return Plan(**(fields | other))

    def test_checks_and_gates_are_filled_in(self):
        plan, left = resolve(self.plan(), WHOLE)
        assert [planned.id for planned in plan.checks] == ids(select("ci", WHOLE))
        checks = [Named.of(planned) for planned in plan.checks]
        assert plan.gates == shipped_gates("ci", checks, num_classes=10, majority=0.0)
        assert {f"natural-{name}.drop@1" for name in ("rotate", "jpeg")} <= {gate.metric for gate in plan.gates}
        assert left == select("ci", WHOLE).left_out

    def test_a_resolved_plan_stays_as_it_is(self):
        plan, _ = resolve(self.plan(), WHOLE)
        again, _ = resolve(plan, WHOLE)
        assert again == plan

    def test_gates_of_one_s_own_and_none(self):
        own = (GateSpec(metric="clean.accuracy", min=0.5),)
        shipped = resolve(self.plan(), WHOLE)[0].gates
        gates = resolve(self.plan(gates=own), WHOLE)[0].gates
        assert gates == (*(gate for gate in shipped if gate.metric != "clean.accuracy"), *own)
        assert resolve(self.plan(gates=None), WHOLE)[0].gates is None


class TestRadii:
    @pytest.mark.parametrize(
        ("shape", "linf", "l2"),
        [
            ((1, 28, 28), 0.3, 2.1),
            ((1, 8, 8), 0.3, 0.6),
            ((3, 32, 32), 8 / 255, 0.43),
            ((3, 64, 64), 8 / 255, 0.87),
            ((3, 224, 224), 4 / 255, 1.5),
            ((1, 64, 64), 8 / 255, 0.5),
            ((54,), 0.1, 0.18),
            ((9, 100), 0.1, 0.75),
        ],
    )
    def test_main(self, shape, linf, l2):
        assert radii(shape, 1.0, "linf").main == linf
        assert radii(shape, 1.0, "l2").main == l2

    @pytest.mark.parametrize("shape", [(1, 28, 28), (3, 224, 224), (7,)])
    @pytest.mark.parametrize("span", [1.0, 255.0, 4.9])
    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_curves_rise_and_hold_the_main_radius(self, shape, span, norm):
        found = radii(shape, span, norm)
        assert list(found.curve) == sorted(set(found.curve))
        assert found.main in found.curve
        assert found.up_to_main(3)[-1] == found.main
        assert len(found.up_to_main(3)) == 3

    def test_a_radius_is_the_float_that_the_fraction_is(self):
        assert radii((3, 32, 32), 1.0, "linf").curve == tuple(each / 255 for each in (1, 2, 4, 8, 16))
        assert radii((3, 32, 32), 255.0, "linf").curve == (1.0, 2.0, 4.0, 8.0, 16.0)
