"""`python -m demo`: see command.py."""

from demo.command import main

main()
