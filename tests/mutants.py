"""`python tests/mutants.py [COUNT [MODULE ...]]`: changes one operator or number of a source at a time, and runs its
tests, which should fail. Prints the changes that they did not notice.

Libraries are imported once, and each mutant runs in a fork of that process, one after another, on a copy of the
repository, until the first test fails. A hundred take about ten minutes of one core.
"""

import ast
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import accelerate  # noqa: F401, imported for the forks
import diffusers.models  # noqa: F401
import pytest
import torch
import torchmetrics  # noqa: F401


ROOT = Path(__file__).parent.parent
TESTS = {"losses": "test_losses.py", "metrics": "test_metrics.py", "checkpoints": "test_checkpoints.py"}
TOO_LONG = "not kill_inside and not full_disk_stops"  # these start programs, and the others have to do
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
        failed = os.waitpid(child, 0)[1] != 0
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests started and left behind
        return failed
    os.setsid()
    signal.alarm(SECONDS)  # which ends this process
    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "tests")]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, until the process ends
    torch.set_num_threads(1)
    scratch = f"--basetemp={copy.parent / 'scratch'}"
    options = ["-xq", "-mnot slow", f"-k{TOO_LONG}", "-pno:cacheprovider", scratch]
    os._exit(pytest.main([*options, str(copy / "tests" / TESTS[module])]))


def main(count: int, modules: list[str]) -> None:
    """Tries `count` mutants, as many of each module (all of one that has fewer), drawn with a fixed seed.

    Raises:
        RuntimeError: If the tests of a module fail without a change: they would notice anything.
    """
    sys.dont_write_bytecode = True  # what is compiled is told apart by seconds and size, which two mutants may share
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "data", "build")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(ROOT, Path(folder) / "copy", ignore=ignored))
        for place, module in enumerate(modules):
            source = (ROOT / "hf_vae" / f"{module}.py").read_text()
            if is_noticed(copy, module, ast.unparse(ast.parse(source))):
                raise RuntimeError(f"The tests of {module}.py fail without a change; mend them first.")
            every = list(mutations(source))
            share = count // len(modules) + (place < count % len(modules))
            chosen = random.Random(0).sample(every, min(share, len(every)))
            survivors = 0
            for change, mutant in chosen:
                if not is_noticed(copy, module, mutant):
                    survivors += 1
                    print(f"{module}.py, {change}", flush=True)
            (copy / "hf_vae" / f"{module}.py").write_text(source)
            print(f"{module}.py: {len(chosen)} mutants of {len(every)}, {survivors} not noticed", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, sys.argv[2:] or list(TESTS))
