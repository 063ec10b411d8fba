"""The page around the sections: style, script for sortable tables. No external resource of any kind."""

from html import escape
from importlib.resources import files


def _asset(name: str) -> str:
    return (files("lprl_cli") / "assets" / name).read_text(encoding="utf-8")


def page(title: str, body: str) -> str:
    """Return a whole HTML document that loads nothing."""
    style, script = _asset("report.css"), _asset("report.js")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title><style>{style}</style></head>'
        f"<body><main>{body}</main><script>{script}</script></body></html>\n"
    )


def cell(value: object, number: float | None = None, raw: str | None = None) -> str:
    """Return a table cell; `number` is what it sorts by, `raw` ready HTML."""
    text = raw if raw is not None else escape(str(value))
    return f'<td class="n" data-v="{number!r}">{text}</td>' if number is not None else f"<td>{text}</td>"


def table(head: list[tuple[str, bool]], rows: list[list[str]], sortable: bool = False) -> str:
    """Return a table; `head` is (label, numeric) per column, `rows` are cells."""
    heads = "".join(_head(label, numeric, sortable) for label, numeric in head)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _head(label: str, numeric: bool, sortable: bool) -> str:
    text = f"<button type=button>{escape(label)}</button>" if sortable else escape(label)
    return f'<th scope="col"{" class=n" if numeric else ""}>{text}</th>'
