"""List the dialects, or print one contract in full."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..graph.contract import Contract

LETTERS = (
    "A images, S values, M heads, D head width, Q queries, L levels, P points, R reference points of a query; "
    "C channels, O output channels, G deform groups, T = kh*kw taps"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("name", nargs="?", metavar="NAME|FILE.toml", help="a dialect to print in full, or a file of your own")


def run(options: argparse.Namespace) -> int:
    """Prints the table, or one dialect."""
    from ..graph import dialect as dialects

    if options.name is None:
        print(f"{'name':<24} {'attention':<50} {'deformable convolution':<36} opset")
        for name in dialects.names():
            listed = dialects.load(name)
            attention, conv = (contract.title if contract else "standard operators" for contract in (listed.msda, listed.dcn))
            print(f"{name:<24} {attention:<50} {conv:<36} {listed.opset}{'  (default)' * listed.default}")
        return 0
    dialect = dialects.load(options.name)
    functions = ", function bodies in the file" if dialect.functions else ""
    print(f"{dialect.name}: {dialect.title}\nchecked against: {dialect.checked_against}\nopset {dialect.opset}{functions}")
    for contract in filter(None, (dialect.msda, dialect.dcn)):
        _print_contract(contract)
    if dialect.msda is not None:
        print(f"\n{LETTERS}")
    for name, value in vars(dialect.export).items():
        if value != vars(dialects.Defaults())[name]:
            print(f"export default: {name} = {value}")
    for guess in dialect.guesses:
        print(f"guess: {guess.what} (change with {guess.flag})")
    return 0


def _print_contract(contract: Contract) -> None:
    from ..graph.attributes import ATTRIBUTE_FORMS
    from ..graph.forms import PORT_FORMS

    domain = "" if contract.domain else ", in ONNX's own domain"
    print(f"\n{contract.title} (version {contract.version}{domain})")
    for port in contract.inputs:
        form = PORT_FORMS[port.form]
        shape = f"({', '.join(form.shape.split())})" if form.shape else f"a number of rank {port.rank}"
        optional = ", optional" if port.optional else ""
        place = f", as {port.place}" if port.place != "value" else ""
        print(f"  input      {port.name:<26} {port.dtype} {shape}: {form.what}{place}{optional}")
    for attribute in contract.attributes:
        meaning = ATTRIBUTE_FORMS[attribute.form].what if attribute.form else f"always {attribute.default}"
        print(f"  attribute  {attribute.name:<26} {attribute.type}: {meaning}")
    wide = [port.name for port in contract.inputs if port.wide]
    always = f"; {', '.join(wide)} in float32 always" if wide else ""
    print(f"  kernel     computes in {', '.join(contract.dtypes)}{always}")
    output = PORT_FORMS[contract.output.form]
    print(f"  output     {contract.output.name:<26} {contract.output.dtype} ({', '.join(output.shape.split())}): {output.what}")
    for limit in contract.limits:
        scope = f" for {limit.dtype}" if limit.dtype else ""
        print(f"  limit      {limit.size}: {limit.describe()}{scope}{': ' if limit.why else ''}{limit.why}")
