"""The version of the package, as packages and reports state it."""

VERSION = "0.1.0"
