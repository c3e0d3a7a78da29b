"""Obfuscation of torch.export programs in memory, with the passes and the map of ONNX models.

    obfuscated = exported_program(module, (inputs,), profile="exact")
    obfuscated.program.module()(inputs)      # computes the same
    obfuscated.save("net.onnx")

Passes that change weights alone work on both kinds of model. Passes that add operators of ONNX (predicates with decoy
branches, packing, fission and fusion) do not; they can be done to the ONNX file afterwards.

What a program says about its origin goes: names of modules, files and lines, of weights and of arguments. What callers
need stays: keyword arguments, keys of results, types of results that are classes. It is no encryption.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch.export import ExportedProgram

from vambrace.assets.obfuscate.fitting import Remembering, fit_made, moved_by
from vambrace.assets.obfuscate.keyed import Stream, as_key, fingerprint
from vambrace.assets.obfuscate.measure.difference import NOTHING
from vambrace.assets.obfuscate.passes import pass_class, profile_names
from vambrace.assets.obfuscate.passes.choosing import with_share
from vambrace.assets.obfuscate.passes.names import Names
from vambrace.assets.obfuscate.pipeline import SHARES
from vambrace.assets.obfuscate.program_answers import compare_programs, differing, noise_like
from vambrace.assets.obfuscate.program_passes import PASSES, apply_pass, undo_pass
from vambrace.assets.obfuscate.programs import Flat, program_digest, values_of
from vambrace.assets.obfuscate.record import Entry, ObfuscationMap, check_map
from vambrace.core import spec
from vambrace.core.disk import check_writable
from vambrace.core.extras import require
from vambrace.core.files import write_file
from vambrace.core.reason import reason
from vambrace.errors import ArtifactRefused, ConfigError, VambraceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vambrace.assets.obfuscate.measure.difference import Difference
    from vambrace.assets.obfuscate.passes.base import Applied, Pass, Profile
    from vambrace.assets.obfuscate.planning import Fitted

__all__ = [
    "ObfuscatedProgram",
    "UndoneProgram",
    "exported_program",
    "undo_program",
]


_PRODUCTS = ("linear", "matmul", "mm", "addmm", "bmm")
"""Operators of torch whose kernels for few rows sum otherwise than those for many."""
_LANES = 16
"""Numbers in a vector of processors: kernels of convolutions sum otherwise where pictures have fewer places."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObfuscatedProgram:
    """A program and its map.

    Attributes:
        program: torch.export.ExportedProgram.
        map: what was done; a secret.
        difference: answers to the example inputs, run as they are, beside the original's; None without examples.
        fitted: which passes move these answers too far; None without examples.
    """

    program: ExportedProgram
    map: ObfuscationMap
    difference: Difference | None
    fitted: Fitted | None = None

    def save(self, path: str | Path, *, pt2: bool = False) -> str:
        """Write the program to a file: as ONNX, or as a `.pt2` archive where that is asked for.

        Vambrace refuses `.pt2` files, which are archives of pickles for a reader that does not know who wrote them;
        compare the digest before opening one.

        Args:
            path: of the file; replaced if it is there.
            pt2: write with torch.export.save.

        Returns:
            SHA-256 of the file, 64 hexadecimal digits.

        Raises:
            ConfigError: E852, for a `.pt2` name without `pt2`, or a program that torch cannot export to ONNX, or that
                changes what it holds, as ONNX models cannot.
            MissingExtra: E112, where exporting to ONNX needs a package that is not there.
            ResourceError: E601, where the file cannot be written; what was there stays.
        """
        target = Path(path)
        if pt2 != (target.suffix == ".pt2"):
            raise ConfigError(
                "E852",
                seen=f"{target.name}" + (" to be written as .pt2" if pt2 else ", which is not asked for with pt2=True"),
                expected="a name that ends in .pt2 exactly where such an archive is wanted",
                fix="save as .onnx, which can be read without trust; or save(path, pt2=True) for a .pt2 file",
            )
        check_writable(target)
        raw = _archive(self.program) if pt2 else _as_onnx(self.program)
        write_file(target, raw)
        return hashlib.sha256(raw).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UndoneProgram:
    """A program that was led back.

    Attributes:
        program: torch.export.ExportedProgram.
        kept: passes that were done and cannot be undone.
    """

    program: ExportedProgram
    kept: tuple[str, ...]


