"""One stream into several."""

from __future__ import annotations

from amaranth import *


def fork(m: Module, valid: Value, *consumers) -> Value:
    """Offers to all consumers' streams at once, and returns whether all take it in this cycle.

    None of them sees a valid payload until the others are ready, so that each takes each payload
    once. Their ``ready`` must not depend on their ``valid``. Payloads are the caller's matter.
    """
    for consumer in consumers:
        others = [other.ready for other in consumers if other is not consumer]
        m.d.comb += consumer.valid.eq(valid & Cat(others).all())
    return valid & Cat(consumer.ready for consumer in consumers).all()
