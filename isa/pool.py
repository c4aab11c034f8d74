"""Threads that run rows of native calls, phase by phase.

A phase is some rows (function, parameters, buffers) that do not depend on one another; the next one
begins when all of them are done. The caller publishes a phase, takes rows itself until none is
left, and waits for those that are still on their way: a thread that the system has put aside holds
up nobody but its own row. Rows are taken by one compare-and-exchange of a ticket, (generation,
index): who comes late finds another generation, and takes a row of that or none. A thread that
finds nothing for a while sleeps in the kernel.

Threads are made when they are first needed, after a fork again in the child. While they are busy
with one caller's phases, another caller runs its own by itself. They end before the interpreter
does. Where there are no futexes, everything runs in the caller.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .native import Row

YIELD = {"x86_64": 24, "AMD64": 24, "aarch64": 124, "riscv64": 124}
"""That which lets another thread have the processor."""
FUTEX = {"x86_64": 202, "AMD64": 202, "aarch64": 98, "riscv64": 98}
"""The number of Linux's system call, by machine."""
WAIT, ROUSE = 128, 129
"""Its operations, on words of this process alone."""
SPINS = 4000
"""Looks at the ticket before a thread sleeps."""
WORDS = 64
"""``i64`` of a context; those that several threads write lie in lines of their own."""
TICKET, DONE, SLEEPERS, STOP, SLOTS = 0, 8, 16, 24, 32
"""Where things stand in a context; two slots of (rows, count)."""

