"""The prose is plain English: documents follow the rules in styles/hf_vae, which vale reads too.

vale understands more of Markdown, but it is a program that pip cannot install without a network. This test reads three
kinds of its rules (existence, substitution, occurrence in a sentence) and applies them as regular expressions.
"""

import ast
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY


STYLES = REPOSITORY / "styles" / "hf_vae"
DOCUMENTS = [
    *REPOSITORY.glob("*.md"),
    *REPOSITORY.glob("docs/*.md"),
    *REPOSITORY.glob("examples/*.md"),
    REPOSITORY / "model_cards" / "EXPERIMENTS.md",
    REPOSITORY / "model_cards" / "recipes" / "README.md",
]
CODE = [
    REPOSITORY / "train_accelerate.py",
    REPOSITORY / "space" / "README.md",
    *REPOSITORY.glob("hf_vae/**/*.py"),
    *REPOSITORY.glob("hf_vae/**/*.jinja"),
    *REPOSITORY.glob("space/**/*.py"),
    *REPOSITORY.glob("examples/*.py"),
    *REPOSITORY.glob("examples/*.ipynb"),
]
CHECKED = DOCUMENTS + CODE
FEWEST_WORDS = 3  # shorter strings of code are names, keys and formats

Passage = tuple[int, str]  # the line where it begins, and its words


@dataclass(frozen=True)
class Rule:
    """One regular expression of a file in styles/.

    Args:
        name: Of the file.
        message: What to do instead; one or two %s stand for the replacement and for what was found.
        pattern: What is not to be found; in a sentence, more than `most` times.
        replacement: What to write instead, if there is one answer.
        most: For a rule on sentences.
    """

    name: str
    message: str
    pattern: re.Pattern
    replacement: str | None = None
    most: int | None = None

    def findings(self, text: str) -> Iterator[str]:
        if self.most is not None:
            for sentence in re.split(r"(?<=[.!?])\s+|\n", text):
                if len(self.pattern.findall(sentence)) > self.most:
                    yield f"{self.name}: {self.message} {sentence[:60]!r}"
            return
        for match in self.pattern.finditer(text):
            words = [self.replacement, match.group()] if self.replacement else [match.group()]
            yield f"{self.name}: {self.message % tuple(words)}"


@functools.lru_cache
def read_rules() -> list[Rule]:
    """The rules of every file in styles/hf_vae."""
    rules = []
    for file in sorted(STYLES.glob("*.yml")):
        entry = yaml.safe_load(file.read_text())
        flags = re.IGNORECASE if entry.get("ignorecase") else 0
        name, message = file.stem, entry["message"]
        if entry["extends"] == "occurrence":
            rules.append(Rule(name, message, re.compile(entry["token"], flags), most=entry["max"]))
            continue
        words = entry["swap"] if entry["extends"] == "substitution" else dict.fromkeys(entry["tokens"])
        for token, replacement in words.items():
            pattern = re.compile(rf"(?<!\w)(?:{token})(?!\w)", flags)
            rules.append(Rule(name, message, pattern, replacement))
    return rules


