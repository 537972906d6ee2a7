"""The style rules that a machine can check: sizes, nesting, and who may import whom."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("models", "export", "compiler", "targets", "runtime", "training")
PYTHON = sorted(
    path
    for folder in (*FOLDERS, "src/forerun", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if not path.is_symlink() and not any(part.is_symlink() for part in path.parents)
)
NATIVE = sorted(
    path
    for folder in ("native", "jvm")
    for path in (ROOT / "runtime" / folder).rglob("*")
    if path.suffix in (".cpp", ".c", ".h")
)

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_NESTING = 350, 60, 3

# What may break a rule, and why. The key is the file, or file:function.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
DEEP_FUNCTIONS: dict[str, str] = {}

# Folder → folders of forerun it may import besides itself; all may import errors and registry.
ALLOWED_FOLDERS = {
    "models": set[str](),
    "export": {"models"},
    "compiler": {"models", "export", "targets", "runtime"},
    "targets": set[str](),
    "runtime": set[str](),
    "training": {"models", "export", "runtime"},
}
SHARED = {"errors", "machine", "registry", "staging"}
RUNTIME_PACKAGES = {"numpy", "tokenizers", "jinja2", "forerun"}
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "tvm", "gguf", "safetensors", "transformers", "rich")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(
    tree: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def nesting(node: ast.AST, depth: int = 0) -> int:
    """The deepest nesting of blocks in a function; inner functions count apart, elif is no new level."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        is_block = isinstance(child, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.Match)
        is_elif = isinstance(node, ast.If) and node.orelse == [child]
        deepest = max(deepest, nesting(child, depth + (is_block and not is_elif)))
    return deepest


def python_problems(path: Path, source: str) -> list[str]:
    """Rules that one Python file breaks."""
    found = []
    name, lines = name_of(path), source.count("\n") + 1
    if lines > MAX_FILE_LINES + 1:
        found.append(f"{name} has {lines - 1} lines")
    for function, node in functions(ast.parse(source)):
        size = (node.end_lineno or node.lineno) - node.lineno + 1
        if size > MAX_FUNCTION_LINES:
            found.append(f"{name}:{function} has {size} lines")
        if nesting(node) > MAX_NESTING:
            found.append(f"{name}:{function} nests {nesting(node)} deep")
    return found


def native_problems(path: Path, source: str) -> list[str]:
    """Rules that one C or C++ file breaks. clang-format puts a function's closing brace in column 0."""
    found = []
    name, lines = name_of(path), source.splitlines()
    if len(lines) > MAX_FILE_LINES:
        found.append(f"{name} has {len(lines)} lines")
    start, opening = 0, ""
    for number, line in enumerate(lines, start=1):
        if re.match(r"^[A-Za-z_].*\)[^;]*\{$", line):
            start, opening = number, line.split("(")[0].split()[-1]
        elif re.match(r"^    .*\) (const )?\{$", line) and not start:
            continue
        elif line.startswith("}") and start:
            found += native_function_problems(name, opening, lines[start - 1 : number])
            start = 0
    return found


def native_function_problems(name: str, function: str, lines: list[str]) -> list[str]:
    found = []
    key = f"{name}:{function}"
    if len(lines) > MAX_FUNCTION_LINES:
        found.append(f"{key} has {len(lines)} lines")
    depth = deepest = 0
    for line in lines:
        code = re.sub(r'"(\\.|[^"\\])*"|\'(\\.|[^\'\\])*\'|//.*', "", line)
        for mark in re.findall(r"[{}]", code):
            depth += 1 if mark == "{" else -1
            deepest = max(deepest, depth)
    # The function's own braces are the first level.
    if deepest - 1 > MAX_NESTING:
        found.append(f"{key} nests {deepest - 1} deep")
    return found


def problems_of(path: Path, exempt: bool = True) -> list[str]:
    """Rules that one file breaks; `exempt` leaves the listed exceptions out."""
    source = path.read_text(encoding="utf-8")
    problems = python_problems(path, source) if path.suffix == ".py" else native_problems(path, source)
    exceptions = {**LONG_FILES, **LONG_FUNCTIONS, **DEEP_FUNCTIONS} if exempt else {}
    return [problem for problem in problems if problem.split(" ")[0] not in exceptions]


@pytest.mark.parametrize("paths", [PYTHON, NATIVE], ids=["python", "native"])
def test_files_and_functions_are_short(paths: list[Path]) -> None:
    problems = [problem for path in paths for problem in problems_of(path)]
    assert not problems, "\n".join(problems)