def exported_program(
    source: ExportedProgram | torch.nn.Module,
    example_inputs: tuple[Any, ...] | None = None,
    *,
    profile: Profile = "exact",
    passes: Sequence[str | Pass] | None = None,
    ratio: Literal["small", "medium", "large"] | None = None,
    seed: int | bytes | None = None,
    customer: str | None = None,
    dynamic_shapes: Any = None,  # noqa: ANN401  as torch.export.export takes it
) -> ObfuscatedProgram:
    """Obfuscate a program of torch.export.

    The order of sums inside an operator may depend on where a channel stands, so layers give their channels in another
    order, to be put back, only where what they give for the example inputs, and for noise in their place, stays equal
    bit for bit. Where a program takes other sizes than these (`dynamic_shapes`), products of matrices and convolutions
    of pictures that are small, or of free sizes, never do. In the tolerance profile passes are left out that move these
    answers by more than 1e-5 of a sample's largest, or turn a decision, unless the program's own answers differ when it
    is asked again.

    Args:
        source: a program, which is left as it is, or a module, which is exported in the mode that it is in.
        example_inputs: positional arguments to export and check with; by default those that the program holds, or none
            where it holds keyword arguments.
        profile: "exact", equal bit for bit when run as it is, or "tolerance", equal but for rounding.
        passes: names or options of passes instead of the profile's own, each one that programs can have.
        ratio: how many of the eligible places passes with a cost take: a tenth, three (default) or six tenths.
        seed: 32 secret bytes or a whole number; by default fresh bytes of the operating system.
        customer: whose copy this is; `seed` must then be the 32 bytes that all copies share.
        dynamic_shapes: for exporting a module.

    Raises:
        ConfigError: E800 seed or customer; E802 profile, passes or ratio; E850 what cannot be exported or taken apart,
            or does not take the inputs; E851 a pass that programs cannot have.
        MissingExtra: E112, without the extra onnx.
    """
    if ratio is not None and ratio not in SHARES:
        raise ConfigError("E802", seen=f"the ratio {ratio!r}", expected="small, medium or large", fix="choose one")
    key = as_key(seed) if customer is None else fingerprint(customer, seed if isinstance(seed, bytes) else b"")
    named = [name for name in profile_names(profile) if name in PASSES] if passes is None else passes
    chosen = [_ready(one, profile, SHARES[ratio or "medium"], None if ratio else math.inf) for one in named]
    program = _exported(source, example_inputs, dynamic_shapes)
    examples = _examples(program, example_inputs)

    def make(tried: Sequence[Pass], first: int = 0) -> ObfuscatedProgram:
        return _made(program, tried, key, profile, customer, examples, first)

    if examples is None:
        return make(chosen)
    making = Remembering(make)
    repeat = _repeated(program, examples)
    fitted, entries = fit_made(chosen, making, lambda made, _: moved_by(made.difference or NOTHING, repeat))
    made = making(fitted.kept)
    known = dataclasses.replace(made.map, passes=(*entries, *made.map.passes))
    return dataclasses.replace(made, map=known, fitted=fitted)


def _made(
    program: ExportedProgram,
    passes: Sequence[Pass],
    key: bytes,
    profile: Profile,
    customer: str | None,
    examples: tuple[Any, ...] | None,
    first: int = 0,
) -> ObfuscatedProgram:
    flat = Flat.of(program)
    original = program_digest(flat)
    entries: list[Entry] = []
    for place, one in enumerate(passes, first):
        stream = Stream(key, "pass", place, one.name)
        permuting = one.name == "permutation"
        free = bool(cast("Any", program.range_constraints))
        applied = _permuted(flat, one, stream, examples, free) if permuting else apply_pass(flat, one, stream)
        fields = {field.name: getattr(applied, field.name) for field in dataclasses.fields(applied)}
        entries.append(Entry(name=one.name, options=one.as_json(), **fields))
    made = flat.program()
    done = ObfuscationMap(
        profile=profile,
        customer=customer,
        original=original,
        obfuscated=program_digest(flat),
        passes=tuple(entries),
    )
    found = None if examples is None else compare_programs(program, made, [examples])
    return ObfuscatedProgram(program=made, map=done, difference=found)


