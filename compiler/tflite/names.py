"""Names for nodes and tensors: short, unique, stable, without whitespace.

Converters name a tensor by the scopes of everything that was fused into it, sometimes hundreds of
characters long. A name that is short already is kept; otherwise a node takes the scope that its
weights or its output mention (``conv2d_3``), an activation the name of the node that writes it, a
constant that of its first reader and its role (``conv2d_3/weights``).
"""

from __future__ import annotations

import re

PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,40}")
"""A tensor's name that is kept as it is."""
NO_NAME = re.compile(
    r"(Identity|StatefulPartitionedCall|PartitionedCall|Relu[0-9]*|BiasAdd|MatMul|Conv2D)"
    r"([_:.][A-Za-z0-9_.:]*)?"
)
"""What converters write when a tensor has no name of its own."""

SCOPES: dict[str, tuple[str, str]] = {
    "CONV_2D": ("conv2d", r"(?!.*depthwise).*conv"),
    "DEPTHWISE_CONV_2D": ("depthwise_conv2d", r".*(depthwise.*conv|conv.*depthwise)"),
    "FULLY_CONNECTED": ("fully_connected", r"dense|fc|fully|logits"),
    "ADD": ("add", r"add"),
    "AVERAGE_POOL_2D": ("average_pool2d", r".*pool"),
    "MAX_POOL_2D": ("max_pool2d", r".*pool"),
    "RESHAPE": ("reshape", r"reshape|flatten|squeeze"),
    "SOFTMAX": ("softmax", r".*softmax"),
}
"""For each operator: its own name, and what a scope that speaks of it looks like."""


class Names:
    """Gives out names, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def unique(self, wish: str) -> str:
        """``wish``, or with ``_1``, ``_2``, ... behind it if it is taken."""
        wish = re.sub(r"\s+", "_", wish)
        name = wish
        while name in self._taken:
            self._counts[wish] = self._counts.get(wish, 0) + 1
            name = f"{wish}_{self._counts[wish]}"
        self._taken.add(name)
        return name


def is_plain(name: str) -> bool:
    """Whether a tensor keeps this name."""
    return PLAIN.fullmatch(name) is not None


def node_name(kind: str, output: str, weights: str) -> str:
    """What to call a node, before it is made unique.

    Parameters
    ----------
    kind : str
        TFLite's name of the operator.
    output, weights : str
        The file's names of its first output and of its second input, if that is a constant.
    """
    own, pattern = SCOPES.get(kind, (kind.lower(), r"(?!)"))
    speaks = re.compile(pattern, re.IGNORECASE)
    others = any(
        re.fullmatch(f"({word})([_:][0-9]+)?", output) for word, _ in SCOPES.values() if word != own
    )
    if is_plain(output) and not NO_NAME.fullmatch(output) and not others:
        return output
    for part in re.split(r"[;/]", f"{weights};{output}"):
        if speaks.match(part) and is_plain(part) and not NO_NAME.fullmatch(part):
            return part
    return own
