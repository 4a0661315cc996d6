"""The Python expressions a config file may hold, evaluated as data: parsed with `ast`, never compiled, never executed.

Understood: literals, lists, tuples, dicts, `dict(a=1, **other)`, `list(x)`, `tuple(x)`, names bound earlier in the file, subscripts,
+ - * / // % ** on numbers, + and * on strings, lists and tuples. Everything else is refused with its line.

Nothing here can hang or eat the memory: whole numbers stay below 2^63, nesting below `MAX_DEPTH`, and the values of one file, counted
as the tree they spell, below `MAX_ITEMS`. A name gives a copy, so that no two settings share a list.
"""

from __future__ import annotations

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from .kinds import shown

MAX_DEPTH = 100
MAX_ITEMS = 100_000
MAX_TEXT = 1_000_000  # characters of a file
MAX_WHOLE = 2**63
CHARACTERS_PER_ITEM = 16  # a long string counts as several values

CONSTRUCTORS = ("dict", "list", "tuple")
# mmcv replaces these in the text before it runs the file; upstream uses none of them
TEMPLATE = re.compile(r"\{\{\s*(?:fileDirname|fileBasename|fileBasenameNoExtension|fileExtname|_base_\.[\w.]+)\s*\}\}")
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}
FOUND: dict[type[ast.AST], str] = {
    ast.Import: "an import", ast.ImportFrom: "an import", ast.FunctionDef: "a function definition",
    ast.AsyncFunctionDef: "a function definition", ast.ClassDef: "a class definition", ast.If: "an if", ast.IfExp: "an if",
    ast.For: "a loop", ast.AsyncFor: "a loop", ast.While: "a loop", ast.With: "a with block", ast.Try: "a try block",
    ast.Delete: "a del", ast.Assert: "an assert", ast.Raise: "a raise", ast.AugAssign: "an assignment in place",
    ast.AnnAssign: "an annotated assignment", ast.ListComp: "a comprehension", ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension", ast.GeneratorExp: "a comprehension", ast.Lambda: "a lambda",
    ast.JoinedStr: "an f-string with expressions", ast.Compare: "a comparison", ast.BoolOp: "a boolean operator", ast.Set: "a set",
    ast.Starred: "a starred value", ast.NamedExpr: "an assignment inside an expression",
}


def evaluate_assignments(text: str, place: str) -> dict[str, Any]:
    """Reads `name = value` lines.

    Args:
        text: the source of a config file.
        place: the file's name, for messages.

    Returns:
        name → value in the order of the file, where a value is None, bool, int, float, str, or a list, tuple or dict of such. Names that
        begin with two underscores are left out, as in mmcv.

    Errors: ConfigError that says file:line and what was found.
    """
    tree = _parse(text, place)
    evaluator = _Evaluator(place)
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Constant()):  # a docstring
                continue
            case ast.Expr(value=value):
                evaluator.value(value)  # most often a call, which is refused with its own words
                raise evaluator.refused(statement, "an expression whose value goes nowhere")
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if not isinstance(target, ast.Name):
                        raise evaluator.refused(target, "an assignment to something else than a name")
                    if target.id in CONSTRUCTORS:
                        raise evaluator.refused(target, f"an assignment to {target.id}")
                    evaluator.names[target.id] = evaluator.value(value)
            case _:
                raise evaluator.refused(statement)
    return {name: value for name, value in evaluator.names.items() if not name.startswith("__")}


