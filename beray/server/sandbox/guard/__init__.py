"""The small program beside the server that starts, watches and ends every command of every backend.

```
server --SEQPACKET: "run" + descriptors--> fork server   python -I -S, env={}, one thread, subreaper; started once
                                             +- supervisor  subreaper; waits for exit | stop | server gone | wall time
                                                  +- command  setsid, limits, uid drop, confinement, execve
```

Why a program of its own: forking a large threaded server is slow (measured 16 ms from 400 MB, 5 ms from here) and
unsafe, and nothing of the server (environment, descriptors, memory) can leak from a process that never had it.

It runs without the site packages and without `beray` itself: its modules import one another relatively and the standard
library, nothing else. Who dies, and what follows:

- the server: its end of each control socket closes; supervisors end their commands, then the fork server ends.
- a supervisor: its children fall to the fork server (subreaper), which kills them before it lets the server see the
  loss, or tells it `memory` where the kernel has killed in their control group for want of it.
- the fork server: supervisors see their life line close, end their commands and report `lost`; the server starts a
  new one.
"""
