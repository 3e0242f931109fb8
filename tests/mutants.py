"""`python tests/mutants.py [COUNT]`: changes one operator or number of a source at a time, and runs its tests, which
should fail. Prints the changes that they did not notice.

Libraries are imported once, and each mutant runs in a fork of that process, on a copy of the repository.
"""

import ast
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import accelerate  # noqa: F401, imported for the forks
import diffusers.models  # noqa: F401
import pytest
import torch
import torchmetrics  # noqa: F401


ROOT = Path(__file__).parent.parent
TESTS = {"losses": ["test_losses.py"], "metrics": ["test_metrics.py"], "checkpoints": ["test_checkpoints.py"]}
SECONDS = 300  # after which the tests of a mutant have noticed it
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Not: ast.UAdd,
    ast.USub: ast.UAdd,
}


def mutations(source: str) -> Iterator[tuple[str, str]]:
    """Every mutant of a source: what was changed, and the changed source."""
    for place, candidate in enumerate(ast.walk(ast.parse(source))):
        if isinstance(candidate, ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.Compare | ast.Constant | ast.If):
            tree = ast.parse(source)
            node = next(islice(ast.walk(tree), place, None))
            if change(node):
                before, after = (ast.unparse(one).splitlines()[0] for one in (candidate, node))
                yield f"line {node.lineno}: {before}  ->  {after}", ast.unparse(tree)


def change(node: ast.AST) -> bool:
    """Changes one operator, number or condition; says whether there was anything to change."""
    if isinstance(node, ast.If):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp) and type(node.op) in SWAPS:
        node.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1
    else:
        return False
    return True


def is_noticed(copy: Path, module: str, source: str) -> bool:
    """Whether the tests of a module fail, or do not end, with `source` in its place."""
    (copy / "hf_vae" / f"{module}.py").write_text(source)
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    signal.alarm(SECONDS)  # which ends this process
    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "tests")]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, until the process ends
    torch.set_num_threads(1)
    tests = [str(copy / "tests" / name) for name in TESTS[module]]
    os._exit(pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]))


def main(count: int) -> None:
    """Tries `count` mutants, drawn evenly from all of the files' with a fixed seed."""
    sources = {module: (ROOT / "hf_vae" / f"{module}.py").read_text() for module in TESTS}
    every = [(module, *mutant) for module, source in sources.items() for mutant in mutations(source)]
    chosen = random.Random(0).sample(every, min(count, len(every)))
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(
            shutil.copytree(
                ROOT, Path(folder) / "copy", ignore=shutil.ignore_patterns(".git", ".venv", "runs", "data")
            )
        )
        for module, change, source in chosen:
            if not is_noticed(copy, module, source):
                survivors.append(f"{module}.py, {change}")
                print(survivors[-1], flush=True)
            (copy / "hf_vae" / f"{module}.py").write_text(sources[module])
    print(f"{len(chosen)} mutants of {len(every)}, {len(survivors)} not noticed")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
