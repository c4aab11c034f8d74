"""The hash that names a configuration together with its instruction set."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace

from tests.shared import ROOT
from weft.isa import PRESETS, spec_hash

BASE = PRESETS["base"]


def test_it_is_64_bits_in_hexadecimal():
    assert len(spec_hash(BASE)) == 16
    assert int(spec_hash(BASE), 16) < 1 << 64


def test_every_preset_has_its_own():
    assert len({spec_hash(config) for config in PRESETS.values()}) == len(PRESETS)


def test_every_parameter_counts():
    tiny = PRESETS["tiny"]
    changes = {"token_depth": 7, "batch": 2, "bus_bytes": 64, "rescale_cycles": 2}
    for field in fields(tiny):
        value = getattr(tiny, field.name)
        if field.name == "acc_width":
            continue  # it has one legal value
        if field.type == "bool":
            other = not value
        else:
            other = changes.get(field.name, value // 2)
        assert spec_hash(replace(tiny, **{field.name: other})) != spec_hash(tiny), field.name


def test_it_does_not_depend_on_the_process():
    code = "from weft.isa import PRESETS, spec_hash; print(spec_hash(PRESETS['base']))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == spec_hash(BASE)
