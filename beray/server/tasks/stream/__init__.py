"""The event streams of tasks (WIRE.md, "Events and the stream"): replay from the store, then live.

- `feed.py`: a task's live end. What has been committed is encoded once and written to every subscriber of the task: at
  once when it has been quiet, else at most once per tick.
- `subscriber.py`: one watcher. It reads the store from its own cursor (a replay, or a reader too slow to be written
  to) until it has all, then it is live, which costs one small object and no task.
- `outlets.py`: how bytes reach a watcher without waiting: the connection's transport, else the ASGI `send` stepped by
  hand. Where neither can be had, a watcher stays with its cursor.
- `hub.py`: the feeds of this process, and what is shared by all streams: a timer, the turns of replays, the end.
- `answer.py`: the answer to GET /tasks/{id}/stream.

What a watcher gets has been committed, in order, without gap or repeat; a slow reader only slows itself.
"""

from beray.server.tasks.stream.answer import Streams, TaskStream
from beray.server.tasks.stream.hub import BEAT_SECONDS, Hub
from beray.server.tasks.stream.subscriber import Watcher

__all__ = ["BEAT_SECONDS", "Hub", "Streams", "TaskStream", "Watcher"]
