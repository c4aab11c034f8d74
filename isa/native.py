"""Loop nests as native code, made by LLVM.

One code generator serves the functional simulator and the compiler's host code. The module is
verified before LLVM's passes see it; compiled objects are kept in a directory of the caller's, by
everything that decides their content.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .interpret import AccessError
from .kept import keep, used
from .lower import lower
from .nest import Nest
from .storage import bound_array, numpy_dtype
from .tiles import Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCES = (
    "lanes",
    "llvm_*",
    "lower",
    "native",
    "nest",
    "requantize",
    "storage",
    "tiles",
    "traverse",
)
"""The modules, by patterns, that decide what code a nest becomes."""

DIGEST_BYTES = 32
"""Of the SHA-256 that stands before the code in a cached file."""

SEQUENCE = """
define i64 @"sequence"(ptr %calls, i64 %count) nounwind {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %went ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %end
body:
  %at = getelementptr {ptr, ptr, ptr}, ptr %calls, i64 %i
  %function = load ptr, ptr %at
  %params.at = getelementptr i8, ptr %at, i64 8
  %params = load ptr, ptr %params.at
  %buffers.at = getelementptr i8, ptr %at, i64 16
  %buffers = load ptr, ptr %buffers.at
  %status = call i64 %function(ptr %params, ptr %buffers)
  %good = icmp eq i64 %status, 0
  br i1 %good, label %went, label %bad
went:
  %next = add nuw i64 %i, 1
  br label %head
bad:
  %high = shl i64 %i, 8
  %both = or i64 %high, %status
  ret i64 %both
end:
  ret i64 0
}
"""
"""Runs (function, params, buffers) after (function, params, buffers); see :class:`NativeCode`."""


Row = tuple[int, int, int, object]
"""A call for :meth:`NativeCode.prepared_sequence`: addresses of function, parameters and buffers,
and what they belong to."""


class Call:
    """A nest bound to arrays, for callers that call often.

    The arrays are kept alive; they must not be resized.
    """

    def __init__(self, code: NativeCode, nest: Nest, arrays: Mapping[str, NDArray[Any]]):
        self._code, self._nest = code, nest  # the code lives as long as its calls
        bound = [bound_array(b, arrays[b.name]) for b in nest.buffers]
        self._keep = bound
        self.buffers: NDArray[np.int64] = buffer_table(nest, bound)
        """Address and first extent of every buffer."""
        self._function = code.function(nest.name)
        self._buffers = self.buffers.ctypes.data
        self._params = np.zeros(max(1, len(nest.params)), np.int64)
        self._at = self._params.ctypes.data

    @property
    def row(self) -> Row:
        """This call, with the parameters of the last one, as part of a sequence."""
        return self._code.address(self._nest.name), self._at, self._buffers, self

    def rows(self, count: int) -> list[Row]:
        """A call for each value of the only parameter from 0 on, as parts of a sequence."""
        values = np.arange(count, dtype=np.int64)
        function, at = self._code.address(self._nest.name), values.ctypes.data
        keep = self, values
        return [(function, at + 8 * i, self._buffers, keep) for i in range(count)]

    def __call__(self, params: Mapping[str, int] | None = None) -> None:
        """Run with these parameters; :class:`AccessError` if a checked index was out of range."""
        for i, name in enumerate(self._nest.params):
            self._params[i] = (params or {})[name]
        status = self._function(self._at, self._buffers)
        if status:
            raise AccessError(self._nest.buffers[status - 1].name)


def buffer_table(nest: Nest, arrays: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """(address, first extent) of each buffer, as the generated code takes them.

    Raises
    ------
    ValueError
        If an array has other strides than its buffer, or is not aligned to its type.
    """
    rows: list[tuple[int, int]] = []
    for buffer, array in zip(nest.buffers, arrays, strict=True):
        item = numpy_dtype(buffer.dtype).itemsize
        strides = buffer.strides
        if buffer.dtype.bits < 8:
            per_byte = 8 // buffer.dtype.bits
            inner = int(np.prod(buffer.shape[1:], dtype=np.int64))
            first = array.size * per_byte // inner
        else:
            fits = array.strides == strides if strides else array.flags.c_contiguous
            if not fits and array.size > 1:
                raise ValueError(f"{buffer.name} has strides {array.strides}, not {strides}")
            first = array.shape[0] if array.ndim else 1
        address = array.ctypes.data
        if address % item:
            raise ValueError(f"{buffer.name} at {address:#x} is not aligned to {item} bytes")
        rows.append((address, first))
    return np.array(rows, np.int64).reshape(-1, 2)


class LinkedCode:
    """Compiled functions, ready to be called.

    Parameters
    ----------
    code : bytes
        An object file with them.
    names : sequence of str
        What they are called.
    """

    def __init__(self, code: bytes, names: Sequence[str]):
        self._tracker = _link(code, [*names, "sequence"])
        self._sequence = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(
            self.address("sequence")
        )

    def address(self, name: str) -> int:
        """Of the function ``i64 (const i64 *params, const i64 (*buffers)[2])`` of a nest."""
        return int(self._tracker[name])

    def function(self, name: str) -> Any:
        """That function for ctypes, which takes two addresses."""
        kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        return kind(self.address(name))

    def sequence(self, calls: NDArray[np.int64]) -> tuple[int, int] | None:
        """Run many calls, rows of three addresses: function, parameters, buffers.

        Returns
        -------
        tuple of int or None
            The row at which a checked index was out of range and the buffer's number; None if
            all rows were run.
        """
        status = self._sequence(calls.ctypes.data, len(calls))
        return (status >> 8, (status & 255) - 1) if status else None

    def prepared_sequence(self, rows: Sequence[Row]) -> Callable[[], None]:
        """Many calls as one; nothing in them may be checked."""
        table = np.array([row[:3] for row in rows], np.int64).reshape(-1, 3)
        run, at, count = self._sequence, table.ctypes.data, len(table)
        kept = table, [row[3] for row in rows]

        def sequence() -> None:
            assert run(at, count) == 0, kept

        return sequence


class NativeCode(LinkedCode):
    """Several nests compiled into one module.

    Parameters
    ----------
    nests : sequence of Nest
        What to compile; the names must differ.
    checked : collection of str
        Buffers whose first index is compared with the first extent. An access beyond it ends
        the nest before anything is touched there; what was stored before stays. Nothing else is
        checked: the caller knows that all other indices, and shift amounts, are legal.
    level : int
        LLVM's optimization level, 0 to 3.
    cache : Path or None
        A directory for compiled objects; made if it is missing.
    tiled : bool
        Whether contractions become register tiles (:mod:`weft.isa.tiles`). LLVM's passes before
        its back end are left out then: such code is as it shall be, and they would spoil it.
    processor : Processor or None
        What to compile for; by default this computer. Code for another one can be looked at and
        taken away (:meth:`object`), but runs only where it can.
    """

    def __init__(
        self,
        nests: Sequence[Nest],
        checked: Collection[str] = (),
        level: int = 2,
        cache: Path | None = None,
        tiled: bool = False,
        processor: Processor | None = None,
    ):
        self.nests: Mapping[str, Nest] = {nest.name: nest for nest in nests}
        if len(self.nests) != len(nests):
            raise ValueError("two nests have the same name")
        self.checked, self.level, self.tiled = frozenset(checked), level, tiled
        self.processor = processor or this_processor()
        if processor is None or processor.triple == this_processor().triple:
            super().__init__(self._object(cache), list(self.nests))

    def run(self, name: str, params: Mapping[str, int], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Execute a nest, changing ``arrays`` in place.

        ``arrays`` are as :func:`weft.isa.interpret.interpret` takes them, but with the buffer's
        own strides, and aligned to their type.

        Raises
        ------
        AccessError
            If a checked index was out of range.
        ValueError
            If an array does not fit its buffer.
        """
        self.prepare(name, arrays)(params)

    def prepare(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> Call:
        """A nest bound to arrays."""
        return Call(self, self.nests[name], arrays)

    # --- compilation

    def text(self) -> str:
        """The module as LLVM IR, before LLVM's passes."""
        own = self.processor
        pairs = "+avx2" in own.features.split(",")
        target = own.target if self.tiled else None
        bodies: list[str] = []
        declarations: set[str] = set()
        for nest in self.nests.values():
            body, declared = lower(nest, self.checked, pairs, target)
            bodies.append(body)
            declarations |= declared
        return "\n".join([*sorted(declarations), SEQUENCE, *bodies])

    def assembly(self) -> str:
        """The machine code as text, for those who want to look at it."""
        machine = _machine(self.level, self.processor)
        return str(
            machine.emit_assembly(_optimized(self.text(), machine, 0 if self.tiled else self.level))
        )

    def _object(self, cache: Path | None) -> bytes:
        if cache is None:
            return self._compiled()
        path = cache / f"{self.key}.code"
        kept = kept_object(path)
        if kept is not None:
            return kept
        code = self._compiled()
        keep(path, (hashlib.sha256(code).digest(), code))
        return code

    def object(self) -> bytes:
        """An object file with the functions."""
        return self._compiled()

    def _compiled(self) -> bytes:
        machine = _machine(self.level, self.processor)
        return bytes(
            machine.emit_object(_optimized(self.text(), machine, 0 if self.tiled else self.level))
        )

    @cached_property
    def key(self) -> str:
        """What the object is called in a cache: it differs where the code may."""
        digest = hashlib.sha256(_generator_hash().encode())
        digest.update(repr((self.processor, self.level, sorted(self.checked), self.tiled)).encode())
        for nest in self.nests.values():
            digest.update(repr(nest).encode())
        return digest.hexdigest()[:32]


def kept_object(path: Path) -> bytes | None:
    """The compiled code in a file of a cache; None without one, or if it is damaged: to run that
    would be worse than to be slow."""
    if not path.exists():
        return None
    kept = path.read_bytes()
    digest, code = kept[:DIGEST_BYTES], kept[DIGEST_BYTES:]
    if hashlib.sha256(code).digest() != digest:
        return None
    used(path)
    return code


@lru_cache(maxsize=1)
def _generator_hash() -> str:
    """Of the sources that decide the code and of LLVM's version."""
    import llvmlite

    digest = hashlib.sha256(llvmlite.__version__.encode())
    for pattern in SOURCES:
        for source in sorted(Path(__file__).parent.glob(f"{pattern}.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Processor:
    """What code is made for, as LLVM names it."""

    triple: str
    cpu: str
    features: str

    @property
    def target(self) -> Target:
        """What tiles must know of it."""
        return Target.of(self.triple, self.features)


@lru_cache(maxsize=1)
def this_processor() -> Processor:
    """This computer."""
    import llvmlite.binding as llvm

    return Processor(
        str(llvm.get_process_triple()),
        str(llvm.get_host_cpu_name()),
        str(llvm.get_host_cpu_features().flatten()),
    )


@lru_cache(maxsize=8)
def _machine(level: int, processor: Processor) -> Any:
    import llvmlite.binding as llvm

    if processor.triple == this_processor().triple:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(processor.triple)
    return target.create_target_machine(
        cpu=processor.cpu, features=processor.features, opt=level, reloc="pic", codemodel="default"
    )


def _optimized(text: str, machine: Any, level: int) -> Any:
    """The verified module after LLVM's passes."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    if not level:
        return module
    tuning = llvm.create_pipeline_tuning_options(speed_level=level)
    tuning.loop_vectorization = tuning.slp_vectorization = level >= 2
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    return module


def compiled_text(text: str, names: Sequence[str]) -> Any:
    """LLVM IR that is written by hand, ready to be called: addresses by name."""
    machine = _machine(2, this_processor())
    return _link(bytes(machine.emit_object(_optimized(text, machine, 2))), names)


_linker: list[Any] = []
"""The one JIT, made when it is first needed; it must outlive all code."""
_libraries = itertools.count()


def _link(code: bytes, names: Sequence[str]) -> Any:
    """Code ready to be called: addresses by name; kept as long as the result."""
    import llvmlite.binding as llvm

    if not _linker:
        # JITLink keeps the sections of an object together. The older linker maps each by itself,
        # and their 32-bit references overflow when the gaps of the address space lie far apart.
        _linker.append(llvm.create_lljit_compiler(_machine(2, this_processor()), use_jit_link=True))
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for name in names:
        library.export_symbol(name)
    return library.link(_linker[0], f"weft{next(_libraries)}")
