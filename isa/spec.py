"""The spec hash: one number that names a configuration together with its instruction set.

Stamped into Verilog, programs and packages; whoever loads one compares it with his own.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache

from .config import AcceleratorConfig
from .instructions import InstructionSet
from .registers import REGISTERS


@lru_cache(maxsize=256)
def spec_hash(config: AcceleratorConfig) -> str:
    """64 bits as 16 hexadecimal digits, from the configuration, encodings, meanings, registers.

    A machine without an extension is what it was before there was one: no switch that is off counts
    by its name.
    """
    instructions = InstructionSet(config)
    text = json.dumps(
        {
            "config": {k: v for k, v in config.to_mapping().items() if v is not False},
            "formats": [repr(layout) for layout in instructions.layouts.values()],
            "operations": {
                name: [sorted(o.fixed.items()), o.engine.value, repr(instructions.meaning(name))]
                for name, o in instructions.operations.items()
            },
            "registers": [(r.name, r.offset, r.words) for r in REGISTERS],
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
