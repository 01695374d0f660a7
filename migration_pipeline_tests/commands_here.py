"""The product's command line, in this process: for tests whose subject is not the process."""

import os
import traceback
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from click.testing import CliRunner

from migration_pipeline.cli.main import main

Done = CompletedProcess[str]


def command(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> Done:
    """Run it as a user would, in a folder and with variables of its own; an exception ends as a traceback."""
    with chdir(folder), patch.dict(os.environ, environment):
        done = CliRunner().invoke(main, arguments)
    trace = ""
    if done.exc_info and done.exception and not isinstance(done.exception, SystemExit):
        trace = "".join(traceback.format_exception(done.exception))
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr + trace)
