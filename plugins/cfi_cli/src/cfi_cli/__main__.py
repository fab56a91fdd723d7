"""`python -m cfi_cli` is `cfi`."""

from cfi_cli.app import main

main()
