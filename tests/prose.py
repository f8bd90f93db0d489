"""Check the texts of the project against the words and patterns of `prose.toml`: `python -m tests.prose [FILE ...]`.

It reads docstrings, comments and messages of Python files, Markdown, task cards, and the page's scripts. Tests are not checked. It needs
the standard library only, so that pre-commit and `tox -e lint` can run it without an installation.
"""

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = ("lape_bench", "tasks", "baselines", "unfused", "examples", "docs")
# results/ holds generated boards, and the changelog of others is not ours to judge.
MARKDOWN = ("*.md", "docs/**/*.md", "tasks/*.md", "results/README.md", ".github/**/*.md")
MESSAGE_WORDS = 3  # shorter strings of code are names and keys
CODE = re.compile(r"``?[^`]+``?|https?://\S+|\]\([^)]*\)|^\s*>>> .*$|<[^>]+>", re.MULTILINE)
BLOCK = re.compile(r"^( *)```.*?^\1```$|^\$\$.*?^\$\$$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Text:
    """A docstring, a comment, a message or a paragraph, and where it starts."""

    path: Path
    line: int
    words: str


@dataclass(frozen=True)
class Rule:
    """A pattern to avoid, and what to write instead."""

    find: re.Pattern[str]
    instead: str
    allowed: tuple[re.Pattern[str], ...] = ()

    def problems(self, words: str) -> Iterator[str]:
        """Yield each passage that the rule objects to."""
        for match in self.find.finditer(words):
            around = words[max(0, match.start() - 40) : match.end() + 40]
            if not any(allowed.search(around) for allowed in self.allowed):
                yield match.group().strip(" .;:,")


def read_rules() -> tuple[list[Rule], int]:
    """Return the rules, and the largest number of words in a sentence."""
    content = tomllib.loads((ROOT / "tests" / "prose.toml").read_text(encoding="utf-8"))
    rules = [
        Rule(
            re.compile(rule["find"], re.IGNORECASE | re.MULTILINE),
            rule["instead"],
            tuple(re.compile(pattern, re.IGNORECASE) for pattern in rule.get("except", ())),
        )
        for rule in content["rules"]
    ]
    return rules, content["longest_sentence"]


def in_python(path: Path) -> Iterator[Text]:
    """Yield the docstrings, comments and messages of a Python file."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    documentation = {
        id(node.value): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    in_f_strings = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in in_f_strings:
            parts = [v.value if isinstance(v, ast.Constant) else "`x`" for v in node.values]
            words = "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in in_f_strings:
                continue
            words = node.value
        else:
            continue
        if id(node) in documentation or len(words.split()) >= MESSAGE_WORDS:
            yield Text(path, node.lineno, words)
    yield from comments(path, source)


def comments(path: Path, source: str) -> Iterator[Text]:
    """Yield the comments of a Python file; lines of one comment are one text."""
    lines: list[str] = []
    start = last = 0  # rows of the text, and of its last line if that has no code
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, column = token.start
        has_line = not token.line[:column].strip()
        if lines and not (has_line and row == last + 1):
            yield Text(path, start, "\n".join(lines))
            lines = []
        start = start if lines else row
        last = row if has_line else 0
        lines.append(token.string.lstrip("#: "))
    if lines:
        yield Text(path, start, "\n".join(lines))


def in_markdown(path: Path) -> Iterator[Text]:
    """Yield the paragraphs, list items and table rows of a Markdown file, without blocks of code."""
    source = path.read_text(encoding="utf-8")
    source = BLOCK.sub(lambda block: "\n" * block.group().count("\n"), source)
    line = 1
    for paragraph in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*|#>]|\d+\.) ))", source):
        if paragraph.strip():
            yield Text(path, line, paragraph)
        line += paragraph.count("\n")


def in_card(path: Path) -> Iterator[Text]:
    """Yield the texts of a task card."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if len(line.split()) > MESSAGE_WORDS and not line.lstrip().startswith(("classes:", "- ")):
            yield Text(path, number, line.partition(": ")[2] or line)


def in_script(path: Path) -> Iterator[Text]:
    """Yield the strings and comments of the page's JavaScript, by its lines."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        code, _, comment = line.partition("// ")
        strings = [words for pair in re.findall(r'"([^"]*)"|`([^`]*)`', code) for words in pair]
        for words in (*strings, comment):
            if len(words.split()) >= MESSAGE_WORDS:
                yield Text(path, number, re.sub(r"\$\{[^}]*\}", "`x`", words))


def texts(paths: list[Path]) -> Iterator[Text]:
    """Yield the texts of files, by the kind of each."""
    kinds = {".py": in_python, ".md": in_markdown, ".yaml": in_card, ".js": in_script}
    for path in paths:
        yield from kinds[path.suffix](path)


def all_files() -> list[Path]:
    """Return the files of the project whose texts are checked."""
    python = [path for folder in PYTHON for path in sorted((ROOT / folder).rglob("*.py"))]
    pages = {path for pattern in MARKDOWN for path in ROOT.glob(pattern)}
    cards = sorted((ROOT / "tasks").glob("*.yaml"))
    scripts = sorted((ROOT / "lape_bench" / "report" / "page").glob("*.js"))
    return [*python, *sorted(pages), *cards, *scripts]


def sentences(words: str) -> Iterator[str]:
    """Yield the sentences of a text."""
    for block in re.split(r"\n\s*\n|\n\s*[-*] |\n\s*[\w*]+: |\n\s*\|", words):
        yield from re.split(r"[.!?:;](?:\s+|$)", " ".join(block.split()))


def problems(paths: list[Path]) -> list[str]:
    """Return a line for each passage that breaks a rule."""
    rules, longest = read_rules()
    found = []
    for text in texts(paths):
        place = f"{text.path.relative_to(ROOT)}:{text.line}"
        words = CODE.sub("`x`", text.words)
        flat = "\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", words))
        for rule in rules:
            found += [f"{place}: '{hit}': write {rule.instead}" for hit in rule.problems(flat)]
        for sentence in sentences(words):
            if not sentence.startswith("|") and (count := len(sentence.split())) > longest:
                found.append(f"{place}: a sentence of {count} words: '{sentence[:60]}...'")
    return found


def main(names: list[str]) -> int:
    """Print what breaks a rule; return the exit code."""
    wanted = {Path(name).resolve() for name in names}
    found = problems([path for path in all_files() if not wanted or path in wanted])
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
