"""List the dialects, or print one contract in full."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("name", nargs="?", help="a dialect to print in full")


def run(options: argparse.Namespace) -> int:
    """Prints the table, or one dialect."""
    from ..graph import dialect as dialects

    if options.name is None:
        for name in dialects.names():
            print(f"{name:<10} {dialects.load(name).title}")
        return 0
    dialect = dialects.load(options.name)
    print(f"{dialect.name}: {dialect.title}\nchecked against: {dialect.checked_against}\nopset {dialect.opset}")
    for contract in (dialect.msda, dialect.dcn):
        if contract is None:
            continue
        print(f"\n{contract.domain}::{contract.op_type} (version {contract.version})")
        for port in contract.inputs:
            optional = ", optional" if port.optional else ""
            place = f", as {port.place}" if port.place != "value" else ""
            print(f"  input      {port.name:<20} {port.form}, {port.dtype} of rank {port.rank}{place}{optional}")
        for attribute in contract.attributes:
            print(f"  attribute  {attribute.name:<20} {attribute.type}, {attribute.form or attribute.default}")
        print(f"  output     {contract.output.form}, {contract.output.dtype} of rank {contract.output.rank}")
    for guess in dialect.guesses:
        print(f"guess: {guess.what} (change with {guess.flag})")
    return 0