def undo_program(program: ExportedProgram, obfuscation: ObfuscationMap) -> UndoneProgram:
    """Lead an obfuscated program back by its map: weights become what they were, bit for bit, and so do names.

    Metadata stay away, for the map does not hold them. Where another pass cannot be undone, all others are, and what is
    checked is that the program is the one that was made.

    Raises:
        ArtifactRefused: E803, for what is no map; E804, for the map of another model, or a program
            that was changed since, as a run changes one that counts in its buffers.
        ConfigError: E802, E850, for a pass that this version does not have or what cannot be taken apart.
    """
    if not isinstance(program, ExportedProgram):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _unusable(f"a {type(program).__name__}")
    check_map(obfuscation)
    flat = Flat.of(program, functional=True)
    kept = tuple(entry.name for entry in obfuscation.passes if entry.done and entry.record is None)
    one_way = set(kept) - {"metadata"}  # which no digest counts
    # What comes out will not be the original then, so another edit would not show in it.
    if one_way and program_digest(flat) != obfuscation.obfuscated:
        raise _other("not what was made")
    for entry in reversed(obfuscation.passes):
        if entry.record is None:
            continue
        one = spec.read(pass_class(entry.name), entry.options)
        try:
            undo_pass(flat, one, entry.record)
        except VambraceError:
            raise
        except Exception as error:  # whatever a stranger wrote into a map
            raise _other(f"the pass {entry.name} cannot be undone ({reason(error, 120)})") from error
    if not one_way and program_digest(flat) != obfuscation.original:
        raise _other("what comes out is not the original")
    return UndoneProgram(program=flat.program(), kept=kept)


def _other(seen: str) -> ArtifactRefused:
    return ArtifactRefused(
        "E804",
        seen=f"a program with which this map does not go: {seen}",
        expected="the program that this map was made with",
        fix="give the map that was made with this program",
    )


def _ready(one: str | Pass, profile: Profile, share: float, slowdown: float | None) -> Pass:
    made = pass_class(one)() if isinstance(one, str) else one
    if one == "names":
        made = Names(interface=True)  # nobody calls the inputs of a program by these names
    if made.name not in PASSES or (profile == "exact" and made.profile != "exact"):
        raise ConfigError(
            "E851",
            seen=f"the pass {made.name} for a program of torch.export in the {profile} profile",
            expected=f"one of: {', '.join(sorted(PASSES))}, exact ones in the exact profile",
            fix="leave it out; or save the program as ONNX and obfuscate the file",
        )
    return with_share(made, share, slowdown)


def _exported(
    source: ExportedProgram | torch.nn.Module,
    examples: tuple[Any, ...] | None,
    dynamic: Any,  # noqa: ANN401
) -> ExportedProgram:
    if isinstance(source, ExportedProgram):
        return source
    if not isinstance(source, torch.nn.Module) or examples is None:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _unusable(f"a {type(source).__name__}" + ("" if examples is not None else " without example inputs"))
    try:
        return torch.export.export(source, examples, dynamic_shapes=dynamic)
    except Exception as error:  # torch raises errors of many kinds here
        raise _unusable(f"a module that torch.export refuses ({reason(error)})") from error


def _unusable(seen: str) -> ConfigError:
    return ConfigError(
        "E850",
        seen=seen,
        expected="a program of torch.export, or a module and a tuple of inputs to export it with",
        fix="torch.export.export(module, inputs) says what it does not take",
    )


