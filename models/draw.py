"""`python -m models.draw` is `python -m models.diagram`."""

import sys

from models.diagram import main
from utils.errors import run_script

if __name__ == "__main__":
    run_script(lambda: main(sys.argv[1:]))
