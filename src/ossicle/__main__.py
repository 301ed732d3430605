"""`python -m ossicle` is the `ossicle` command."""

from ossicle.cli import main

main()
