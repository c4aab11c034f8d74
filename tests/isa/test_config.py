"""Configurations: presets, TOML, VTA's keys, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.isa import PRESETS, AcceleratorConfig, ConfigError

KIB = 1024
VTA_DEFAULT = {
    "TARGET": "sim", "HW_VER": "0.0.2", "LOG_INP_WIDTH": 3, "LOG_WGT_WIDTH": 3, "LOG_ACC_WIDTH": 5,
    "LOG_BATCH": 0, "LOG_BLOCK": 4, "LOG_UOP_BUFF_SIZE": 15, "LOG_INP_BUFF_SIZE": 15,
    "LOG_WGT_BUFF_SIZE": 18, "LOG_ACC_BUFF_SIZE": 17,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "block", "bus_bits"),
    [("tiny", 4, 64), ("edge", 8, 64), ("vta", 16, 64), ("base", 16, 128), ("big", 32, 256)],
)
def test_the_presets_are_these(name: str, block: int, bus_bits: int):
    config = AcceleratorConfig.preset(name)
    assert (config.block, 8 * config.bus_bytes) == (block, bus_bits)
    assert config.peak_macs == block * block


def test_there_are_no_other_presets():
    assert list(PRESETS) == ["tiny", "edge", "vta", "base", "big"]
    with pytest.raises(
        ConfigError, match=r"no preset 'huge'; there are tiny, edge, vta, base, big"
    ):
        AcceleratorConfig.preset("huge")


def test_the_default_has_vtas_sizes():
    config = AcceleratorConfig()
    assert config == PRESETS["base"]
    depths = (config.uop_depth, config.inp_depth, config.wgt_depth, config.acc_depth)
    assert depths == (8192, 2048, 1024, 2048)
    elements = (config.inp_element_bytes, config.wgt_element_bytes, config.acc_element_bytes)
    assert elements == (16, 256, 64)
    assert (config.out_element_bytes, config.acc8_element_bytes) == (16, 16)
    bits = (config.uop_index_bits, config.inp_index_bits, config.wgt_index_bits)
    assert (*bits, config.acc_index_bits) == (13, 11, 10, 11)
    assert (config.qnt_depth, config.qnt_element_bytes, config.qnt_index_bits) == (128, 256, 7)
    assert "acc 2048" in config.depths_text


def test_nibbles_take_half_the_bytes():
    config = replace(
        PRESETS["base"], inp_width=4, wgt_width=4, inp_bytes=1 << 14, wgt_bytes=1 << 17
    )
    assert (config.inp_element_bytes, config.out_element_bytes) == (8, 8)
    assert config.wgt_element_bytes == 128
    assert (config.acc_element_bytes, config.acc8_element_bytes) == (64, 16)
    assert (config.inp_depth, config.wgt_depth) == (2048, 1024)


def test_without_requantize_there_is_no_parameter_scratchpad():
    config = replace(PRESETS["base"], requantize=False, qnt_bytes=64)
    assert config.qnt_depth == 0


# --- in and out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_toml_and_plain_keys(name: str, tmp_path):
    config = PRESETS[name]
    path = tmp_path / "hw.toml"
    path.write_text(config.to_toml())
    assert AcceleratorConfig.from_toml(path) == config
    assert AcceleratorConfig.from_mapping(config.to_mapping()) == config


def test_a_file_extends_a_preset(tmp_path):
    path = tmp_path / "hw.toml"
    path.write_text('extends = "edge"\nbus_bytes = 32  # faster\noverwrite = false\n')
    wanted = replace(PRESETS["edge"], bus_bytes=32, overwrite=False)
    assert AcceleratorConfig.from_toml(path) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("blok = 16", r"hw.toml: unknown key 'blok', did you mean 'block'\?"),
        ("zzz = 1", r"hw.toml: unknown key 'zzz'; there are block, batch"),
        ("block = ", r"hw.toml: not TOML"),
        ("block = 12", r"hw.toml: block must be a power of two from 2 to 64, not 12"),
        ('block = "16"', r"hw.toml: block must be an integer, not '16'"),
        ("block = 16.0", r"hw.toml: block must be an integer, not 16.0"),
        ("block = true", r"hw.toml: block must be an integer, not True"),
        ("requantize = 1", r"hw.toml: requantize must be true or false, not 1"),
        ('extends = "huge"', r"there is no preset 'huge'"),
        ("extends = 3", r"there is no preset 3"),
        ("extends = []", r"there is no preset \[\]"),
    ],
)
def test_a_bad_file_is_refused(text: str, message: str, tmp_path):
    path = tmp_path / "hw.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        AcceleratorConfig.from_toml(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.toml: No such file"):
        AcceleratorConfig.from_toml(tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary.toml: not TOML"):
        AcceleratorConfig.from_toml(tmp_path / "binary.toml")


def test_vtas_own_keys_give_plain_vta():
    plain = {"requantize": False, "pad_value": False, "overwrite": False}
    assert AcceleratorConfig.from_vta(VTA_DEFAULT) == replace(PRESETS["vta"], **plain)
    deep = VTA_DEFAULT | {"LOG_BATCH": 1, "LOG_ACC_BUFF_SIZE": 18, "LOG_OUT_WIDTH": 3}
    config = AcceleratorConfig.from_vta(deep)
    assert (config.batch, config.acc_bytes) == (2, 256 * KIB)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"LOG_BLOCK": None}, "LOG_BLOCK must be a base-2 logarithm from 0 to 31, not None"),
        ({"LOG_BLOCK": 40}, "LOG_BLOCK must be a base-2 logarithm from 0 to 31, not 40"),
        ({"LOG_BLOCK": "4"}, "LOG_BLOCK must be a base-2 logarithm"),
        ({"LOG_BLOCK": 7}, "block must be a power of two from 2 to 64, not 128"),
        ({"LOG_OUT_WIDTH": 4}, "LOG_OUT_WIDTH must equal LOG_INP_WIDTH"),
        ({"LOG_FOO": 1}, "unknown VTA keys: LOG_FOO"),
        ({"LOG_ACC_WIDTH": 4}, "acc_width must be a power of two from 32 to 32, not 16"),
    ],
)
def test_bad_vta_keys_are_refused(change, message: str):
    with pytest.raises(ConfigError, match=message):
        AcceleratorConfig.from_vta(VTA_DEFAULT | change)


def test_a_missing_vta_key_is_refused():
    for key in ("LOG_BLOCK", "LOG_INP_WIDTH"):
        with pytest.raises(ConfigError, match=f"{key} must be"):
            AcceleratorConfig.from_vta({k: v for k, v in VTA_DEFAULT.items() if k != key})


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": 1}, r"block must be a power of two from 2 to 64, not 1"),
        ({"batch": 3}, r"batch must be"),
        ({"inp_width": 16}, r"inp_width must be a power of two from 4 to 8, not 16"),
        ({"wgt_width": 2}, r"wgt_width must be"),
        ({"acc_width": 16}, r"acc_width must be"),
        ({"bus_bytes": 4}, r"bus_bytes must be"),
        ({"rescale_cycles": 3}, r"rescale_cycles must be a power of two from 1 to 8, not 3"),
        ({"block": 2, "rescale_cycles": 4},
         r"rescale_cycles must divide a vector's 2 lanes, not be 4"),
        ({"uop_bytes": 100}, r"uop_bytes must be"),
        ({"token_depth": 0}, r"token_depth must be from 1 to 65536, not 0"),
        ({"token_depth": 1 << 17}, r"token_depth must be from 1 to 65536"),
        ({"inp_bytes": -64}, r"inp_bytes must be"),
        ({"block": 64, "batch": 16, "acc_bytes": 1 << 20}, None),
        ({"block": 64, "batch": 16, "acc_bytes": 1 << 12},
         r"acc_bytes is 4096, which holds fewer than two elements of 4096 bytes"),
        ({"wgt_bytes": 256}, r"wgt_bytes is 256, which holds fewer than two elements of 256"),
        ({"qnt_bytes": 256}, r"qnt_bytes is 256, which holds fewer than two"),
        ({"qnt_bytes": 256, "requantize": False}, None),
        ({"acc_bytes": 1 << 20}, r"UOP.\w+ needs \d+ bits from bit \d+ on.*smaller uop_bytes"),
        ({"uop_bytes": 1 << 20}, r"LOAD.sram_base has 16 bits, .* 18; make uop_bytes smaller"),
        ({"inp_bytes": 1 << 24}, r"(UOP|GEMM)\.\w+ needs"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(change, message):
    if message is None:
        replace(PRESETS["base"], **change)
        return
    with pytest.raises(ConfigError, match=message):
        replace(PRESETS["base"], **change)


@given(st.data())
def test_any_values_give_a_configuration_or_a_clear_refusal(data: st.DataObject):
    exponents = st.integers(0, 26).map(lambda e: 1 << e)
    values = {}
    for field in fields(AcceleratorConfig):
        kind = st.booleans() if field.type == "bool" else exponents | st.integers(-1, 100)
        if data.draw(st.booleans()):
            values[field.name] = data.draw(kind)
    refusals: list[str] = []
    try:
        config = AcceleratorConfig(**values)
    except ConfigError as error:
        refusals.append(str(error))
    else:
        assert AcceleratorConfig.from_mapping(config.to_mapping()) == config
        assert config.inp_depth * config.inp_element_bytes == config.inp_bytes
    known = [field.name for field in fields(AcceleratorConfig)]
    for message in refusals:
        assert any(name in message for name in known) or "an element of" in message
