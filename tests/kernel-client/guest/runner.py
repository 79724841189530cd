"""Runs the test's jobs inside a client and reports on them; one line of text per message.

From the test:  run ID INTERPRETER   start /mnt/share/job.ID; its output goes to job.ID.out and job.ID.err
                talk ID INTERPRETER  the same, but its standard input and output are relayed line by line
                say ID TEXT          a line for the job's standard input
                kill ID              SIGKILL to the job's process group
To the test:    ready                once
                line ID TEXT         a line of a talking job's standard output
                done ID STATUS       exit status, or 128 + signal; both output files are complete
"""
import os
import signal
import subprocess
import sys
import threading

SHARE = "/mnt/share"
ENV = {
    "PATH": "/mnt/tools/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
out_lock = threading.Lock()
jobs = {}


def send(text):
    """One message; the link is a serial line, so a write may be short."""
    data = (text + "\n").encode()
    with out_lock:
        while data:
            data = data[os.write(1, data):]


def supervise(job, process, files, talking):
    if talking:
        for line in process.stdout:
            send(f"line {job} " + line.decode(errors="replace").rstrip("\n"))
    status = process.wait()
    for f in files:
        os.fsync(f.fileno())
        f.close()
    send(f"done {job} {status if status >= 0 else 128 - status}")


def start(job, interpreter, talking):
    path = f"{SHARE}/job.{job}"
    files = [open(path + ".err", "wb")]
    if not talking:
        files.append(open(path + ".out", "wb"))
    process = subprocess.Popen(
        [*interpreter.split(), path],
        stdin=subprocess.PIPE if talking else subprocess.DEVNULL,
        stdout=subprocess.PIPE if talking else files[1],
        stderr=files[0],
        cwd="/mnt",
        env=ENV,
        start_new_session=True,
    )
    jobs[job] = process
    threading.Thread(target=supervise, args=(job, process, files, talking), daemon=True).start()


def main():
    send("ready")
    for line in sys.stdin:
        verb, job, *rest = line.rstrip("\n").split(" ", 2)
        if verb in ("run", "talk"):
            start(job, rest[0], verb == "talk")
        elif verb == "say":
            try:
                jobs[job].stdin.write((rest[0] + "\n").encode())
                jobs[job].stdin.flush()
            except OSError:
                pass  # it has ended; "done" says so
        elif verb == "kill":
            try:
                os.killpg(jobs[job].pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # the same


main()
