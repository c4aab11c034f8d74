"""TFLite files: int8 networks in and out of the tensor graph.

``read`` refuses what is malformed with one line; what is well formed but unknown becomes an
:class:`~weft.compiler.graph.Opaque` node, so that whoever places the nodes can name all of them.
"""

from .read import read

__all__ = ["read"]
