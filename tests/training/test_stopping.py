"""Signals are heard whatever the process does, and nothing is lost."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from training.stopping import RESUME_ME


def start(body: str) -> subprocess.Popen:
    """A process that says 'ready' within the block of `listening`."""
    script = textwrap.dedent(
        """
        import sys, time
        from training.stopping import Stopped, listening
        with listening() as stop:
            {}
        """
    ).format(textwrap.indent(textwrap.dedent(body), " " * 4).strip())
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process


def wait_for(process: subprocess.Popen, line: str) -> None:
    assert process.stdout.readline().strip() == line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_with_nothing_to_save_ends_at_once_even_in_a_long_call(number):
    process = start(
        """
        import hashlib
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)  # a minute in native code
        """
    )
    wait_for(process, "ready")
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == RESUME_ME and time.monotonic() - begin < 10
    assert number.name in error and error.count("\n") == 1


def test_a_process_with_something_to_save_is_asked_and_saves():
    process = start(
        """
        stop.something_to_save()
        print("ready", flush=True)
        while not stop.requested():
            time.sleep(0.01)
        print("saved by", stop.signal_name, flush=True)
        """
    )
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate(timeout=20)
    assert (process.returncode, output, error) == (0, "saved by SIGTERM\n", "")


def test_a_second_ctrl_c_does_not_wait():
    process = start(
        """
        stop.something_to_save()
        print("ready", flush=True)
        while not stop.requested():
            time.sleep(0.01)
        print("asked", flush=True)
        time.sleep(60)
        """
    )
    wait_for(process, "ready")
    process.send_signal(signal.SIGINT)
    wait_for(process, "asked")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130


def test_a_library_that_takes_the_handler_does_not_take_the_signal():
    """TensorFlow's coordination service installs a handler of its own for SIGTERM."""
    process = start(
        """
        import ctypes, threading
        stop.something_to_save()
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        libc = ctypes.CDLL(None)
        libc.signal(15, ctypes.c_void_p(1))  # SIG_IGN, behind Python's back
        print("ready", flush=True)
        deadline = time.monotonic() + 10
        while not stop.requested() and time.monotonic() < deadline:
            time.sleep(0.01)
        print(stop.requested(), flush=True)
        """
    )
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert output == "True\n"


def test_the_block_leaves_signals_as_they_were():
    code = textwrap.dedent(
        """
        import signal
        from training.stopping import listening
        before = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, [])
        with listening():
            pass
        after = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert before == after
        """
    )
    subprocess.run([sys.executable, "-c", code], timeout=20, check=True)