TEXT = """
declare i64 @syscall(i64, ...)

define internal void @"pool/row"(ptr %rows, i64 %index) nounwind {{
  %at = getelementptr {{ptr, ptr, ptr}}, ptr %rows, i64 %index
  %function = load ptr, ptr %at
  %params.at = getelementptr i8, ptr %at, i64 8
  %params = load ptr, ptr %params.at
  %buffers.at = getelementptr i8, ptr %at, i64 16
  %buffers = load ptr, ptr %buffers.at
  %status = call i64 %function(ptr %params, ptr %buffers)
  ret void
}}

; Takes and runs one row of the ticket's generation; whether there was one.
define internal i1 @"pool/take"(ptr %context) nounwind {{
entry:
  %done = getelementptr i64, ptr %context, i64 {done}
  %slots = getelementptr i64, ptr %context, i64 {slots}
  br label %again
again:
  %ticket = load atomic i64, ptr %context seq_cst, align 8
  %generation = lshr i64 %ticket, 32
  %index = and i64 %ticket, 4294967295
  %parity = and i64 %generation, 1
  %slot = getelementptr {{i64, i64}}, ptr %slots, i64 %parity
  %rows.bits = load atomic i64, ptr %slot monotonic, align 8
  %count.at = getelementptr i8, ptr %slot, i64 8
  %count = load atomic i64, ptr %count.at monotonic, align 8
  %some = icmp ult i64 %index, %count
  br i1 %some, label %claim, label %none
claim:
  %after = add i64 %ticket, 1
  %pair = cmpxchg ptr %context, i64 %ticket, i64 %after seq_cst seq_cst, align 8
  %won = extractvalue {{i64, i1}} %pair, 1
  br i1 %won, label %run, label %again
run:
  %rows = inttoptr i64 %rows.bits to ptr
  call void @"pool/row"(ptr %rows, i64 %index)
  %old = atomicrmw add ptr %done, i64 1 seq_cst, align 8
  ret i1 true
none:
  ret i1 false
}}

define void @"pool/worker"(ptr %context) nounwind {{
entry:
  %sleepers = getelementptr i64, ptr %context, i64 {sleepers}
  %stop.at = getelementptr i64, ptr %context, i64 {stop}
  %generation.at = getelementptr i8, ptr %context, i64 4
  br label %look
look:
  %spins = phi i64 [ 0, %entry ], [ 0, %ran ], [ %more, %idle ], [ 0, %slept ]
  %stop = load atomic i64, ptr %stop.at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %end, label %try
try:
  %seen = load atomic i64, ptr %context seq_cst, align 8
  %took = call i1 @"pool/take"(ptr %context)
  br i1 %took, label %ran, label %idle
ran:
  br label %look
idle:
  {pause}
  %more = add i64 %spins, 1
  %tired = icmp ugt i64 %more, {spins}
  br i1 %tired, label %sleep, label %look
sleep:
  %generation = lshr i64 %seen, 32
  %old = atomicrmw add ptr %sleepers, i64 1 seq_cst, align 8
  %word = trunc i64 %generation to i32
  %status = call i64 (i64, ...) @syscall({wait}, i32 %word, ptr null, ptr null, i32 0)
  %older = atomicrmw sub ptr %sleepers, i64 1 seq_cst, align 8
  br label %slept
slept:
  br label %look
end:
  ret void
}}

define void @"pool/wake"(ptr %context) nounwind {{
  %generation.at = getelementptr i8, ptr %context, i64 4
  %status = call i64 (i64, ...) @syscall({rouse}, i32 2147483647, ptr null, ptr null, i32 0)
  ret void
}}

; Runs phases, (rows, count) each; alone where the context is null.
define void @"pool/run"(ptr %context, ptr %phases, i64 %count) nounwind {{
entry:
  %alone = icmp eq ptr %context, null
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %went ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %phase, label %end
phase:
  %at = getelementptr {{ptr, i64}}, ptr %phases, i64 %i
  %rows = load ptr, ptr %at
  %size.at = getelementptr i8, ptr %at, i64 8
  %size = load i64, ptr %size.at
  %few = icmp ult i64 %size, 2
  %serial = or i1 %alone, %few
  br i1 %serial, label %row.head, label %publish
row.head:
  %k = phi i64 [ 0, %phase ], [ %k.next, %row ]
  %rest = icmp ult i64 %k, %size
  br i1 %rest, label %row, label %went
row:
  call void @"pool/row"(ptr %rows, i64 %k)
  %k.next = add i64 %k, 1
  br label %row.head
publish:
  %done = getelementptr i64, ptr %context, i64 {done}
  %slots = getelementptr i64, ptr %context, i64 {slots}
  %sleepers = getelementptr i64, ptr %context, i64 {sleepers}
  %ticket = load atomic i64, ptr %context seq_cst, align 8
  %old = lshr i64 %ticket, 32
  %generation = add i64 %old, 1
  %parity = and i64 %generation, 1
  %slot = getelementptr {{i64, i64}}, ptr %slots, i64 %parity
  %bits = ptrtoint ptr %rows to i64
  store atomic i64 0, ptr %done monotonic, align 8
  store atomic i64 %bits, ptr %slot monotonic, align 8
  %slot.count = getelementptr i8, ptr %slot, i64 8
  store atomic i64 %size, ptr %slot.count monotonic, align 8
  %fresh = shl i64 %generation, 32
  store atomic i64 %fresh, ptr %context seq_cst, align 8
  %asleep = load atomic i64, ptr %sleepers seq_cst, align 8
  %wake = icmp ne i64 %asleep, 0
  br i1 %wake, label %rouse, label %work
rouse:
  call void @"pool/wake"(ptr %context)
  br label %work
work:
  %took = call i1 @"pool/take"(ptr %context)
  br i1 %took, label %work, label %wait
wait:
  %waited = phi i64 [ 0, %work ], [ %waited.more, %still ], [ 0, %yield ]
  %finished = load atomic i64, ptr %done seq_cst, align 8
  %all = icmp eq i64 %finished, %size
  br i1 %all, label %went, label %still
still:
  {pause}
  %waited.more = add i64 %waited, 1
  %long = icmp ugt i64 %waited.more, {spins}
  br i1 %long, label %yield, label %wait
yield:
  %yielded = call i64 (i64, ...) @syscall(i64 {leave})
  br label %wait
went:
  %next = add nuw i64 %i, 1
  br label %head
end:
  ret void
}}
"""

