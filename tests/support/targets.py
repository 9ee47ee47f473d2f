"""Functions that run in processes of their own, for the tests of the process server."""

import os
import signal
import subprocess
import sys
import time


def say(link, threads, word):
    link.send(("word", word))


def measure(link, threads, data):
    link.send(("length", len(data)))


def stop_server(link, threads, then):
    """Stop the server, and then answer, exit, crash or hang."""
    os.kill(os.getppid(), signal.SIGSTOP)
    if then == "answers":
        link.send(("word", "done"))
    elif then == "exits":
        os._exit(7)
    elif then == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    else:
        time.sleep(600)


def kill_server(link, threads, runs, times):
    """Kill the server the first few times. The file counts the runs."""
    with open(runs, "a") as file:
        file.write("x")
    if os.path.getsize(runs) <= times:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    link.send(("word", "done"))


def leave_daemon(link, threads):
    """Start a process that leaves the session, and crash at once."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "615.75"])
        os._exit(0)
    os.wait()
    os._exit(3)


def stop_oneself(link, threads):
    os.kill(os.getpid(), signal.SIGSTOP)


def pause(link, threads):
    link.send(("word", "before"))
    time.sleep(0.3)
    link.send(("word", "after"))


def spin(link, threads, seconds):
    """Use CPU time in this process, and as much in a child."""
    code = f"import time\nuntil = time.process_time() + {seconds}\nwhile time.process_time() < until: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def hold_memory(link, threads, kind, mib):
    """Take memory that no process has for itself, in a way of its own, and hold it until the end."""
    import mmap

    data = b"x" * 2**20
    path = f"/dev/shm/convexnn-bench-test-{os.getpid()}"
    try:
        if kind == "memfd":
            descriptor = os.memfd_create("hidden")
            for _ in range(mib):
                os.write(descriptor, data)
        elif kind in ("shm", "closed shm"):
            with open(path, "wb", buffering=0) as file:
                for _ in range(mib):
                    file.write(data)
                    time.sleep(0.01)
                if kind == "shm":
                    time.sleep(600)
        else:  # pages that forks share
            block = mmap.mmap(-1, mib * 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for _ in range(mib):
                block.write(data)
            for _ in range(4):
                if os.fork() == 0:
                    time.sleep(600)
        time.sleep(2 if kind == "forks" else 600)
        link.send(("word", "done"))
    finally:
        if os.path.exists(path):
            os.remove(path)
