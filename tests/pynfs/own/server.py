"""A server on a fresh directory, which can be killed and started again on the same port."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

LEASE = 5
EXPORT = "/=*,rw,no_root_squash,insecure"
START_LIMIT = 30


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """`atoll serve` with the shortest lease."""

    def __init__(self, binary, directory=None, lease=LEASE):
        self.binary = binary
        self.lease = lease
        self.directory = tempfile.mkdtemp(prefix="atoll-raw-", dir=directory)
        self.log = self.directory + ".log"
        self.port = free_port()
        self.process = None
        self.start()

    def start(self):
        log = open(self.log, "ab")
        command = [self.binary, "serve", os.path.join(self.directory, "data"), "--nfs", f"127.0.0.1:{self.port}",
                   "--lease", str(self.lease), "--export", EXPORT]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        with open(self.log, errors="replace") as text:
            raise RuntimeError("the server does not start:\n" + text.read()[-2000:])

    def kill(self):
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self):
        """kill -9, and a new start over what it left."""
        self.kill()
        self.start()

    def stop(self):
        """Ends it and removes its directory."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(START_LIMIT)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        if os.path.exists(self.log):
            os.unlink(self.log)