def test_exceptions_are_still_needed() -> None:
    """An entry whose file or function is gone, or keeps the rule by now, has to go too."""
    found = {
        problem.split(" ")[0] for path in (*PYTHON, *NATIVE) for problem in problems_of(path, exempt=False)
    }
    assert set(LONG_FILES) | set(LONG_FUNCTIONS) | set(DEEP_FUNCTIONS) <= found


def test_the_checks_can_fail() -> None:
    """The rules themselves, on sources that break them."""
    path = ROOT / "runtime" / "made_up.py"
    long = "def f():\n" + "    x = 1\n" * 60
    deep = "def f():\n for a in b:\n  if a:\n   with a:\n    while a:\n     pass\n"
    flat = (
        "def f():\n if a:\n  pass\n elif b:\n  pass\n elif c:\n  pass\n elif d:\n  pass\n elif e:\n  pass\n"
    )
    assert python_problems(path, long) == ["runtime/made_up.py:f has 61 lines"]
    assert python_problems(path, deep) == ["runtime/made_up.py:f nests 4 deep"]
    assert python_problems(path, flat) == []
    assert python_problems(path, "\n" * 351) == ["runtime/made_up.py has 351 lines"]
    native = ROOT / "runtime" / "native" / "made_up.cpp"
    assert native_problems(native, "int f(int a) {\n" + "  a++;\n" * 60 + "}\n")
    assert native_problems(native, "int f(int a) {\n" + "  if (a) {\n" * 4 + "  }\n" * 4 + "}\n")
    assert not native_problems(native, "int f(int a) {\n" + "  if (a) {\n" * 3 + "  }\n" * 3 + "}\n")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules that a file imports, and whether at its top level (not inside a function)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for _, function in functions(tree) for node in ast.walk(function)}
    for node in ast.walk(tree):
        at_top = id(node) not in inside
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, at_top
            if node.module == "forerun":
                yield from ((f"forerun.{alias.name}", at_top) for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_import_only_what_comes_before_them(folder: str) -> None:
    allowed = ALLOWED_FOLDERS[folder] | {folder} | SHARED
    for path in sorted((ROOT / folder).rglob("*.py")):
        for module, _ in imports(path):
            parts = module.split(".")
            if parts[0] == "forerun" and len(parts) > 1 and (parts[1] in FOLDERS or parts[1] in SHARED):
                assert parts[1] in allowed, f"{name_of(path)} imports {module}"
            assert parts[0] not in FOLDERS, f"{name_of(path)} imports the bare folder {module}"


def test_the_runtime_imports_nothing_heavy() -> None:
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        for module, at_top in imports(path):
            package = module.split(".")[0]
            known = package in RUNTIME_PACKAGES or package in sys.stdlib_module_names
            # Bundles of the target onnxruntime alone need it, when they are opened.
            known |= package == "onnxruntime" and not at_top
            assert known, f"{name_of(path)} imports {module}"


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    for path in sorted((ROOT / "src" / "forerun").glob("*.py")) + sorted(
        (ROOT / "src/forerun/cli").glob("*.py")
    ):
        for module, at_top in imports(path):
            if at_top and not is_type_checking_import(path, module):
                assert module.split(".")[0] not in HEAVY, f"{name_of(path)} imports {module}"


def is_type_checking_import(path: Path, module: str) -> bool:
    """Whether the import stands in an `if TYPE_CHECKING:` block."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            names = [one.module for one in ast.walk(node) if isinstance(one, ast.ImportFrom)]
            if module in names:
                return True
    return False


@pytest.mark.parametrize(
    "statement",
    [
        "import forerun",
        "import forerun.runtime",
        "import forerun.runtime.model; forerun.load; forerun.Model",
        "import forerun.__main__",
        "from forerun.cli import build_parser; build_parser()",
        "import forerun.cli.measure",
    ],
)
def test_running_needs_neither_torch_nor_onnx_nor_tvm(statement: str) -> None:
    """In a fresh process: what is loaded after the import. `import forerun` alone loads not even numpy."""
    light = (*HEAVY, "numpy", "tokenizers", "jinja2") if statement == "import forerun" else HEAVY
    script = f"import sys\n{statement}\nprint([name for name in {light!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_the_import_check_can_fail() -> None:
    script = "import sys, rich\nprint([name for name in ('rich', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['rich']"
