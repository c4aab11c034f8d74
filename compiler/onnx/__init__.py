"""ONNX files: float, QDQ and QOperator networks into the tensor graph, and back.

``read`` refuses what is malformed with one line. What it returns is a :class:`.model.Model`, whose
symbolic extents are bound when the network is called; only then are there a graph, and a complete
list of what cannot be run. ``write`` makes a file of a graph of catalog operators. The package
``onnx`` is an extra: its schemas say which attributes an operator has, and how operators that the
catalog does not have are composed of others.
"""

from .model import Model, read
from .unbound import Unbound
from .write import write

__all__ = ["Model", "Unbound", "read", "write"]