def _examples(program: ExportedProgram, given: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if given is not None:
        return given
    held = program.example_inputs
    return held[0] if held is not None and not held[1] else None


def _repeated(program: ExportedProgram, examples: tuple[Any, ...]) -> Difference:
    """How far the answers of a program are from its own, asked again."""
    try:
        return compare_programs(program, program, [examples])
    except Exception as error:  # torch raises errors of many kinds here
        raise ConfigError(
            "E850",
            seen=f"example inputs that the program does not take ({reason(error)})",
            expected="a tuple of positional arguments with which program.module() runs",
            fix="give inputs like those that it was exported with; leave them out where it needs keyword arguments "
            "too, and its answers are not compared",
        ) from error


def _permuted(flat: Flat, one: Pass, stream: Stream, examples: tuple[Any, ...] | None, free: bool) -> Applied:
    """Permute channels where all sums come out as before; a place where they do not is left out, and all drawn again.

    Sums are compared on the examples and on noise: examples are often zeros or ones, of which any order is as good.
    Where noise cannot tell, the place is left out as well.
    The kernels of small products treat the last few channels in another way than the rest. Where sizes are `free`,
    what holds at those of the examples says nothing of others, and layers that depend on them are left out beforehand.
    """
    spared = {node.name for node in flat.graph.nodes if _by_size(node)} if free else set[str]()
    beforehand = len(spared)
    while True:
        applied = apply_pass(flat, one, stream.child(len(spared)), spared=spared)
        places = [entry["given"] for entry in (applied.record or {}).get("places", [])]
        if len(spared) > beforehand:
            why = "sums that depend on where a channel stands"
            applied = dataclasses.replace(applied, left={**applied.left, why: len(spared) - beforehand})
        if not places:
            return applied
        assert applied.record is not None
        if examples is None:
            undo_pass(flat, one, applied.record)
            left = {**applied.left, "no example inputs to check with": applied.done}
            return dataclasses.replace(applied, done=0, left=left, record=None, marks=())
        calls = [examples, *noise_like(flat, examples)]
        after = [values_of(flat, call, places) for call in calls]
        undo_pass(flat, one, applied.record)
        wrong = differing(flat, calls, places, after)
        if not wrong:
            again = apply_pass(flat, one, stream.child(len(spared)), spared=spared)
            return dataclasses.replace(again, left=applied.left)
        # Those behind the first one may differ because of it.
        spared.add(wrong[0])


def _by_size(node: torch.fx.Node) -> bool:
    """Whether the size of a call decides which kernel sums: of products by their rows, and of small pictures."""
    name = getattr(node.target, "_opname", "")
    if "conv" not in name:
        return name in _PRODUCTS
    places: tuple[Any, ...] = tuple(node.meta["val"].shape[2:])
    return not all(isinstance(size, int) for size in places) or math.prod(places) < _LANES


def _archive(program: ExportedProgram) -> bytes:
    archive = io.BytesIO()
    torch.export.save(program, archive)
    return archive.getvalue()


def _as_onnx(program: ExportedProgram) -> bytes:
    require("onnx", extra="onnx")
    require("onnxscript", extra="onnx")  # which torch.onnx.export imports
    if changed := sum("MUTATION" in each.kind.name for each in program.graph_signature.output_specs):
        raise ConfigError(
            "E852",
            seen=f"a program that changes {changed} of its buffers or weights when it runs",
            expected="a program that only gives outputs, as all ONNX models do",
            fix="export the module after eval(), or save(path, pt2=True)",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not all(str(each).startswith("s") for each in program.range_constraints):
                # Sizes that depend on data: exporting leaves marks in what all copies of the program share.
                program = torch.export.load(io.BytesIO(_archive(program)))
            made = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
        assert made is not None
        model = made.model_proto
    except Exception as error:  # torch raises errors of many kinds here
        raise ConfigError(
            "E852",
            seen=f"a program that torch cannot write as ONNX ({reason(error)})",
            expected="operators that torch.onnx.export knows",
            fix="try torch.onnx.export(program, dynamo=True) for its full report",
        ) from error
    from vambrace.assets.obfuscate.pipeline import onnx_model

    return onnx_model(model, passes=("metadata", "names"), seed=None).model.SerializeToString()
