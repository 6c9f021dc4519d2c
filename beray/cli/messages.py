"""The catalogue of every sentence the command line shows, Chinese and English.

Tests prove that each key is used, that both languages are there, and that they name the same fields.
"""

from typing import Final

MESSAGES: Final[dict[str, tuple[str, str]]] = {
    # help
    "help": (
        "BeRay：用一句话给出目标，看它工作，取走文件。",
        "BeRay: give it a goal in words, watch it work, take the files.",
    ),
    "help.epilog": (
        (
            "退出码：0 成功 · 1 错误 · 2 用法错误 · 3 任务失败 · 4 未登录 · 5 未找到 · 6 冲突或无效 · 7 网络或服务器 · "
            "8 任务已停止 · 124 超时 · 130 Ctrl-C · 143 SIGTERM"
        ),
        (
            "Exit status: 0 ok · 1 error · 2 usage · 3 task failed · 4 not logged in · 5 not found · "
            "6 conflict or invalid · 7 network or server · 8 task stopped · 124 time-out · 130 Ctrl-C · 143 SIGTERM"
        ),
    ),
    "help.commands": ("命令", "Commands"),
    "help.options": ("选项", "Options"),
    "help.arguments": ("参数", "Arguments"),
    "help.version": ("显示版本并退出。", "Show the version and exit."),
    "help.server": (
        "服务器地址（或 BERAY_BASE_URL）。不指定时：上次登录的服务器，否则使用内嵌服务。",
        "The server's URL (or BERAY_BASE_URL). Otherwise the server of the last login, else the embedded one.",
    ),
    "help.debug": ("出错时显示完整的调用栈和请求编号。", "On an error, show the traceback and the request id."),
    "help.json": ("以 JSON 输出。", "Print JSON."),
    "help.run": (
        "创建任务并实时显示过程。\n\nGOAL 是用自然语言写的目标；`-` 表示从标准输入读取。",
        "Create a task and watch it work.\n\nGOAL is what shall be done, in words; `-` reads it from stdin.",
    ),
    "help.run.file": ("从文件读取目标。", "Read the goal from a file."),
    "help.run.attach": (
        "开始之前上传文件或文件夹，可重复使用。",
        "Upload a file or folder before it begins; can be repeated.",
    ),
    "help.run.model": (
        "使用服务器提供的这个模型，而不是默认模型。",
        "Use this one of the server's models instead of its default.",
    ),
    "help.run.tool": (
        "智能体只可使用这个工具，可重复使用；不指定时为默认工具。",
        "A tool that the agent may use, and no others; can be repeated. Otherwise the default ones.",
    ),
    "help.run.limit": (
        "任务自己的限额：requests、tool_calls、tokens、wall_seconds 或 cost_usd，可重复使用。",
        "A limit of the task's own: requests, tool_calls, tokens, wall_seconds or cost_usd; can be repeated.",
    ),
    "help.run.webhook": (
        "任务结束或提问时，让服务器调用此地址。",
        "Have the server call this URL when the task ends, or asks.",
    ),
    "help.run.detach": ("只创建任务并打印编号，不等待。", "Only create the task and print its id; do not wait."),
    "help.run.timeout": (
        "超过此时间则停止任务，退出码 124（例如 30s、5m、1h）。",
        "Stop the task after this long, exit status 124 (such as 30s, 5m, 1h).",
    ),
    "help.run.out": ("结束后把任务的文件下载到此文件夹。", "When it has ended, download its files to this folder."),
    "help.run.json": ("结束时输出一个 JSON 对象。", "At the end, print one JSON object."),
    "help.run.events": ("每个事件输出一行 JSON。", "Print every event as a line of JSON."),
    "help.run.exit_status": (
        "以任务的结果作为退出码，或只要任务结束就返回 0。",
        "Exit with the task's result, or with 0 however it ended.",
    ),
    "help.run.stop_on_interrupt": (
        "第一次 Ctrl-C 就停止任务，而不是让它继续运行。",
        "The first Ctrl-C stops the task instead of leaving it running.",
    ),
    "help.run.retry_for": ("连接中断后最多重连多久。", "How long to try to reconnect after a cut connection."),
    "help.run.verbose": ("实时显示工具的全部输出。", "Show all output of tools, live."),
    "help.watch": (
        "回放任务的过程并继续跟随。\n\n不指定 ID 时为最近的任务。",
        "Replay what a task did, then follow it.\n\nWithout ID: the latest task.",
    ),
    "help.watch.timeout": (
        "超过此时间则不再跟随，退出码 124；任务继续运行。",
        "Stop watching after this long, exit status 124; the task goes on.",
    ),
    "help.ps": ("列出任务，最新的在前。", "List tasks, newest first."),
    "help.ps.all": ("列出全部。", "List all of them."),
    "help.ps.status": ("只列出此状态，可重复使用。", "Only those with this status; can be repeated."),
    "help.ps.limit": ("最多列出多少个。", "List at most so many."),
    "help.ps.quiet": ("只打印编号。", "Print ids only."),
    "help.send": (
        "对任务说一句话：运行中的任务会读到它，等待中的任务以它为回答，已结束的任务以它为目标再次运行；“-”表示从标准输入读取。",
        (
            "Say something to a task: one at work reads it, one that waits takes it as the answer, one that has ended "
            "runs again with it as its goal. `-` reads standard input."
        ),
    ),
    "help.show": ("显示任务的详情。", "Show a task's details."),
    "help.stop": ("停止任务。", "Stop tasks."),
    "help.rm": (
        "删除任务及其文件；运行中的任务会先被停止。",
        "Delete tasks with their files; a running one is stopped first.",
    ),
    "help.rm.yes": ("不询问。", "Do not ask."),
    "help.files": ("任务工作目录中的文件。", "The files in a task's work_dir."),
    "help.files.ls": ("列出文件。", "List files."),
    "help.files.get": ("下载文件或文件夹。", "Download files or folders."),
    "help.files.output": ("目标文件或文件夹；`-` 表示标准输出。", "File or folder to write to; `-` is stdout."),
    "help.files.force": ("覆盖已有的文件。", "Overwrite what is there."),
    "help.files.put": (
        "上传文件或文件夹；PATH 是它在工作目录中的名字（以 `/` 结尾表示放入该文件夹）。",
        "Upload a file or folder; PATH is its name in the work_dir (ending in `/`: the folder to put it in).",
    ),
    "help.files.zip": (
        "打包下载为 ZIP；不指定 PATH 时为全部文件。",
        "Download as a ZIP archive; without PATH: everything.",
    ),
    "help.files.zip.output": (
        "目标文件，默认 task-ID.zip；`-` 表示标准输出。",
        "File to write to, task-ID.zip by default; `-` is stdout.",
    ),
    "help.files.zip.extract": (
        "解压到这个文件夹，不保留 ZIP；其中有危险内容时全部不解压。",
        "Unpack into this folder and keep no ZIP; nothing is unpacked if anything in it could do harm.",
    ),
    "help.files.cat": ("把文件内容打印到标准输出。", "Print a file to stdout."),
    "help.serve": ("在前台运行服务器。", "Run the server in the foreground."),
    "help.serve.host": ("监听地址，默认 127.0.0.1。", "Address to listen on, 127.0.0.1 by default."),
    "help.serve.port": (
        "监听端口，默认 8000；0 表示任意空闲端口。",
        "Port to listen on, 8000 by default; 0 takes a free one.",
    ),
    "help.serve.data": (
        "数据文件夹（或 BERAY_DATA_DIR）：数据库、工作目录、发件箱。",
        "Data folder (or BERAY_DATA_DIR): database, work_dirs, outbox.",
    ),
    "help.serve.no_worker": (
        "只提供 API，不运行任务；任务由 beray worker 运行（需要 PostgreSQL）。",
        "Serve the API only; tasks are run by beray worker (needs PostgreSQL).",
    ),
    "help.concurrency": (
        "本进程同时运行的任务数（或 BERAY_MAX_RUNNING_TASKS）。",
        "Tasks that run at the same time in this process (or BERAY_MAX_RUNNING_TASKS).",
    ),
    "help.worker": (
        "只运行任务，不提供 API（需要 BERAY_DATABASE_URL 指向 PostgreSQL）。\n\n可以启动任意多个。",
        "Run tasks only, without the API (needs PostgreSQL by BERAY_DATABASE_URL).\n\nStart as many as you like.",
    ),
    "help.worker.host": (
        "/health 和 /ready 的监听地址，默认 127.0.0.1。",
        "Address for /health and /ready, 127.0.0.1 by default.",
    ),
    "help.worker.port": (
        "/health 和 /ready 的端口；默认任选一个空闲端口。",
        "Port for /health and /ready; a free one by default.",
    ),
    "help.admin": (
        "供运行服务器的人使用：在服务器所在的机器上、以服务器的设置运行。",
        "For the operator: runs on the server's machine, with the server's settings.",
    ),
    "help.admin.purge": (
        "删除很久以前结束的任务，连同事件、文件和引擎记录；服务器可以继续运行。",
        "Delete tasks that ended long ago, with events, files and the engine's records; servers may go on running.",
    ),
    "help.admin.purge.days": (
        "删除结束超过 N 天的任务；默认为 BERAY_RETENTION_DAYS。",
        "Delete tasks that ended more than N days ago; by default BERAY_RETENTION_DAYS.",
    ),
    "help.admin.purge.dry_run": ("只显示会删除多少个任务。", "Only say how many tasks would be deleted."),
    "help.admin.purge.yes": ("不询问，直接删除。", "Delete without asking."),
    "help.admin.audit": (
        "查看审计日志：谁、何时、从哪里、做了什么；服务器可以继续运行。",
        "Show the audit log: who did what, when, from where; servers may go on running.",
    ),
    "help.admin.audit.user": ("只看此用户（编号或邮箱）。", "Only this user, by id or e-mail address."),
    "help.admin.audit.action": ("只看此操作，例如 login.failed。", "Only this action, such as login.failed."),
    "help.admin.audit.since": (
        "只看此后的记录：多久以前（30m、7d）或时间（2026-11-27T08:00，UTC）。",
        "Only what came since: how long ago (30m, 7d) or a time (2026-11-27T08:00, UTC).",
    ),
    "help.admin.audit.limit": ("最多显示最新的 N 条。", "Show the newest N at most."),
    "help.admin.audit.json": ("每条记录输出一行 JSON。", "Print every entry as a line of JSON."),
    "help.admin.prune_audit": (
        "删除审计日志中的旧记录；此操作本身也会被记录。",
        "Forget old entries of the audit log, which the log itself tells.",
    ),
    "help.admin.prune_audit.days": ("删除早于 N 天的记录。", "Forget entries older than N days."),
    "help.admin.users": (
        "列出用户，或任命、撤销管理员；服务器可以继续运行。",
        "List the users, or make one an admin; servers may go on running.",
    ),
    "help.admin.users.promote": ("让此邮箱的用户成为管理员。", "Make the user with this address an admin."),
    "help.admin.users.demote": (
        "撤销此邮箱用户的管理员身份，即使是最后一个。",
        "Make the user with this address no admin any more, be it the last one.",
    ),
    "help.admin.users.admins": ("只列出管理员。", "List admins only."),
    "help.admin.users.limit": ("最多列出最新的 N 个用户。", "List the newest N at most."),
    "help.admin.users.json": ("每个用户输出一行 JSON。", "Print every user as a line of JSON."),
    "usage.promote_or_demote": (
        "--promote 与 --demote 不能同时使用。",
        "Use --promote or --demote, not both.",
    ),
    "users.none": ("没有这样的用户。", "There are no such users."),
    "users.promoted": ("{email} 现在是管理员。", "{email} is an admin now."),
    "users.demoted": ("{email} 现在不是管理员。", "{email} is no admin now."),
    "users.id": ("编号", "id"),
    "users.email": ("邮箱", "e-mail"),
    "users.role": ("身份", "role"),
    "users.is_admin": ("管理员", "admin"),
    "users.tasks": ("任务", "tasks"),
    "users.active": ("未结束", "active"),
    "users.stored": ("文件", "files"),
    "users.last_login": ("上次登录", "last login"),
    "usage.bad_action": ("没有操作“{action}”。可用：{known}。", "No action {action!r}. There are: {known}."),
    "usage.bad_time": (
        "“{value}”不是时间；例如 30m、7d、2026-11-27T08:00。",
        "{value!r} is no time; write 30m, 7d or 2026-11-27T08:00.",
    ),
    "usage.prune_needs_yes": (
        "标准输入不是终端，无法询问；请加上 --yes。",
        "There is no terminal to ask on: add --yes.",
    ),
    "audit.none": ("审计日志中没有这样的记录。", "There are no such entries in the audit log."),
    "audit.at": ("时间", "time"),
    "audit.action": ("操作", "action"),
    "audit.who": ("用户", "who"),
    "audit.address": ("地址", "from"),
    "audit.task_id": ("任务", "task"),
    "audit.resource": ("对象", "what"),
    "prune.confirm": (
        "删除审计日志中早于 {days} 天的 {count} 条记录？此操作无法撤销。",
        "Entries older than {days} days: {count}. Forget them? This cannot be undone.",
    ),
    "prune.done": (
        "已从审计日志删除 {count} 条早于 {days} 天的记录。",
        "Entries older than {days} days that were forgotten: {count}.",
    ),
    "usage.purge_needs_days": (
        "请用 --days N 指定天数，或设置 BERAY_RETENTION_DAYS。",
        "Say how old by --days N, or set BERAY_RETENTION_DAYS.",
    ),
    "usage.purge_needs_yes": (
        "标准输入不是终端，无法询问；请加上 --yes，或用 --dry-run 先看看。",
        "There is no terminal to ask on: add --yes, or look first with --dry-run.",
    ),
    "purge.found": (
        "有 {count} 个任务结束超过 {days} 天；没有删除任何内容。",
        "Tasks that ended more than {days} days ago: {count}. Nothing was deleted.",
    ),
    "purge.confirm": (
        "删除 {count} 个结束超过 {days} 天的任务及其所有数据？此操作无法撤销。",
        "Tasks that ended more than {days} days ago: {count}. Delete them with all their data? This cannot be undone.",
    ),
    "purge.done": (
        "已删除 {count} 个结束超过 {days} 天的任务及其所有数据。",
        "Deleted, of tasks that ended more than {days} days ago, with all their data: {count}.",
    ),
    "help.register": ("注册账户：邮箱 → 验证码 → 密码。", "Make an account: e-mail → code → password."),
    "help.register.code": (
        "已收到的验证码；不指定时会发送一个并询问。",
        "The code you received; without it, one is sent and asked for.",
    ),
    "help.account.email": ("邮箱地址。", "E-mail address."),
    "help.account.password_stdin": ("从标准输入的第一行读取密码。", "Read the password from the first line of stdin."),
    "help.login": ("登录，并保存令牌。", "Log in and keep the token."),
    "help.login.with_token": ("改用已有的令牌，从标准输入读取。", "Use a token you have, read from stdin."),
    "help.logout": ("登出，令牌立即失效。", "Log out; the token is dead at once."),
    "help.whoami": ("显示当前登录的账户。", "Show who is logged in."),
    "help.reset_password": (
        "忘记密码时设置新密码：邮箱 → 验证码 → 密码。所有登录和 API 令牌都会失效。",
        "Set another password for one forgotten: e-mail → code → password. Every login and API token ends.",
    ),
    "help.tokens": ("API 令牌：供程序登录使用。", "API tokens, for programs to log in with."),
    "help.tokens.ls": ("列出 API 令牌（不含密文）。", "List API tokens, without their secrets."),
    "help.tokens.new": (
        "创建 API 令牌并打印到标准输出；只显示这一次。",
        "Make an API token and print it to stdout; it is shown this once.",
    ),
    "help.tokens.expires": (
        "多久之后到期（例如 12h、30d）；不指定则永不到期。",
        "After how long it expires (such as 12h, 30d); never without it.",
    ),
    "help.tokens.rm": ("删除 API 令牌，立即失效。", "Delete API tokens; they are dead at once."),
    "help.doctor": (
        "检查服务器、登录、模型（实际调用一次）、沙箱和磁盘，并说明如何修复。",
        "Check server, login, model (by one real call), sandbox and disk, and say how to mend what is broken.",
    ),
    # usage errors
    "usage.bad_duration": (
        "“{value}”不是时长；例如 30s、5m、1h。",
        "{value!r} is no duration; write 30s, 5m or 1h.",
    ),
    "usage.bad_limit_name": (
        "“{value}”不是限额；请写成 名称=数值，名称可为 {known}。",
        "{value!r} is no limit; write NAME=VALUE, the name being one of {known}.",
    ),
    "usage.bad_limit_number": (
        "“{value}”不是限额；{name} 须为大于 0 的整数，例如 {name}=50。",
        "{value!r} is no limit; {name} takes a whole number above 0, such as {name}=50.",
    ),
    "usage.bad_limit_money": (
        "“{value}”不是限额；{name} 须为大于 0 的美元数，例如 {name}=0.5。",
        "{value!r} is no limit; {name} takes US dollars above 0, such as {name}=0.5.",
    ),
    "usage.detach_alone": (
        "-d 不等待任务，因此不能与 --out、--timeout、--events 同用。",
        "-d does not wait for the task and can't go with --out, --timeout or --events.",
    ),
    "usage.goal_twice": (
        "目标请写在命令行中或用 -f 给出文件，不能两者都用。",
        "Give the goal in words or by -f, not both.",
    ),
    "usage.no_message": (
        '缺少消息。例如：{program} send 42 "再加上测试"',
        'The message is missing. For example: {program} send 42 "Add tests, too"',
    ),
    "usage.no_goal": (
        '缺少目标。例如：{program} run "写一个打印 hello world 的 Python 脚本"',
        'The goal is missing. For example: {program} run "Write a Python script that prints hello world"',
    ),
    "usage.goal_no_text": ("目标不是 UTF-8 文本。", "The goal is not UTF-8 text."),
    "usage.goal_unreadable": (
        "目标文件 {path} 无法读取：{reason}。",
        "The goal's file {path} cannot be read: {reason}.",
    ),
    "usage.goal_too_long": ("目标超过 {limit}。", "The goal is longer than {limit}."),
    "usage.json_or_events": ("--json 与 --events 只能选一个。", "Choose one of --json and --events."),
    "usage.bad_status": ("没有这种状态：{names}。可用：{known}。", "No such status: {names}. There are: {known}."),
    "usage.rm_needs_yes": (
        "没有终端可供确认；要删除请加 -y。",
        "There is no terminal to ask for confirmation; add -y to delete.",
    ),
    "usage.output_and_extract": ("-o 与 -x 不能同时使用。", "-o and -x can't be used together."),
    "usage.zip_to_terminal": (
        "ZIP 不能写到终端；请重定向，或用 -o 指定文件。",
        "A ZIP archive does not go to a terminal; redirect it or name a file with -o.",
    ),
    "usage.no_answer": ("没有人回答：{label}", "Nobody answered: {label}"),
    "usage.password_needed": (
        "没有终端可供输入密码；请用 --password-stdin。",
        "There is no terminal to ask for the password; use --password-stdin.",
    ),
    "usage.see_help": ("用法：{command} --help", "Usage: {command} --help"),
    # words
    "label.model": ("模型", "model"),
    "label.files": ("文件", "files"),
    "usage.unknown": ("未知", "unknown"),
    "usage.tokens": ("输入 {read} / 输出 {written} 词元", "{read} in / {written} out"),
    "usage.tokens_unknown": ("词元数未知", "tokens unknown"),
    "usage.cost_unknown": ("费用未知", "cost unknown"),
    "status.thinking": ("思考中…", "thinking…"),
    "status.stopping": ("停止中", "stopping"),
    "tool.exit": ("退出码 {code}", "exit {code}"),
    "tool.more_lines": ("… 前面还有 {count} 行（-v 显示全部）", "… {count} lines before (-v shows all)"),
    "model.rules": (
        "规则模式，不是 AI 模型。要使用真正的模型：设置 OPENAI_API_KEY 或 BERAY_MODEL（例如 ollama:qwen3）",
        (
            "Rules mode, not an AI model. For a real one set OPENAI_API_KEY, or BERAY_MODEL (such as openai:gpt-5, "
            "ollama:qwen3)"
        ),
    ),
    # run and watch
    "run.hint": ("Ctrl-C 离开 · 连按两次停止", "Ctrl-C detaches · twice stops"),
    "run.detached": (
        "在后台运行 · {program} watch {id} · {program} stop {id}",
        "running in the background · {program} watch {id} · {program} stop {id}",
    ),
    "watch.hint": ("Ctrl-C 离开", "Ctrl-C leaves"),
    "watch.none": ("还没有任务。", "There are no tasks yet."),
    "note.text_reset": ("↻ 模型的回答中断了，重新开始", "↻ the model's answer was cut and begins anew"),
    "note.question": ("? {question}", "? {question}"),
    "note.answer_here": (
        "输入回答（或选项编号）后按回车 · Ctrl-C 离开",
        "type the answer, or a choice's number, and Enter · Ctrl-C detaches",
    ),
    "note.answer_by": ('用 {program} send {id} "…" 回答', 'answer with {program} send {id} "..."'),
    "note.question_over": ("该问题已不再等待回答；未发送", "the question is no longer open; nothing was sent"),
    "send.told": (
        "已发送；智能体会在下一步之前读到 · {program} watch {id}",
        "sent; the agent reads it before its next step · {program} watch {id}",
    ),
    "send.answered": (
        "已作为对问题的回答发送 · {program} watch {id}",
        "sent as the answer to its question · {program} watch {id}",
    ),
    "send.begun": (
        "已发送；第 {run} 次运行已排队 · {program} watch {id}",
        "sent; run {run} is queued · {program} watch {id}",
    ),
    "note.model_retry": (
        "↻ 模型没有应答（{code}），{duration} 后重试",
        "↻ the model did not answer ({code}); trying again in {duration}",
    ),
    "note.model_fallback": (
        "↪ 模型 {before} 彻底失败（{code}），改用 {after}",
        "↪ model {before} has failed for good ({code}); {after} takes over",
    ),
    "note.compacted": ("上下文已压缩", "the context was compacted"),
    "end.completed": ("完成", "completed"),
    "end.failed": ("失败", "failed"),
    "end.stopped": ("已停止", "stopped"),
    "end.in": ("{ending}，用时 {duration}", "{ending} in {duration}"),
    "end.step": ("{count} 步", "{count} step"),
    "end.steps": ("{count} 步", "{count} steps"),
    "files.all": ("全部", "all"),
    "files.more": ("… 另有 {count} 个文件", "… {count} more files"),
    "follow.detached": (
        "仍在运行 · {program} watch {id} · 2 秒内再按 Ctrl-C 停止",
        "still running · {program} watch {id} · Ctrl-C again within 2 s to stop",
    ),
    "follow.still_running": ("仍在运行 · {program} watch {id}", "still running · {program} watch {id}"),
    "follow.stopping": ("正在停止任务 {id}…", "stopping task {id}…"),
    "follow.stopped": ("任务 {id} 已结束（{status}）", "task {id} has ended ({status})"),
    "follow.still_stopping": ("任务 {id} 仍在停止中（{status}）", "task {id} is still being stopped ({status})"),
    "follow.reconnecting": ("连接中断，正在重连…", "connection lost, reconnecting…"),
    "follow.reconnected": ("已重新连接", "reconnected"),
    "follow.lost": ("连接中断 {duration}，放弃重连：{reason}", "The connection has been lost for {duration}: {reason}"),
    "follow.lost.remedy": (
        "任务可能仍在运行；稍后请执行：{program} watch {id}",
        "The task may still be running; later: {program} watch {id}",
    ),
    "follow.timed_out": ("已等待 {duration}，不再跟随。", "Watched for {duration}; leaving."),
    "follow.timed_out_stops": ("已超过 {duration} 的时限。", "The time-out of {duration} has passed."),
    # ps, show, rm
    "ps.id": ("编号", "ID"),
    "ps.status": ("状态", "STATUS"),
    "ps.age": ("创建于", "AGE"),
    "ps.took": ("用时", "TIME"),
    "ps.goal": ("目标", "GOAL"),
    "ps.none": (
        '没有任务。开始一个：{program} run "…"',
        'No tasks. Start one: {program} run "…"',
    ),
    "show.task": ("任务", "task"),
    "show.goal": ("目标", "goal"),
    "show.status": ("状态", "status"),
    "show.question": ("提问", "question"),
    "show.model": ("模型", "model"),
    "show.created": ("创建", "created"),
    "show.took": ("用时", "time"),
    "show.run": ("第 {run} 次运行 {duration}", "run {run}: {duration}"),
    "show.usage": ("用量", "usage"),
    "show.error": ("错误", "error"),
    "show.hint": ("建议", "hint"),
    "show.result": ("结果", "result"),
    "show.files": ("文件", "files"),
    "show.rules": ("{model}（规则模式，不是 AI 模型）", "{model} (rules mode, not an AI model)"),
    "rm.confirm": ("删除这 {count} 个任务及其文件？", "Delete these tasks ({count}) with their files?"),
    # files
    "files.none": ("没有文件。", "There are no files."),
    "files.sending": ("上传 {path}", "sending {path}"),
    "files.truncated": ("{path} 未全部列出", "{path} is not listed wholly"),
    "files.bad_name": ("服务器给出的文件名无效：{path}", "The server named a file that can't be: {path}"),
    "files.leaves_folder": ("{path} 会写到 {folder} 之外。", "{path} would be written outside {folder}."),
    "files.is_folder": ("{path} 是文件夹。", "{path} is a folder."),
    "files.is_folder.remedy": ("用 -o 指定另一个名字。", "Name another place with -o."),
    "files.exists": ("{path} 已存在。", "{path} exists already."),
    "files.exists.remedy": (
        "用 -f 覆盖，或用 -o（解压时用 -x）指定另一个位置（beray files get / zip）。",
        "Overwrite it with -f or name another place with -o, or -x to unpack (beray files get / zip).",
    ),
    "files.archive_refused.remedy": (
        "用 -o 只保存 ZIP，或用 beray files get 逐个下载需要的文件。",
        "Keep the ZIP as it is with -o, or fetch the files you need with beray files get.",
    ),
    "files.cut": ("传输 {path} 时连接中断。", "The connection was cut while {path} was being transferred."),
    "files.cut.remedy": ("本地没有留下不完整的文件；请重试。", "Nothing incomplete was left behind; try again."),
    "attach.same_name": ("两个附件同名：{path}", "Two attachments have the same name: {path}"),
    "attach.same_name.remedy": ("请重命名其中一个，或放进文件夹。", "Rename one of them or put them into a folder."),
    "attach.no_file": ("{path} 不是普通文件，也不是文件夹。", "{path} is neither a regular file nor a folder."),
    "attach.no_file.remedy": ("请附加文件或文件夹。", "Attach files or folders."),
    # accounts and servers
    "account.email": ("邮箱", "E-mail"),
    "account.code": ("验证码", "Code"),
    "account.password": ("密码", "Password"),
    "account.new_password": ("新密码（至少 {least} 个字符）", "New password (at least {least} characters)"),
    "account.repeat": ("再输入一次", "Once more"),
    "account.token": ("令牌", "Token"),
    "account.password_short": ("太短：至少 {least} 个字符。", "Too short: at least {least} characters."),
    "account.password_differs": ("两次输入不同，请重新输入。", "They differ; try again."),
    "account.outbox": (
        "没有设置邮件服务器：验证码在发件箱 {path} 中最新的 .eml 文件里",
        "No mail server is set: the code is in the newest .eml file of the outbox, {path}",
    ),
    "account.registered": (
        "{email} 已注册并登录到 {server}（令牌保存在 {path}）",
        "{email} is registered and logged in to {server} (token kept in {path})",
    ),
    "account.logged_in": (
        "{email} 已登录到 {server}（令牌保存在 {path}）",
        "{email} is logged in to {server} (token kept in {path})",
    ),
    "account.reset": (
        "{email} 的密码已重置，并已登录到 {server}（令牌保存在 {path}）",
        "The password of {email} is reset; logged in to {server} (token kept in {path})",
    ),
    "account.logged_out": ("已从 {server} 登出", "Logged out from {server}"),
    "account.not_revoked": (
        "无法连接 {server}：令牌在本机已忘记，但在服务器上到期前仍有效",
        "{server} could not be reached: the token is forgotten here, but stays good there until it expires",
    ),
    "account.not_logged_in": ("没有登录。", "Nobody is logged in."),
    "account.stdin_empty": ("标准输入是空的。", "Nothing came from stdin."),
    "account.stdin_empty.remedy": (
        '例如：echo "$PASSWORD" | beray login --email … --password-stdin',
        'For example: echo "$PASSWORD" | beray login --email … --password-stdin',
    ),
    # API tokens
    "tokens.none": ("没有 API 令牌。", "There are no API tokens."),
    "tokens.id": ("编号", "ID"),
    "tokens.created": ("创建于", "CREATED"),
    "tokens.expires": ("到期", "EXPIRES"),
    "tokens.used": ("最近使用", "LAST USED"),
    "tokens.name": ("名称", "NAME"),
    "tokens.never": ("永不", "never"),
    "tokens.once": (
        "令牌只显示这一次。程序用环境变量 BERAY_TOKEN 和 BERAY_BASE_URL={url} 使用它",
        "It is shown this once. A program takes it as BERAY_TOKEN, with BERAY_BASE_URL={url}",
    ),
    "credentials.bad": ("登录信息文件无法使用：{reason}", "The credentials file can't be used: {reason}"),
    "credentials.bad.remedy": (
        "修好它或删除它，然后重新登录：beray login",
        "Mend it or delete it, then log in again: beray login",
    ),
    "server.embedded": ("内嵌服务（{url}）", "the embedded server ({url})"),
    "server.token_alone": (
        "设置了 BERAY_TOKEN，但没有指定服务器。",
        "BERAY_TOKEN is set, but no server is named.",
    ),
    "server.token_alone.remedy": (
        "请设置 BERAY_BASE_URL 或使用 --server URL；要使用内嵌服务请取消 BERAY_TOKEN。",
        "Set BERAY_BASE_URL or use --server URL; for the embedded server unset BERAY_TOKEN.",
    ),
    "server.not_logged_in": ("没有登录到 {url}", "Not logged in to {url}"),
    "server.not_logged_in.remedy": (
        "请执行：{program} login --server {url}（还没有账户：{program} register --server {url}）",
        "Run: {program} login --server {url} (no account yet: {program} register --server {url})",
    ),
    "server.nothing_here": ("这里还没有运行过任务。", "No task has ever been run here."),
    "server.nothing_here.remedy": (
        '开始一个：{program} run "…"；或登录服务器：{program} login --server URL',
        'Start one: {program} run "…", or log in to a server: {program} login --server URL',
    ),
    "server.bad_url": ("“{url}”不是服务器地址。", "{url!r} is not the URL of a server."),
    "server.bad_url.remedy": (
        "写成 http://localhost:8000 这样；令牌只含可打印的 ASCII 字符。",
        "Write it like http://localhost:8000; a token has printable ASCII characters only.",
    ),
    # the embedded server
    "embedded.starting": ("正在启动内嵌服务… {seconds} 秒", "starting the embedded server… {seconds} s"),
    "embedded.waiting": ("正在等待内嵌服务启动…", "waiting for the embedded server to be started…"),
    "embedded.started": (
        "内嵌服务已启动（数据在 {path}；空闲 {minutes} 分钟后自行结束）",
        "embedded server started (data in {path}; ends itself after {minutes} idle minutes)",
    ),
    "embedded.new_settings": (
        "设置已改变，重新启动内嵌服务",
        "the settings have changed: restarting the embedded server",
    ),
    "embedded.makes_way": (
        "空闲的内嵌服务（进程 {pid}）已结束，为这个服务器让路",
        "the idle embedded server (process {pid}) has been ended to make way for this one",
    ),
    "embedded.keeps_settings": (
        "内嵌服务（进程 {pid}）有任务在运行，仍使用启动时的设置；新设置在任务结束后生效",
        (
            "the embedded server (process {pid}) is at work and keeps the settings it was started with; the new ones "
            "hold once its tasks have ended"
        ),
    ),
    "embedded.not_writable": (
        "数据文件夹 {path} 不可写：{reason}",
        "The data folder {path} cannot be written: {reason}",
    ),
    "embedded.not_writable.remedy": (
        "请用 BERAY_DATA_DIR 指定您可以写入的文件夹。",
        "Set BERAY_DATA_DIR to a folder that you can write.",
    ),
    "embedded.locked": (
        "另一个 beray 一直在启动内嵌服务。",
        "Another beray has been starting the embedded server for too long.",
    ),
    "embedded.does_not_end": ("内嵌服务（进程 {pid}）没有结束。", "The embedded server (process {pid}) does not end."),
    "embedded.ended": (
        "内嵌服务启动时退出了（状态 {code}）。",
        "The embedded server ended while it was starting (status {code}).",
    ),
    "embedded.gone": ("内嵌服务在启动时消失了。", "The embedded server went away while it was starting."),
    "embedded.unavailable": ("内嵌服务无法工作。", "The embedded server can't work."),
    "embedded.late": ("内嵌服务在 {seconds} 秒内没有就绪。", "The embedded server was not ready within {seconds} s."),
    "embedded.see_log": ("完整日志：{path}", "The whole log: {path}"),
    "serve.setting.remedy": (
        "请更正这个设置后重新启动。",
        "Correct the setting and start again.",
    ),
    "serve.crowded": (
        (
            "警告：本进程同时运行 {places} 个任务（--concurrency 或 BERAY_MAX_RUNNING_TASKS），"
            "不多于 BERAY_MAX_RUNNING_TASKS_PER_USER ({per_user})：一个用户就能占满它"
        ),
        (
            "warning: this process runs {places} tasks at a time (--concurrency or BERAY_MAX_RUNNING_TASKS), "
            "not more than BERAY_MAX_RUNNING_TASKS_PER_USER ({per_user}): one user can fill it"
        ),
    ),
    "serve.no_database": (
        "`{command}` 需要多个进程可以共用的 PostgreSQL。",
        "`{command}` needs PostgreSQL, which several processes can share.",
    ),
    "serve.no_database.remedy": (
        "请设置 BERAY_DATABASE_URL=postgresql://用户:密码@主机:5432/数据库",
        "Set BERAY_DATABASE_URL=postgresql://user:password@host:5432/database",
    ),
    # errors
    "extra.missing": (
        "缺少软件包 {package}。命令行和服务器需要附加包：",
        "The package {package} is missing. The command line and the server need extra packages:",
    ),
    "error.unexpected": ("内部错误：{kind}: {reason}", "Internal error: {kind}: {reason}"),
    "remedy.debug": (
        "加上 --debug 再试一次可以看到调用栈；请把它报告给我们。",
        "Run it again with --debug for the traceback, and report it.",
    ),
    "remedy.auth": ("请登录：{program} login", "Log in: {program} login"),
    "remedy.login_needed": (
        "请登录：{program} login；并取消 BERAY_TOKEN（若已设置）",
        "Log in: {program} login; and unset BERAY_TOKEN if it is set",
    ),
    "remedy.server": ("请稍后重试；服务器的日志说明原因。", "Try again later; the server's log says why."),
    "remedy.network": (
        "检查服务器是否在运行、地址是否正确：{program} doctor",
        "Check that the server is running and its URL is right: {program} doctor",
    ),
    "remedy.invalid_credentials": (
        "检查邮箱和密码；还没有账户：{program} register",
        "Check address and password; no account yet: {program} register",
    ),
    "remedy.invalid_verification_code": (
        "不带 --code 重新执行同一命令，获取新的验证码。",
        "Run the same command again without --code to get a new code.",
    ),
    "remedy.email_already_registered": ("请登录：{program} login", "Log in instead: {program} login"),
    "remedy.task_not_found": ("查看有哪些任务：{program} ps", "See which tasks there are: {program} ps"),
    "remedy.file_not_found": (
        "查看有哪些文件：{program} files ls ID",
        "See which files there are: {program} files ls ID",
    ),
    # doctor
    "doctor.program": ("程序", "program"),
    "doctor.server": ("服务器", "server"),
    "doctor.login": ("登录", "login"),
    "doctor.model": ("模型", "model"),
    "doctor.model_call": ("模型应答", "model answers"),
    "doctor.asking": ("正在请模型回答一个词", "asking the model for one word"),
    "doctor.answered": ("“{text}”，用时 {duration}", "“{text}” after {duration}"),
    "doctor.sandbox": ("沙箱", "sandbox"),
    "doctor.python": ("沙箱中的 Python", "Python in the sandbox"),
    "doctor.disk": ("磁盘", "disk"),
    "doctor.starting": ("正在启动", "starting"),
    "doctor.see_ready": (
        "等它就绪后再试；服务器的日志说明原因。",
        "Try again once it is ready; the server's log says why it isn't.",
    ),
    "doctor.confined": ("已隔离：{names}", "confined: {names}"),
    "doctor.not_confined": ("未隔离：{names}", "not confined: {names}"),
    "doctor.sandbox.remedy": (
        "命令没有被隔离。安装 bubblewrap（apt install bubblewrap）并去掉 BERAY_SANDBOX=none。",
        "Commands are not confined. Install bubblewrap (apt install bubblewrap) and unset BERAY_SANDBOX=none.",
    ),
    "doctor.no_python": ("没有", "none"),
    "doctor.no_python.remedy": (
        "python 工具不可用：安装 python3，或用 BERAY_SANDBOX_PYTHON 指定解释器。",
        "The python tool is unavailable: install python3, or name an interpreter with BERAY_SANDBOX_PYTHON.",
    ),
    "doctor.disk_free": ("{size} 可用（{path}）", "{size} free ({path})"),
    "doctor.disk.remedy": (
        "请腾出空间，或用 BERAY_DATA_DIR 换一个磁盘。",
        "Make room, or move to another disk with BERAY_DATA_DIR.",
    ),
    "doctor.no_uv": ("没有 uv", "no uv"),
}
