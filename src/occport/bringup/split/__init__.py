"""Parts of a file as models of their own, each with golden inputs and outputs, that make up the whole again when run one after another."""
