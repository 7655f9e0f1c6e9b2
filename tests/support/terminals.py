"""A terminal for a command's questions, wherever its standard streams are."""

import os
import pty
import select
import subprocess
import sys

from tests.support.singer import environment

# Opening a terminal in a new session makes it the one that controls the process.
AT = 'exec 3<>"$TERMINAL"; exec "$@" {streams} 3>&-'
STDIN_ONLY = "<&3"  # Meltano's: the person's terminal in, pipes out
OUTPUT_ONLY = "</dev/null"
CODE = "from target_moengage_cohort.cli import main; main()"


class Terminal:
    """A command that a terminal controls, with pipes for its standard output and error."""

    def __init__(self, home, words, streams, **variables):
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["sh", "-c", AT.format(streams=streams), "sh", sys.executable, "-c", CODE, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=home,
            env=environment(home, TERMINAL=os.ttyname(theirs), **variables),
            start_new_session=True,
        )
        self._theirs = theirs
        self.seen = b""

    def wait_for(self, text):
        while text not in self.seen:
            ready, _, _ = select.select([self._ours], [], [], 60)
            assert ready, self.seen
            self.seen += os.read(self._ours, 65_536)

    def type(self, text):
        os.write(self._ours, text)

    def end(self):
        """Return exit code, output and errors."""
        output, errors = self.process.communicate(timeout=60)
        while select.select([self._ours], [], [], 0)[0]:
            self.seen += os.read(self._ours, 65_536)
        os.close(self._ours)
        os.close(self._theirs)
        return self.process.returncode, output.decode(), errors.decode()
