"""`python -m doctor`: see command.py."""

from doctor.command import main

main()
