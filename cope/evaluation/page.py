"""A report as one HTML file: tables and inlined pictures, to be read anywhere and sent around."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2430; max-width: 1280px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.4rem; }
p, li { max-width: 52rem; } .note { color: #5a6472; font-size: .9rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e7ec; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #b9c2cd; font-weight: 600; }
tr.strong td { font-weight: 600; border-top: 1px solid #b9c2cd; } img { max-width: 100%; } .wide { overflow-x: auto; }
ol { font-size: .9rem; color: #5a6472; }
"""


@dataclass
class Page:
    """An HTML page under construction.

    Attributes:
        title: Shown on top, and in the browser's tab.
        parts: Parts of the page's body, so far.
    """

    title: str
    parts: list[str] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Begins a section."""
        self.parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self.parts.append(f"<p>{escape(text)}</p>")

    def note(self, text: str) -> None:
        """A paragraph in small print: how something was measured."""
        self.parts.append(f'<p class="note">{escape(text)}</p>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[int] = ()) -> None:
        """A table; the rows whose numbers are in `strong` stand out."""
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = ""
        for number, row in enumerate(rows):
            kind = ' class="strong"' if number in strong else ""
            body += f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
        self.parts.append(
            f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>\n{body}</tbody></table></div>'
        )

    def picture(self, png: bytes, says: str) -> None:
        """A PNG, inlined; `says` is read out where it cannot be seen."""
        data = base64.b64encode(png).decode("ascii")
        self.parts.append(f'<img alt="{escape(says)}" src="data:image/png;base64,{data}">')

    def items(self, lines: Sequence[str]) -> None:
        """A numbered list."""
        self.parts.append("<ol>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ol>")

    def html(self) -> str:
        """The whole page."""
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
            f"<body><h1>{escape(self.title)}</h1>\n" + "\n".join(self.parts) + "\n</body></html>\n"
        )


def percent(value: float, plus: float | None = None) -> str:
    """A share of one as "12.3" or "12.3 ± 0.4"."""
    return f"{100 * value:.1f}" if plus is None else f"{100 * value:.1f} ± {100 * plus:.1f}"


def change(value: float, plus: float | None = None) -> str:
    """A difference of shares with its sign."""
    sign = "−" if round(100 * value, 1) < 0 else "+"
    return f"{sign}{percent(abs(value), plus)}"