NAMES = ("pool/worker", "pool/wake", "pool/run")


def text(machine: str) -> str:
    """The pool's code for a kind of machine, by its name."""
    pause = {
        "x86_64": "call void @llvm.x86.sse2.pause()",
        "aarch64": "call void @llvm.aarch64.hint(i32 1)",
    }.get(machine, "fence seq_cst")
    futex = f"i64 {FUTEX.get(machine, 0)}, ptr %generation.at, i32"
    return TEXT.format(
        done=DONE,
        slots=SLOTS,
        sleepers=SLEEPERS,
        stop=STOP,
        spins=SPINS,
        pause=pause,
        leave=YIELD.get(machine, 0),
        wait=f"{futex} {WAIT}",
        rouse=f"{futex} {ROUSE}",
    )


class Pool:
    """The threads of this process; see the module. Use :func:`pool`."""

    def __init__(self) -> None:
        from .native import compiled_text

        addresses = compiled_text(text(platform.machine()), NAMES)
        self._keep = addresses
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._worker = ctypes.CFUNCTYPE(None, pointer)(addresses["pool/worker"])
        self._wake = ctypes.CFUNCTYPE(None, pointer)(addresses["pool/wake"])
        self._run = ctypes.CFUNCTYPE(None, pointer, pointer, size)(addresses["pool/run"])
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._memory = np.zeros(WORDS + 8, np.int64)
        self._context = -(-self._memory.ctypes.data // 64) * 64
        self.possible = sys.platform == "linux" and platform.machine() in FUTEX
        """Whether there can be threads."""

    def run(self, phases: int, count: int, threads: int) -> None:
        """Run ``count`` phases at an address, on so many threads, the caller's among them."""
        if threads < 2 or not self.possible or not self._lock.acquire(blocking=False):
            self._run(None, phases, count)
            return
        try:
            while len(self._threads) < threads - 1:
                thread = threading.Thread(
                    target=self._worker, args=(self._context,), daemon=True, name="weft"
                )
                thread.start()
                self._threads.append(thread)
            self._run(self._context, phases, count)
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End all threads; the next run makes new ones."""
        words: Any = (ctypes.c_int64 * WORDS).from_address(self._context)
        words[STOP] = 1
        words[SLOTS + 1] = words[SLOTS + 3] = 0
        words[TICKET] += 1 << 32  # whoever is about to sleep on the old generation does not
        while any(thread.is_alive() for thread in self._threads):
            self._wake(self._context)
            for thread in self._threads:
                thread.join(0.001)
        self._threads.clear()
        words[STOP] = 0


class Phases:
    """Rows of calls, phase by phase, as one function.

    Parameters
    ----------
    phases : sequence
        For each phase its rows, addresses of function, parameters and buffers and what they belong
        to, as :meth:`weft.isa.native.Call.rows` gives them.
    threads : int
        How many run them.
    """

    def __init__(self, phases: Sequence[Sequence[Row]], threads: int):
        self._tables = [np.array([r[:3] for r in rows], np.int64).reshape(-1, 3) for rows in phases]
        self._keep = [r[3] for rows in phases for r in rows]
        places = [(table.ctypes.data, len(table)) for table in self._tables]
        self._phases = np.array(places, np.int64).reshape(-1, 2)
        self._at, self.threads = self._phases.ctypes.data, threads

    def __call__(self) -> None:
        """Run them all."""
        pool().run(self._at, len(self._phases), self.threads)


_pools: dict[int, Pool] = {}


def pool() -> Pool:
    """The pool of this process."""
    found = _pools.get(os.getpid())
    if found is None:
        found = _pools[os.getpid()] = Pool()
        atexit.register(found.stop)
    return found


def _forget() -> None:
    """A child has none of its parent's threads, whatever the parent's pool says."""
    for old in _pools.values():
        atexit.unregister(old.stop)
    _forgotten.extend(_pools.values())  # what is compiled stays where it is
    _pools.clear()


_forgotten: list[Pool] = []
os.register_at_fork(after_in_child=_forget)
