"""Open the way out of a command's network namespace, then become the command. Run as a file, inside the sandbox.

A listening socket belongs to the network namespace it was made in, whoever holds it. So it is made here, on the
namespace's own loopback, and handed to the server, which accepts on it: nothing of ours stays inside that would have
to end with the command, could be disturbed by it, or counts among its processes.

The command's environment comes by a descriptor and not as ours: LD_PRELOAD in it would act before the listener is out
of reach, and whoever kept a copy could make the server's accept() block (O_NONBLOCK is shared by all copies).

Every millisecond here is one of each command's: only what is built into the interpreter is imported (`socket` and
`signal` cost 8 ms more, measured).
"""

import _signal  # type: ignore[import-not-found]  # untyped: it is what `signal` is built on
import _socket
import posix
import sys

PORT = 3128  # the usual one of a proxy; the namespace is the command's own, so that nobody else can have it
BACKLOG = 64  # connections that wait while the task has as many as it may


def main(arguments: list[str]) -> None:
    """Arguments: the descriptor of the server's socket, that of the environment, then the command."""
    control, environment, *command = arguments
    try:
        _hand_out_listener(int(control))
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # ignored by every Python, and that would be inherited
            _signal.signal(number, _signal.SIG_DFL)
        posix.execve(command[0], command, _read_environment(int(environment)))
    except OSError as error:
        sys.stderr.write(f"The command could not be started with its way to the network: {error}\n")
        sys.exit(126)


def _hand_out_listener(control_fd: int) -> None:
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, control_fd)
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", PORT))
    listener.listen(BACKLOG)
    descriptor = listener.fileno().to_bytes(4, sys.byteorder)
    control.sendmsg([b"listening"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor)], _socket.MSG_NOSIGNAL)
    listener.close()
    control.close()


def _read_environment(fd: int) -> dict[bytes, bytes]:
    with open(fd, "rb") as file:
        entries = file.read().split(b"\0")[:-1]
    return dict(entry.split(b"=", 1) for entry in entries)


if __name__ == "__main__":
    main(sys.argv[1:])
