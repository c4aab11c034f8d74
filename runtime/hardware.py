"""Naming a configuration: a preset, a file, or the object itself."""

from __future__ import annotations

from pathlib import Path

from ..isa.config import AcceleratorConfig

Hardware = AcceleratorConfig | str | Path


def hardware(hw: Hardware) -> AcceleratorConfig:
    """A configuration, the preset of a name, or what a TOML file says.

    Raises
    ------
    ConfigError
        If there is no such preset, or the file cannot be read or holds something else.
    """
    if isinstance(hw, AcceleratorConfig):
        return hw
    if isinstance(hw, Path) or hw.endswith(".toml"):
        return AcceleratorConfig.from_toml(hw)
    return AcceleratorConfig.preset(hw)