def passages_of_markdown(text: str) -> Iterator[Passage]:
    """Paragraphs, list entries and table cells, without code, link targets and front matter. Flags in code stay."""

    def blank(match: re.Match) -> str:  # line numbers stay
        return "\n" * match.group().count("\n")

    text = re.sub(r"\A---\n.*?\n---\n", blank, text, flags=re.DOTALL)
    text = re.sub(r"^( *)```.*?^ *```", blank, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->|\{[%#].*?[%#]\}", blank, text, flags=re.DOTALL)
    text = re.sub(r"\{\{.*?\}\}|hf_vae(?:\.\w+)+", "CODE", text)
    text = re.sub(r"--\w+", "--flag", text)
    text = re.sub(r"^ +\w+: ", "", text, flags=re.MULTILINE)  # the name of an argument in a docstring
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", lambda code: code[1] if code[1].startswith("--") else "CODE", text)
    text = re.sub(r"\]\([^)]*\)|<[^>\n]+>|https?://\S+|\S+\.md\b", "", text)
    number, lines, started = 0, [], 1
    for number, line in enumerate([*text.split("\n"), ""], 1):
        starts = re.match(r"\s*([-*|#]|\d+\. )|\s*$", line)
        if starts and lines:
            yield started, " ".join(lines)
            lines = []
        if line.strip().startswith("|"):
            yield from ((number, cell.strip()) for cell in line.split("|"))
        elif line.strip():
            started = started if lines else number
            lines.append(line.strip())


def passages_of_python(text: str) -> Iterator[Passage]:
    """Docstrings and other strings of a few words; what an f-string fills in counts as one word."""
    inside_f_strings: set[ast.AST] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            inside_f_strings.update(node.values)
            parts = [part.value if isinstance(part, ast.Constant) else "CODE" for part in node.values]
            words = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside_f_strings:
            words = node.value
        else:
            continue
        if len(words.split()) >= FEWEST_WORDS:
            yield from ((node.lineno + line - 1, paragraph) for line, paragraph in passages_of_markdown(words))


def passages_of_notebook(text: str) -> Iterator[Passage]:
    """Those of its Markdown cells; for their line, the number of the cell."""
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        if cell["cell_type"] == "markdown":
            yield from ((number, passage) for _, passage in passages_of_markdown("".join(cell["source"])))


READERS = {".py": passages_of_python, ".ipynb": passages_of_notebook}  # of other files: as Markdown


def findings_in(file: Path) -> list[str]:
    """What a file breaks, each with its line."""
    passages = READERS.get(file.suffix, passages_of_markdown)(file.read_text())
    return [
        f"{file.relative_to(REPOSITORY)}:{line}: {finding}"
        for line, passage in passages
        for rule in read_rules()
        for finding in rule.findings(passage)
    ]


@pytest.mark.parametrize("file", CHECKED, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_prose_follows_the_style(file):
    findings = findings_in(file)
    assert not findings, "\n" + "\n".join(findings)


@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("The picture is blurred.", "Picture"),
        ("A data\nset of faces.", "FieldWords"),
        ("X is no file.", "IsNo"),
        ("It needs a flow, which this model has not.", "HasNot"),
        ("To replace it, say `--overwrite`.", "PassFlag"),
        ("Whoever trains it", "Who"),
        ("It loads as diffusers does.", "Riddles"),
        ("It draws new images.", "Drawn"),
        ("word " * 41 + ".", "SentenceLength"),
    ],
)
def test_each_rule_finds_what_it_is_for(sentence, rule):
    found = [
        finding for _, text in passages_of_markdown(sentence) for one in read_rules() for finding in one.findings(text)
    ]
    assert [finding.split(":")[0] for finding in found] == [rule]


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no encoder, and the run is no longer needed.",
        "Run `draw_picture()`; see [the page](your-own-pictures.md).",
        "```\npicture\n```",
        "The model has not seen these images.",
    ],
)
def test_plain_sentences_and_code_pass(sentence):
    assert not [
        found for _, text in passages_of_markdown(sentence) for one in read_rules() for found in one.findings(text)
    ]


def test_a_string_of_code_is_read_as_its_reader_sees_it():
    code = 'def f(file):\n    """Draws a cat."""\n    raise ValueError(f"{file} is no file: say --overwrite")\n'
    found = [finding for _, text in passages_of_python(code) for one in read_rules() for finding in one.findings(text)]
    assert sorted(finding.split(":")[0] for finding in found) == ["Drawn", "IsNo", "PassFlag"]


def test_the_words_of_a_notebook_are_read_and_its_code_is_not():
    cells = [
        {"cell_type": "code", "source": ["# a picture"]},
        {"cell_type": "markdown", "source": ["It draws ", "images."]},
    ]
    assert list(passages_of_notebook(json.dumps({"cells": cells}))) == [(2, "It draws images.")]
