"""Every level as text: back to the same module, on to the same bytes, run to the same outputs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.compiler.compiled import SMALL, TINY
from tests.compiler.texts import LEVELS, mutated, small, text_of
from tests.networks import every_operator, random_inputs, residual
from tests.shared import SHARED, needs_shared
from weft.__main__ import main
from weft.compiler import pipeline
from weft.compiler.graph import Graph, element_dtype
from weft.compiler.levels import format_module, parse_module
from weft.compiler.module import Module, Origin
from weft.compiler.pipeline import PASSES, run
from weft.isa import AcceleratorConfig, InputError, ModelError, ProgramError
from weft.runtime import package
from weft.runtime.interpreter import interpret
from weft.runtime.jit import first_module, hardware_of
from weft.runtime.network import load

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.tflite"


def packed(module: Module, folder: Path) -> bytes:
    """The package of a module, compiled to the end."""
    path = folder / "made.weft"
    origin = {"name": module.origin.name, "sha256": module.origin.sha256}
    package.save(run(module).model, path, origin)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("graph", "config", "effort"),
    [
        (small(), TINY, "default"),
        (small(), SMALL, "max"),
        (every_operator(), TINY, "default"),
        (residual(channels=6), SMALL, "fast"),
    ],
    ids=["small", "max", "every", "residual"],
)
def test_every_level_goes_on_from_its_text_to_the_same_bytes(graph, config, effort, tmp_path):
    start = Module(graph, config, origin=Origin(graph.name, "0" * 64), effort=effort)
    expected = packed(start, tmp_path)
    module, at = start, 0
    for level in LEVELS:  # from each to the next, so that nothing is done twice
        module = run(module, level)
        text = format_module(module)
        back = parse_module(text)
        assert back.level == level
        assert format_module(back) == text
        module, at = back, at + 1
    assert at == len(LEVELS)
    assert packed(module, tmp_path) == expected


def test_every_level_runs_to_the_same_bits():
    graph = small()
    inputs = random_inputs(graph)
    start = Module(graph, TINY)
    expected = interpret(start, inputs)
    assert any(np.unique(value).size > 1 for value in expected.values())
    for level in LEVELS:
        made = interpret(parse_module(format_module(run(start, level))), inputs)
        assert made.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(made[name], value, err_msg=f"{level}: {name}")


@pytest.mark.parametrize("level", LEVELS)
def test_a_small_network_reads_as_expected(level, golden_text):
    golden_text(f"level-{level}.txt", text_of(level))


def test_the_command_goes_on_from_a_text_to_the_same_package(tmp_path, capsys):
    whole, text, again = (str(tmp_path / name) for name in ("a.weft", "a.txt", "b.weft"))
    assert main(["compile", str(DIGITS), "--hw", "tiny", "-o", whole]) == 0
    assert main(["compile", str(DIGITS), "--hw", "tiny", "--stop-after", "schedule",
                 "--emit", "text", "-o", text]) == 0  # fmt: skip
    assert main(["compile", text, "-o", again, "--time-passes"]) == 0
    assert Path(whole).read_bytes() == Path(again).read_bytes()
    assert re.findall(r"s  (\w+)", capsys.readouterr().err) == [
        "join",
        "keep",
        "allocate",
        "rehearse",
        "emit",
        "check",
    ]
    assert main(["run", text, "--on", "interpreter", "--limit", "1"]) == 0


def test_a_text_for_other_hardware_is_refused_where_that_was_decided(tmp_path, capsys):
    for level, code in (("graph", 0), ("nests", 0), ("schedule", 2), ("stream", 2)):
        path = tmp_path / f"{level}.txt"
        path.write_text(text_of(level))
        assert main(["compile", str(path), "--hw", "edge", "-o", str(tmp_path / "o.weft")]) == code
    assert "compiled for spec" in capsys.readouterr().err


# --- what is changed by hand ---------------------------------------------------------------------


def test_another_tile_is_another_program_with_the_same_outputs():
    text = text_of("schedule")
    tile = '{"outputs": 1, "rows": 3,'
    assert tile in text
    module = run(parse_module(text.replace(tile, '{"outputs": 1, "rows": 2,', 1)))
    assert (
        module.model.programs[0][0].program != run(parse_module(text)).model.programs[0][0].program
    )
    inputs = random_inputs(small())
    expected = interpret(Module(small(), TINY), inputs)
    for name, value in interpret(module, inputs).items():
        np.testing.assert_array_equal(value, expected[name])


def test_instructions_that_do_not_compute_a_layer_are_refused_by_name():
    text = text_of("schedule").replace('"depthwise.set", "depthwise.add"', '"gemm"', 1)
    with pytest.raises(ModelError, match=r"line \d+: gemm, .* do not compute layer 'depthwise_1'"):
        parse_module(text)


def test_a_nest_that_is_changed_is_what_the_accelerator_computes():
    text = text_of("nests")
    before, nest = text.split("== node conv_0\n")
    changed = (
        before
        + "== node conv_0\n"
        + nest.replace("-128\n            ),\n", "-100\n            ),\n", 1)
    )
    assert changed != text
    inputs = random_inputs(small())
    module = parse_module(changed)
    expected = interpret(module, inputs)
    assert any((expected[n] != v).any() for n, v in interpret(parse_module(text), inputs).items())
    for name, value in interpret(run(module), inputs).items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_nest_of_the_host_cannot_be_changed():
    before, nest = text_of("nests").split("== node softmax_6\n")
    changed = nest.replace("..", ".. 0 +", 1)
    with pytest.raises(ModelError, match="'softmax_6' runs on the host"):
        run(parse_module(f"{before}== node softmax_6\n{changed}"))


def test_a_program_that_is_changed_so_that_it_races_is_refused():
    text = text_of("stream")
    assert " | push_next" in text
    with pytest.raises(ProgramError):
        run(parse_module(text.replace(" | push_next", "", 1)))


# --- what is malformed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "old", "new", "message"),
    [
        ("graph", "weft graph 1", "weft shape 1", "line 1: expected 'weft LEVEL 1'"),
        ("graph", "weft graph 1", "weft graph 7", "line 1: version '7'; this Weft reads 1"),
        ("graph", 'placement "auto"', 'placement "gpu"', "line 4: expected auto or cpu, not 'gpu'"),
        ("graph", "block = 4", "block = 5", "line 7: hardware: block must be"),
        ("graph", "node conv_0", "nodes conv_0", r"line \d+: expected input, node, output"),
        ("nests", "parallel for", "parallel far", r"line \d+: expected 'for', not 'far'"),
        ("nests", "conv_0.bias[o]", "conv_0.bies[o]", r"line \d+: 'conv_0': there is no buffer"),
        ("schedule", '"rows": 3', '"rows": 30', r"line \d+: .* there is no tile"),
        ("schedule", '"rows": 3', '"rows": "3"', r"line \d+: expected rows as an integer"),
        ("stream", "load.wgt", "load.wgd", r"line \d+: .* did you mean 'load.wgt'"),
        ("stream", "of conv_0", "of conv_9", r"line \d+: program .* has no layer 'conv_9'"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_with_its_line(level, old, new, message, tmp_path, capsys):
    path = tmp_path / "text.txt"
    assert old in text_of(level)
    path.write_text(text_of(level).replace(old, new, 1))
    assert main(["compile", str(path), "-o", str(tmp_path / "out.weft")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


@pytest.mark.parametrize("level", LEVELS)
def test_no_changed_text_brings_more_than_a_complaint(level, tmp_path):
    assert outcomes(level, range(10), tmp_path)["refused"] > 5


def outcomes(level, seeds: range, folder: Path) -> dict[str, int]:
    """How often a changed text was refused, and how often it went through."""
    path, counts = folder / "text.txt", {"refused": 0, "compiled": 0}
    for seed in seeds:
        path.write_text(mutated(level, seed))
        try:
            network = load(path)
            run(first_module(network, hardware_of(network, None)))
            counts["compiled"] += 1
        except InputError as error:
            counts["refused"] += "\n" not in str(error)
    assert sum(counts.values()) == len(seeds)
    return counts


@pytest.mark.deep
@pytest.mark.parametrize("level", LEVELS)
def test_thousands_of_changed_texts_bring_no_more_than_complaints(level, tmp_path):
    assert outcomes(level, range(1000, 2000), tmp_path)["refused"] > 500


# --- crashes -------------------------------------------------------------------------------------


def crashing(name: str):
    """The passes, of which one crashes on every network that has a pool."""

    def crash(module: Module) -> Module:
        if any(node.name == "max_pool_3" for node in module.graph.nodes):
            raise KeyError("what nobody expected")
        return module

    return tuple(replace(p, apply=crash) if p.name == name else p for p in PASSES)


@pytest.mark.parametrize("name", [step.name for step in PASSES])
def test_a_pass_that_crashes_leaves_a_text_from_which_it_crashes_again(
    name, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(pipeline, "PASSES", crashing(name))
    source = tmp_path / "source.txt"
    source.write_text(text_of("graph"))
    first, second = tmp_path / "first", tmp_path / "second"
    errors: list[str] = []
    for given, folder in ((tmp_path, first), (first, second)):
        (text,) = given.glob("*.txt")
        arguments = ["compile", str(text), "-o", str(tmp_path / "o.weft")]
        assert main([*arguments, "--crash-dir", str(folder)]) == 70
        (left,) = folder.iterdir()
        assert left.name.startswith(f"weft-crash-{name}-")
        errors.append(capsys.readouterr().err)
        assert errors[-1].count("\n") == 1
        assert str(left) in errors[-1]
        assert f"pass {name!r} crashed with KeyError: 'what nobody expected'" in errors[-1]
        note = left.read_text().splitlines()[1:4]
        assert note[0].startswith(f"# pass {name!r} crashed")
        assert note[2] == f"# again: weft compile {left.name}"
    assert errors[0].replace("/first/", "/second/") == errors[1]


def test_a_complaint_about_the_input_leaves_nothing(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(text_of("stream").replace(" | push_next", "", 1))
    folder = tmp_path / "crashes"
    assert main(["compile", str(path), "-o", str(tmp_path / "o"), "--crash-dir", str(folder)]) == 2
    assert not folder.exists()


# --- real networks -------------------------------------------------------------------------------


def models() -> list[Path]:
    """Every model file of the shared folder."""
    if SHARED is None:
        return []
    return sorted(p for p in (SHARED / "models").rglob("*") if p.suffix in (".tflite", ".onnx"))


def any_inputs(graph: Graph) -> dict[str, np.ndarray]:
    """An array for each input, of its type."""
    rng = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {}
    for name in graph.inputs:
        tensor = graph.tensors[name]
        dtype = element_dtype(tensor.dtype)
        if dtype.kind == "f":
            inputs[name] = rng.standard_normal(tensor.shape).astype(dtype)
        else:
            info = np.iinfo(dtype)
            inputs[name] = rng.integers(info.min, info.max, tensor.shape, dtype, endpoint=True)
    return inputs


QUICK = ("resnet20_cifar10_fp32", "micro_speech")
"""Of floats, whose sums depend on what is joined, and of integers."""


@needs_shared
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.deep] * (p.stem not in QUICK))
        for p in models()
    ],
)
def test_every_level_of_a_real_network_means_the_same(path, tmp_path):
    network = load(path)
    if network.unbound is not None:
        pytest.skip("its shapes depend on its inputs")
    start = first_module(network, AcceleratorConfig.preset("base"))
    whole = run(start)
    expected = packed(whole, tmp_path)
    inputs = any_inputs(network.graph)
    outputs = interpret(start, inputs)
    for level in LEVELS:
        text = format_module(run(start, level))
        module = parse_module(text)
        assert format_module(module) == text
        assert packed(module, tmp_path) == expected, level
        exact = level != "nests" or all(v.dtype.kind in "iub" for v in outputs.values())
        for name, value in interpret(module, inputs, "functional").items():
            if exact:
                np.testing.assert_array_equal(value, outputs[name], err_msg=f"{level}: {name}")
            else:  # sums of floats may be added in any order
                np.testing.assert_allclose(value, outputs[name], rtol=1e-3, atol=1e-4)
