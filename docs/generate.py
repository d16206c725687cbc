"""Write the pages that follow from the code: the API, the errors, the command line.

The pages go to ``docs/_generated`` at every build and are not kept.
"""

import inspect
from importlib import import_module
from pathlib import Path

import rustllm
from rustllm import errors
from rustllm.cli import COMMANDS, build_parser

# Order and titles of the API's chapters: prefix of the defining module -> title.
CHAPTERS = {
    "rustllm.tokenizers": "Tokenizers",
    "rustllm.models": "Models",
    "rustllm.ops": "Numeric operations",
    "rustllm.constrain": "Constrained text",
    "rustllm.loaders": "Files",
    "rustllm.corpus": "Corpora",
    "rustllm.plugins": "Plugins",
    "rustllm.traits": "Traits",
    "rustllm.errors": "Errors",
    "rustllm": "Foundation",
}


def write_pages(folder: Path) -> None:
    """Write every generated page below ``folder``."""
    (folder / "api").mkdir(parents=True, exist_ok=True)
    pages = {"cli.md": cli_page(), "errors.md": errors_page(), **api_pages()}
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:  # keep Sphinx's cache useful
            path.write_text(text, "utf-8")
    for path in folder.rglob("*.*"):
        if str(path.relative_to(folder)) not in pages:
            path.unlink()


def chapter_of(module: str) -> str:
    """Return the title of the chapter that a module belongs to."""
    return next(
        title for prefix, title in CHAPTERS.items() if f"{module}.".startswith(f"{prefix}.")
    )


def api_pages() -> dict[str, str]:
    """Return a page for every chapter and the index of them."""
    chapters: dict[str, list[str]] = {title: [] for title in CHAPTERS.values()}
    for name, module in rustllm._PUBLIC.items():
        chapters[chapter_of(module)].append(name)
    pages = {}
    for title, names in chapters.items():
        if not names:
            continue
        slug = title.lower().replace(" ", "-")
        lines = [title, "=" * len(title), ""]
        for name in sorted(names, key=str.lower):
            lines += directive(name, getattr(rustllm, name))
        pages[f"api/{slug}.rst"] = "\n".join(lines)
    links = "\n".join(f"   {path.removesuffix('.rst').removeprefix('api/')}" for path in pages)
    pages["api/index.rst"] = (
        "Python reference\n================\n\n"
        "Every name of ``rustllm``; each is handed out on first use.\n\n"
        f".. toctree::\n   :maxdepth: 2\n\n{links}\n"
    )
    return pages


def directive(name: str, value: object) -> list[str]:
    """Return the lines that document one public name."""
    if inspect.ismodule(value):
        # A name that has a description of its own is not described twice.
        own = ", ".join(n for n in rustllm._PUBLIC if n in vars(value))
        lines = [f".. automodule:: {value.__name__}", f"   :exclude-members: {own}", ""]
        return [*lines, f"   Handed out as ``rustllm.{name}``.", ""]
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    elif callable(value):
        kind = "autofunction"
    else:
        kind = "autodata"
    lines = [f".. {kind}:: rustllm.{name}"]
    if kind == "autoclass":
        lines.append("   :members:")
    return [*lines, ""]


def errors_page() -> str:
    """Return the error reference: what each class means, its code and its exit status."""
    classes = [getattr(errors, name) for name in errors.__all__]
    classes = [c for c in classes if inspect.isclass(c) and issubclass(c, errors.RustLLMError)]
    lines = [
        "# Error reference",
        "",
        "Every error that the library raises on purpose is a subclass of",
        "`rustllm.RustLLMError`",
        "and of the built-in exception that fits. `code` is stable and for programs;",
        "the exit status is that of the command line.",
    ]
    for c in classes:
        built_in = " and ".join(
            f"`{b.__name__}`"
            for b in c.__mro__[1:]
            if b.__module__ == "builtins" and b not in (Exception, BaseException, object)
        )
        meaning = " ".join((inspect.getdoc(c) or "").partition("\n\n")[0].split())
        also = f", also caught as {built_in}" if built_in else ""
        lines += ["", f"`{c.__name__}`", f": {meaning}", ""]
        lines += [f"  Code `{c.code}`, exit status {c.exit_code}{also}."]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Return the command line's reference: the help of every command."""
    parts = [
        "# Command line reference",
        "`rustllm COMMAND`, or `python -m rustllm COMMAND`.\n"
        "Data goes to stdout, progress to stderr.",
        f"```text\n{build_parser().format_help()}```",
    ]
    for name in COMMANDS:
        import_module(f"rustllm.cli.{name}")
        commands = build_parser(name)._subparsers._group_actions[0].choices  # type: ignore[union-attr]
        parts += [f"## {name}", f"```text\n{commands[name].format_help()}```"]
    return "\n\n".join(parts) + "\n"