def _parse(text: str, place: str) -> ast.Module:
    if len(text) > MAX_TEXT:
        raise ConfigError(place, expected=f"a config of at most {MAX_TEXT:,} characters", got=f"{len(text):,}")
    if template := TEMPLATE.search(text):
        line = text.count("\n", 0, template.start()) + 1
        raise ConfigError(
            f"{place}:{line}: {template.group():.80}", fix="variables in double braces are not supported here, write the value itself",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's opinion about escapes and such is nothing to print for data
            return ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"{place}:{error.lineno or 1}: not valid Python", got=error.msg) from error
    except ValueError as error:  # a null character, in some versions of Python
        raise ConfigError(f"{place}: not valid Python", got=str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise ConfigError(f"{place}: nested too deeply", expected=f"at most {MAX_DEPTH} levels") from error


class _Evaluator:
    """The names of one file, and what room is left for its values."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.names: dict[str, Any] = {}
        self._room = MAX_ITEMS
        self._depth = 0

    def refused(self, node: ast.AST, found: str = "") -> ConfigError:
        found = found or FOUND.get(type(node), type(node).__name__)
        return ConfigError(
            f"{self._at(node)}: {found}", expected="literals, dict(), list(), tuple(), names bound above and arithmetic",
            fix="a config is data here, it is never executed",
        )

    def value(self, node: ast.expr) -> Any:
        """The value of an expression."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConfigError(f"{self._at(node)}: nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        self._charge(node, 1)
        result = self._dispatch(node)
        self._depth -= 1
        return result

    def _dispatch(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return self._constant(node, value)
            case ast.Name(id=name):
                return self._name(node, name)
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.Dict(keys=keys, values=values):
                return self._dict(keys, values)
            case ast.Call(func=ast.Name(id=name)) if name in CONSTRUCTORS:
                return self._construct(node, name)
            case ast.Call(func=function):
                raise self.refused(node, f"a call of {_spelled(function):.80}")
            case ast.Attribute(attr=attr):
                raise self.refused(node, f"an attribute (.{attr:.80})")
            case ast.Subscript(value=value, slice=index):
                return self._subscript(node, self.value(value), index)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                number = self.value(operand)
                if not isinstance(number, int | float):
                    raise ConfigError(f"{self._at(node)}: a sign", expected="a number behind it", got=_kind(number))
                return -number if isinstance(node.op, ast.USub) else +number
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return self._arithmetic(node, self.value(left), self.value(right))
            case ast.BinOp(op=op) | ast.UnaryOp(op=op):
                raise self.refused(node, f"the operator {type(op).__name__}")
            case ast.JoinedStr(values=parts) if all(isinstance(part, ast.Constant) for part in parts):
                return "".join(str(self.value(part)) for part in parts)
        raise self.refused(node)

    def _constant(self, node: ast.expr, value: Any) -> Any:
        if value is not None and not isinstance(value, bool | int | float | str):
            raise self.refused(node, f"a literal of type {type(value).__name__}")
        return self._bounded(node, value)

    def _name(self, node: ast.expr, name: str) -> Any:
        if name not in self.names:
            close = difflib.get_close_matches(name, self.names, n=1)
            hint = f"did you mean {close[0]}?" if close else "only names bound above in the same file can be used"
            raise ConfigError(f"{self._at(node)}: unknown name {name:.80}", fix=hint)
        return self._copy(node, self.names[name], self._depth)

    def _copy(self, node: ast.expr, value: Any, depth: int) -> Any:
        """An unshared copy. Charges each part, so that ten lists of ten lists of ten ... end early."""
        if depth > MAX_DEPTH:
            raise ConfigError(f"{self._at(node)}: nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        self._charge(node, 1)
        if isinstance(value, dict):
            return {key: self._copy(node, item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)([self._copy(node, item, depth + 1) for item in value])
        return value

    def _dict(self, keys: list[ast.expr | None], values: list[ast.expr]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key, node in zip(keys, values, strict=True):
            if key is None:
                result.update(self._mapping(node))
                continue
            name = self.value(key)
            if isinstance(name, list | tuple | dict):
                raise ConfigError(f"{self._at(key)}: a dict key", expected="a string or a number", got=_kind(name))
            result[name] = self.value(node)
        return result

    def _mapping(self, node: ast.expr) -> dict[Any, Any]:
        value = self.value(node)
        if not isinstance(value, dict):
            raise ConfigError(f"{self._at(node)}: what is unpacked into a dict", expected="a dict", got=_kind(value))
        return value

    def _construct(self, node: ast.Call, name: str) -> Any:
        if len(node.args) > 1 or (name != "dict" and node.keywords):
            raise self.refused(node, f"{name}() with these arguments")
        if name != "dict":
            items = self.value(node.args[0]) if node.args else []
            if not isinstance(items, list | tuple):
                raise ConfigError(f"{self._at(node)}: {name}()", expected="a list or a tuple in it", got=_kind(items))
            return list(items) if name == "list" else tuple(items)
        result = self._mapping(node.args[0]) if node.args else {}
        given: set[str] = set()
        for keyword in node.keywords:
            pairs = self._mapping(keyword.value) if keyword.arg is None else {keyword.arg: self.value(keyword.value)}
            for key, value in pairs.items():
                if not isinstance(key, str) or key in given:
                    problem = "is given twice" if key in given else "is no keyword"
                    raise ConfigError(f"{self._at(keyword.value)}: in dict(), {shown(key)} {problem}")
                given.add(key)
                result[key] = value
        return result

    def _subscript(self, node: ast.expr, container: Any, index: ast.expr) -> Any:
        key: Any
        if isinstance(index, ast.Slice):
            key = slice(*(None if part is None else self.value(part) for part in (index.lower, index.upper, index.step)))
        else:
            key = self.value(index)
        if not isinstance(container, list | tuple | dict | str):
            raise ConfigError(f"{self._at(node)}: a subscript", expected="a list, tuple, dict or string before it", got=_kind(container))
        try:
            return container[key]
        except (IndexError, KeyError, TypeError, ValueError) as error:  # ValueError: a slice with step 0
            reason = f"no key {shown(key)}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(f"{self._at(node)}: a subscript", got=reason) from error

    def _arithmetic(self, node: ast.BinOp, left: Any, right: Any) -> Any:
        if isinstance(left, int | float) and isinstance(right, int | float):
            if isinstance(node.op, ast.Pow) and isinstance(left, int) and isinstance(right, int) and abs(left) > 1 and right > 63:
                raise self._too_large(node)
            try:
                return self._bounded(node, ARITHMETIC[type(node.op)](left, right))
            except (ZeroDivisionError, OverflowError) as error:
                raise ConfigError(f"{self._at(node)}: arithmetic", got=str(error.args[-1])) from error
        if isinstance(node.op, ast.Add) and type(left) is type(right) and isinstance(left, list | tuple | str):
            self._charge(node, _items(left) + _items(right))
            return left + right
        if isinstance(node.op, ast.Mult):
            if isinstance(left, int):
                left, right = right, left
            if isinstance(left, list | tuple | str) and isinstance(right, int):
                return self._repeat(node, left, right)
        raise ConfigError(
            f"{self._at(node)}: arithmetic", expected="numbers, or strings, lists or tuples to join or repeat",
            got=f"{_kind(left)} and {_kind(right)}",
        )

    def _repeat(self, node: ast.expr, value: Any, times: int) -> Any:
        times = max(times, 0) if value else 0
        self._charge(node, _items(value) * times)
        if isinstance(value, str):
            return value * times
        return type(value)([self._copy(node, item, self._depth) for _ in range(times) for item in value])

    def _bounded(self, node: ast.expr, value: Any) -> Any:
        if isinstance(value, complex):
            raise ConfigError(f"{self._at(node)}: arithmetic", expected="a real number", got="a complex one")
        if isinstance(value, int) and abs(value) > MAX_WHOLE:
            raise self._too_large(node)
        return value

    def _too_large(self, node: ast.expr) -> ConfigError:
        return ConfigError(f"{self._at(node)}: a number too large", expected="whole numbers below 2^63")

    def _charge(self, node: ast.expr, items: int) -> None:
        self._room -= items
        if self._room < 0:
            raise ConfigError(f"{self._at(node)}: too much data", expected=f"at most {MAX_ITEMS:,} values in a config file")

    def _at(self, node: ast.AST) -> str:
        return f"{self.place}:{getattr(node, 'lineno', 1)}"


def _items(value: str | list[Any] | tuple[Any, ...]) -> int:
    return len(value) // CHARACTERS_PER_ITEM + 1 if isinstance(value, str) else len(value)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _spelled(function: ast.expr) -> str:
    """`open` or `os.system`, as far as it is names; a call chain could be deeper than Python's own unparser bears."""
    names: list[str] = []
    while isinstance(function, ast.Attribute) and len(names) < 8:
        names.append(function.attr)
        function = function.value
    return ".".join([function.id if isinstance(function, ast.Name) else "something", *reversed(names)])
