"""Handwritten digits, classified by a trained network on the simulated accelerator.

The network (``digits.tflite``, trained by ``train.py``) is compiled for the accelerator; the
accelerator's own Verilog, translated by Verilator, executes it clock by clock.

    python examples/digits/classify.py [--on rtl|functional|cpu] [--hw PRESET] [--limit N]

The digits are held-out ones: the network was not trained on them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.columns import Columns
from rich.console import Console, Group
from rich.text import Text

import weft
from weft.runtime import report
from weft.runtime.commands.options import progress_bars

HERE = Path(__file__).parent
SHOWN, SHOWN_WRONG = 8, 2
"""How many digits are shown as pictures, and how many of these are mistakes at most."""
INK = 16
"""The brightest pixel of scikit-learn's digits."""


def picture(image: np.ndarray) -> Text:
    """An image [H, W, 1] of brightness 0 to 16 as text, two pixels a character cell."""
    text = Text()
    rows = image[..., 0]
    for top, bottom in zip(rows[0::2], rows[1::2], strict=True):
        for upper, lower in zip(top, bottom, strict=True):
            colors = (_grey(upper), _grey(lower))
            text.append("▀", style=f"{colors[0]} on {colors[1]}")
        text.append("\n")
    return text


def plain_picture(image: np.ndarray) -> Text:
    """The same without colours, for a terminal or a file that has none."""
    shades = " .:-=+*#%@"
    lines = [
        "".join(shades[min(int(v) * 10 // (INK + 1), 9)] * 2 for v in row) for row in image[..., 0]
    ]
    return Text("\n".join(lines) + "\n")


def verdict(predicted: int, label: int) -> Text:
    """What stands below a picture."""
    if predicted == label:
        return Text(f"{predicted}", style="bold green", justify="center")
    return Text(f"says {predicted}, is {label}", style="bold red", justify="center")


def _grey(value: int) -> str:
    level = round(255 * int(value) / INK)
    return f"rgb({level},{level},{level})"


def main() -> int:
    """Classify, show, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", default="rtl", choices=("rtl", "functional", "cpu"))
    parser.add_argument("--hw", default="base", help="preset or TOML file (default base)")
    parser.add_argument(
        "--limit", type=int, default=100, help="so many of the 360 digits (default 100)"
    )
    arguments = parser.parse_args()

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    network = weft.load(HERE / "digits.tflite")
    with np.load(HERE / "digits_test.npz") as data:
        images, x, labels = (data[key][: arguments.limit] for key in ("image", "x", "y"))
    console.print(
        f"[bold]{len(x)} handwritten digits[/bold] that the network has never seen, "
        f"on {arguments.on} ({arguments.hw})"
    )
    with progress_bars() as (build, samples):
        run = weft.jit(network, arguments.hw, arguments.on, progress=build)
        with run:
            scores = run(x, progress=samples)
            record = run.report()
    assert isinstance(scores, np.ndarray)
    predicted = scores.argmax(axis=1)

    draw = picture if console.is_terminal and not console.no_color else plain_picture
    wrong = np.flatnonzero(predicted != labels)
    first = np.flatnonzero(predicted == labels)[: SHOWN - len(wrong[:SHOWN_WRONG])]
    shown = [
        Group(draw(images[i]), verdict(int(predicted[i]), int(labels[i])))
        for i in (*first, *wrong[:SHOWN_WRONG])
    ]
    console.print(Columns(shown, padding=(1, 3)))
    right = int((predicted == labels).sum())
    console.print(f"[bold]{right} of {len(x)} right: {right / len(x):.1%}[/bold]\n")
    console.print(report.table(record))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except weft.WeftError as error:
        print(f"classify.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
