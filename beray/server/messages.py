"""The catalogue of every sentence the server shows, Chinese and English.

A key is an error `code` or a message's name; tests prove that both languages are complete and name the same fields.
What it says: what happened, to what, and what to do next.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Literal

Language = Literal["zh", "en"]

current_language: ContextVar[Language] = ContextVar("current_language", default="zh")
"""Language of the request being answered; set at the edge from Accept-Language."""


@dataclass(frozen=True)
class Phrase:
    """A field of a sentence that is itself in the catalogue, put in when the language is known."""

    key: str


def text(key: str, language: Language | None = None, /, **params: object) -> str:
    """The sentence `key` in `language` (default: the request's), with its fields filled in."""
    chinese, english = MESSAGES[key]
    chosen = current_language.get() if language is None else language
    filled = {name: text(value.key, chosen) if isinstance(value, Phrase) else value for name, value in params.items()}
    return (chinese if chosen == "zh" else english).format(**filled)


def language_of(goal: str) -> Language:
    """The language a person wrote in: Chinese if there is a CJK character, else English."""
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in goal) else "en"


MESSAGES: Final[dict[str, tuple[str, str]]] = {
    # requests
    "bad_request": ("请求无法处理：{reason}", "The request cannot be handled: {reason}"),
    "not_http": ("这不是有效的 HTTP 请求。", "This is not a valid HTTP request."),
    "no_connect": (
        "这里不是代理服务器，不接受 CONNECT 请求。",
        "This server is no proxy; it does not take CONNECT.",
    ),
    "query_not_utf8": (
        "地址的查询部分不是有效的 UTF-8。",
        "The query part of the address is not valid UTF-8.",
    ),
    "head_too_large": (
        "请求行和请求头（或尾部字段）超过了 {limit} 字节。",
        "The request line and headers, or the trailers, are over {limit} bytes.",
    ),
    "validation_error": ("请求无效：{reason}", "The request is not valid: {reason}"),
    "not_found": ("没有这个地址：{path}", "There is nothing at {path}."),
    "console_missing": (
        "BeRay 正在运行，但此安装没有网页控制台。请在源码中运行 make console（需要 Node），再重启服务。API 照常可用。",
        (
            "BeRay is running, but this installation has no web console. Run `make console` in the source (it needs"
            " Node) and start the server anew. The API works all the same."
        ),
    ),
    "method_not_allowed": (
        "{path} 不支持 {method}；可用：{allowed}。",
        "{path} does not take {method}; it takes {allowed}.",
    ),
    "body_too_large": ("请求体超过 {limit} 字节的上限。", "The request body is over the limit of {limit} bytes."),
    "rate_limited": ("请求过于频繁，请在 {seconds} 秒后重试。", "Too many requests; try again in {seconds} seconds."),
    "internal_error": (
        "服务器内部错误。请把请求编号 {request_id} 告诉管理员。",
        "Internal server error. Tell the operator the request id {request_id}.",
    ),
    "starting": ("服务正在启动，请稍后重试。", "The service is starting; try again shortly."),
    "idempotency_mismatch": (
        "这个 Idempotency-Key 已用于另一个请求。请换一个新的键。",
        "This Idempotency-Key was used for another request. Use a new key.",
    ),
    # fields of a request; the key is `invalid.` and the validator's type
    "invalid.missing": ("缺少此字段。", "This field is required."),
    "invalid.json_invalid": ("不是有效的 JSON。", "This is not valid JSON."),
    "invalid.events": ("须为 all、none 或 tail:N。", "This must be all, none or tail:N."),
    "invalid.blank": ("不能为空白。", "This must not be blank."),
    "invalid.nul": ("不能含有 NUL 字符。", "This must not hold a NUL character."),
    "invalid.model_attributes_type": ("须为 JSON 对象。", "This must be a JSON object."),
    "invalid.string_type": ("须为字符串。", "This must be a string."),
    "invalid.string_unicode": ("须为有效的 Unicode 文本。", "This must be valid Unicode text."),
    "invalid.string_too_long": ("最多 {max_length} 个字符。", "At most {max_length} characters."),
    "invalid.string_too_short": ("至少 {min_length} 个字符。", "At least {min_length} characters."),
    "invalid.list_type": ("须为数组。", "This must be an array."),
    "invalid.bool_type": ("须为 true 或 false。", "This must be true or false."),
    "invalid.bool_parsing": ("须为 true 或 false。", "This must be true or false."),
    "invalid.int_type": ("须为整数。", "This must be a whole number."),
    "invalid.int_parsing": ("须为整数。", "This must be a whole number."),
    "invalid.int_parsing_size": ("整数过大。", "This whole number is too large."),
    "invalid.greater_than_equal": ("须不小于 {ge}。", "This must be {ge} or more."),
    "invalid.less_than_equal": ("须不大于 {le}。", "This must be {le} or less."),
    "invalid.float_type": ("须为数字。", "This must be a number."),
    "invalid.finite_number": ("须为有限的数字。", "This must be a finite number."),
    "invalid.model_type": ("须为 JSON 对象。", "This must be a JSON object."),
    "invalid.unknown_limits": (
        "未知的限额：{unknown}。可用的限额：{known}。",
        "Unknown limits: {unknown}. Known limits: {known}.",
    ),
    "invalid.literal_error": ("须为以下之一：{expected}。", "This must be one of: {expected}."),
    # accounts
    "verification_code_sent": (
        "验证码已发送到您的邮箱。请查收。",
        "A verification code has been sent to your mailbox. Please check your mail.",
    ),
    "reset_code_sent": (
        "如果该邮箱已注册，重置密码的验证码已发送到该邮箱。请查收。",
        "If this address has an account, a code to reset its password has been sent to it. Please check your mail.",
    ),
    "password_reset": (
        "密码已重置，所有登录和 API 令牌均已失效。请用新密码登录。",
        "The password has been reset, and every login and API token has ended. Log in with the new password.",
    ),
    "logged_out": ("已成功登出", "Logged out."),
    "api_token_deleted": ("API 令牌 {token_id} 已删除。", "API token {token_id} has been deleted."),
    "not_authenticated": (
        "未登录，或登录已失效。请重新登录。",
        "Not logged in, or the login is no longer valid. Log in again.",
    ),
    "invalid_credentials": ("邮箱或密码不正确。", "The e-mail address or the password is wrong."),
    "login_needed": (
        "API 令牌不能用于此操作。请用密码登录后再试。",
        "An API token cannot be used for this. Log in with your password and try again.",
    ),
    "origin_mismatch": (
        "请求不是从本服务器的页面发出的，浏览器登录对它无效。请在控制台中操作；如有代理，须原样转发 Host。",
        (
            "The request does not come from a page of this server, so the browser's login does not count for it."
            " Use the console; a proxy in front must pass `Host` on as it is."
        ),
    ),
    "api_token_not_found": ("没有 API 令牌 {token_id}。", "There is no API token {token_id}."),
    "too_many_api_tokens": (
        "您已有 {most} 个 API 令牌，达到上限。请先删除不用的令牌。",
        "You have {most} API tokens, the most there may be. Delete one that is not used any more first.",
    ),
    "session_not_found": ("没有会话 {session_id}，或它已结束。", "There is no session {session_id}, or it has ended."),
    "session_ended": ("会话 {session_id} 已结束。", "Session {session_id} has been ended."),
    "other_sessions_ended": (
        "其他会话均已结束，共 {count} 个。",
        "Your other sessions have been ended: {count}.",
    ),
    "wrong_password": (
        "当前密码不正确，没有做任何更改。",
        "The current password is wrong; nothing was changed.",
    ),
    "password_changed": (
        "密码已修改，其他会话均已结束。API 令牌仍然有效，不再需要的请删除。",
        (
            "The password has been changed, and your other sessions have been ended. API tokens stay valid: delete"
            " those you do not need."
        ),
    ),
    "account_without_password": (
        "该账户属于本机的服务器，没有密码，不能修改密码或删除账户。",
        (
            "This account is the local server's own. It has no password, so neither can that be changed nor the account"
            " be deleted."
        ),
    ),
    "account_deleted": (
        "账户已删除，所有登录和 API 令牌均已失效；任务和文件正在后台清除。该邮箱现在可以重新注册。",
        (
            "The account has been deleted, and every login and API token has ended. Its tasks and files are being"
            " removed in the background. The address can be registered again now."
        ),
    ),
    "user_not_found": ("没有用户 {user}。", "There is no user {user}."),
    "last_admin": (
        "您是唯一的管理员。请先让另一位用户成为管理员（beray admin users --promote 邮箱）。",
        "You are the only admin. Make another user an admin first (beray admin users --promote ADDRESS).",
    ),
    "admin_needs_password": (
        "{email} 没有密码，无法登录。请注册一个账户，并让它成为管理员。",
        "{email} has no password and cannot log in. Register an account, and make that one an admin.",
    ),
    "email_already_registered": (
        "邮箱 {email} 已注册。请直接登录。",
        "{email} is already registered. Log in instead.",
    ),
    "invalid_verification_code": (
        "验证码不正确或已失效。请重新获取验证码。",
        "The verification code is wrong or no longer valid. Request a new one.",
    ),
    "invalid_email": ("“{email}”不是有效的邮箱地址。", "{email!r} is not a valid e-mail address."),
    "invalid_password": (
        "密码长度须为 {least} 到 {most} 个字符。",
        "A password must have {least} to {most} characters.",
    ),
    "unsupported_grant_type": (
        "不支持的 grant_type：{grant_type}。请使用 password。",
        "The grant_type {grant_type} is not supported; use password.",
    ),
    "code_mail_subject": ("BeRay 验证码", "Your BeRay verification code"),
    "code_mail_text": (
        """您好！

您的 BeRay 验证码是：

{code}

验证码在 {minutes} 分钟内有效，只能使用一次。如果您没有请求验证码，请忽略这封邮件。
""",
        """Hello,

your BeRay verification code is:

{code}

It is valid for {minutes} minutes and can be used once. If you did not ask for it, ignore this mail.
""",
    ),
    "code_announced": ("{email} 的验证码：{code}", "Verification code for {email}: {code}"),
    "reset_mail_subject": ("重置 BeRay 密码", "Reset your BeRay password"),
    "reset_mail_text": (
        """您好！

有人请求重置您的 BeRay 密码。用于重置的验证码是：

{code}

验证码在 {minutes} 分钟内有效，只能使用一次。重置后，所有登录和 API 令牌都会失效。如果不是您本人的操作，请忽略这封邮件：
不使用这个验证码，您的密码就不会改变。请不要把验证码告诉任何人。
""",
        """Hello,

somebody asked to reset your BeRay password. The code to do so is:

{code}

It is valid for {minutes} minutes and can be used once. A reset ends every login and every API token. If it was not you
who asked, ignore this mail: without this code your password stays as it is. Tell the code to nobody.
""",
    ),
    "reset_code_announced": ("{email} 重置密码的验证码：{code}", "Code to reset the password of {email}: {code}"),
    "mail_not_sent": (
        "邮件暂时无法发送，请稍后重试。",
        "The mail could not be sent; try again shortly.",
    ),
    "webhook_url_invalid": (
        (
            "不能向该地址发送 webhook：须以 https:// 开头、写明完整主机名（不能是 IP 地址，不带用户名和 #），"
            "端口为 443 或 1024 到 65535，只用 ASCII 字符，最多 {most} 个字符。"
            "其他主机须由管理员在 BERAY_WEBHOOK_ALLOW_PRIVATE 中列出。"
        ),
        (
            "No webhooks are sent to this URL. It must begin with https:// and name a full host (no IP address, user"
            " name or #), with port 443 or 1024 to 65535, in ASCII and at most {most} characters. Other hosts only"
            " where the operator lists them in BERAY_WEBHOOK_ALLOW_PRIVATE."
        ),
    ),
    "webhook_fault_status": (
        "接收方返回了 {status}；返回 2xx 才算收下。",
        "The receiver answered {status}; 2xx says that it has taken the message.",
    ),
    "webhook_fault_redirect": (
        "接收方返回了重定向（{status}），不会跟随。请设置最终的地址。",
        "The receiver answered with a redirect ({status}), which is not followed. Set the URL it leads to.",
    ),
    "webhook_fault_timeout": ("接收方没有在 10 秒内回答。", "The receiver did not answer within 10 seconds."),
    "webhook_fault_unreachable": (
        "无法连接接收方。请检查主机名和端口。",
        "The receiver could not be connected to. Check host name and port.",
    ),
    "webhook_fault_tls": (
        "与接收方的 TLS 连接失败，多半是证书不被信任。",
        "The TLS connection to the receiver failed, mostly because its certificate is not believed.",
    ),
    "webhook_fault_not_http": (
        "接收方的回答不是 HTTP，或中途断开。",
        "What the receiver answered is no HTTP, or was cut off.",
    ),
    "webhook_fault_forbidden": (
        "该主机不在公共互联网上，不能向它发送。管理员可以在 BERAY_WEBHOOK_ALLOW_PRIVATE 中列出它。",
        (
            "The host is not on the public internet, so nothing is sent there. The operator can list it in"
            " BERAY_WEBHOOK_ALLOW_PRIVATE."
        ),
    ),
    # tasks
    "task_not_found": ("没有任务 {task_id}。", "There is no task {task_id}."),
    "task_already_ended": (
        "任务 {task_id} 已处于 {status} 状态；只有排队中、运行中或等待中的任务可以停止。",
        "Task {task_id} has already {status}; a queued, running or waiting task can be stopped.",
    ),
    "task_already_started": (
        "任务 {task_id} 已经启动，当前状态为 {status}。",
        "Task {task_id} has been started already; its status is {status}.",
    ),
    "task_being_stopped": (
        "任务 {task_id} 正在停止；停止后即可再发消息。",
        "Task {task_id} is being stopped; send the message again once it has stopped.",
    ),
    "question_closed": (
        (
            "任务 {task_id} 的这个问题已不再等待回答：已有人回答、时间已到或任务已结束。"
            "去掉 question_id 再发送，就是一条普通消息。"
        ),
        (
            "This question of task {task_id} is no longer open: it was answered, its time was up, or the task has "
            "ended. Send it without question_id to say it all the same."
        ),
    ),
    "message_empty": ("消息不能为空。", "The message must not be empty."),
    "message_too_long": (
        "消息有 {length} 个字符，上限为 {most}。",
        "The message has {length} characters; the limit is {most}.",
    ),
    "too_many_messages": (
        "任务 {task_id} 已有 {most} 条消息等待送达，请稍后再发。",
        "Task {task_id} has {most} messages that its agent has not read yet; send more once it has.",
    ),
    "conversation_full": (
        "任务 {task_id} 已有 {most} 条消息，达到上限。请新建一个任务。",
        "Task {task_id} has had {most} messages, the most it may have. Make a new task.",
    ),
    "rules_read_no_messages": (
        "任务 {task_id} 由固定规则执行，运行中不读取消息；结束后发送的消息会成为下一次运行的目标。",
        (
            "Task {task_id} is done by fixed rules, which read no messages while they work; a message after its end "
            "is the goal of a further run."
        ),
    ),
    "task_being_deleted": (
        "任务 {task_id} 正在删除，剩余清理会在后台完成。",
        "Task {task_id} is being deleted; the rest is finished in the background.",
    ),
    "task_stop_requested": ("已请求停止任务 {task_id}。", "Task {task_id} is being stopped."),
    "task_stopped": ("任务 {task_id} 已停止。", "Task {task_id} has been stopped."),
    "task_deleted": ("任务 {task_id} 及其所有数据已删除。", "Task {task_id} and all its data have been deleted."),
    "task_internal_error": (
        "任务因服务器内部错误而失败。",
        "The task failed because of an internal error of the server.",
    ),
    "task_internal_error_hint": (
        "可以重新提交；若再次出现，请查看服务器日志。",
        "Submit it again; if it happens again, look at the server's log.",
    ),
    "task_interrupted": (
        "执行该任务的进程反复中断，已放弃运行；已有的文件保留。",
        "The process that ran the task went away too often, so the run was given up; its files are kept.",
    ),
    "task_interrupted_hint": (
        "任务本身可能耗尽了内存；请查看服务器日志，把目标拆小后重新提交。",
        "The task itself may use up the memory: look at the server's log, and submit it again in smaller parts.",
    ),
    "tool_not_offered": (
        "运行该任务的进程没有它所需的工具：{tools}。",
        "The process that ran the task does not have tools that it needs: {tools}.",
    ),
    "tool_not_offered_hint": (
        "请在每个进程上安装并启用相同的工具，或创建不需要它们的任务。",
        "Install and switch on the same tools at every process, or make the task without them.",
    ),
    "task_disk_full": (
        "服务器的磁盘已满，任务无法继续；已有的文件保留。",
        "The server's disk is full, so the task could not go on; its files are kept.",
    ),
    "task_disk_full_hint": (
        "请删除一些文件或任务，或扩大磁盘空间，然后重新提交。",
        "Delete files or tasks, or give the disk more room, then submit it again.",
    ),
    "goal_empty": ("任务目标不能为空。", "The goal must not be empty."),
    "goal_too_long": (
        "任务目标有 {length} 个字符，上限为 {most}。",
        "The goal has {length} characters; the limit is {most}.",
    ),
    "unknown_tools": (
        "未知的工具：{unknown}。可用的工具：{known}。",
        "Unknown tools: {unknown}. Known tools: {known}.",
    ),
    "unknown_model": ("模型 {model} 不可用。可用的模型：{known}。", "Model {model} is not offered. Offered: {known}."),
    "too_many_streams": (
        "您已有 {most} 个打开的事件流。请先关闭一些。",
        "You already hold {most} open event streams. Close some first.",
    ),
    # agent: which model works
    "model_rules": (
        (
            "规则模式（beray:rules）：不是 AI 模型，只按固定规则执行指令。要使用真实模型，请设置 OPENAI_API_KEY=…"
            "（或 BERAY_MODEL=ollama:<模型名>）后重新启动。"
        ),
        (
            "Rules mode (beray:rules): not an AI model, it follows fixed rules only. To use a real model, set "
            "OPENAI_API_KEY=... (or BERAY_MODEL=ollama:<name>) and restart."
        ),
    ),
    "model_rules_chosen": (
        (
            "规则模式（beray:rules，由 BERAY_MODEL 指定）：不是 AI 模型，只按固定规则执行指令。"
            "要使用真实模型，请改为 BERAY_MODEL=openai:<模型名> 等后重新启动。"
        ),
        (
            "Rules mode (beray:rules, chosen by BERAY_MODEL): not an AI model, it follows fixed rules only. "
            "To use a real model, set BERAY_MODEL=openai:<name> or another and restart."
        ),
    ),
    "model_chosen": (
        "模型 {model}（由 BERAY_MODEL 指定）。",
        "Model {model} (chosen by BERAY_MODEL).",
    ),
    "model_address": ("其服务位于 {url}。", "Its server is {url}."),
    "model_from_key": (
        (
            "模型 {model}，因为环境中有 {key}；使用它会产生费用。"
            "用 BERAY_MODEL=<提供商>:<模型名> 换一个，用 BERAY_MODEL=rules 则不用模型。"
        ),
        (
            "Model {model}, because {key} is set; using it costs money. "
            "BERAY_MODEL=<provider>:<name> chooses another, BERAY_MODEL=rules none."
        ),
    ),
    "model_other_keys": (
        "环境中还有 {keys}；多个密钥时按固定顺序选用：{order}。",
        "{keys} found too; of several keys the first in this order is used: {order}.",
    ),
    "model_found_local": (
        "模型 {model}，由找到的模型服务提供。用 BERAY_MODEL 可换一个，BERAY_MODEL_PROBE=0 则不再查找。",
        (
            "Model {model}, of a model server that was found. BERAY_MODEL chooses another, BERAY_MODEL_PROBE=0 ends the"
            " search."
        ),
    ),
    "model_several": (
        "找到的模型服务提供多个模型：{models}。请选定一个，例如 BERAY_MODEL={first}，然后重新启动。",
        "A model server offers several models: {models}. Choose one, such as BERAY_MODEL={first}, and restart.",
    ),
    "model_server_silent": (
        "{name} 指定的模型服务没有应答，或没有模型。",
        "The model server named by {name} does not answer, or has no models.",
    ),
    "model_key_unusable": (
        "环境中有 {key}，但缺少所需的软件包，未使用。请安装：{install}",
        "{key} is set but not used: a package is missing. Install it: {install}",
    ),
    "model_further": ("任务还可以指定：{models}。", "A task may also ask for: {models}."),
    "model_fallbacks": (
        "模型彻底失败时依次改用：{models}。",
        "When a run's model has failed for good, these take over in turn: {models}.",
    ),
    # agent: rules mode
    "rules_unsupported": (
        (
            "未配置语言模型，BeRay 处于规则模式，未能理解（或未能完全理解）这个目标中的指令。"
            "规则模式可以：编写并运行打印一段文字的 Python 或 bash 脚本；创建、追加、读取、列出、删除文件；"
            "运行反引号中的命令、以“$ ”开头的命令，以及 bash、sh、python 代码块。"
        ),
        (
            "No language model is configured, so BeRay is in rules mode and understood no instruction in this goal, "
            "or not all of it. Rules mode can: write and run a Python or bash script that prints a text; create, "
            "append to, read, list and delete files; run commands in backticks or after `$ `, and fenced bash, sh and "
            "python blocks."
        ),
    ),
    "rules_hint": (
        "要使用真实模型：设置 OPENAI_API_KEY=…（或 BERAY_MODEL=ollama:<模型名>），然后重新启动服务。",
        "To use a real model: set OPENAI_API_KEY=... (or BERAY_MODEL=ollama:<name>) and restart the server.",
    ),
    "rules_tools_missing": (
        "规则模式执行这个目标需要的工具未开放给此任务：{tools}。",
        "Rules mode needs tools for this goal that the task does not have: {tools}.",
    ),
    "rules_step_failed": (
        "第 {number} 步（共 {total} 步，{tool}）失败：{reason}。后面的步骤没有执行。",
        "Step {number} of {total} ({tool}) failed: {reason}. The steps after it were not run.",
    ),
    "rules_step_hint": (
        "请查看该步骤的输出，修改目标后重新提交。规则模式不会自行修正错误。",
        "Look at the step's output, correct the goal and submit it again. Rules mode does not mend errors by itself.",
    ),
    "rules_done": (
        "由固定规则完成，并非 AI 模型。已完成 {count} 条指令。",
        "Done by fixed rules, not by an AI model. Instructions carried out: {count}.",
    ),
    "rules_script": (
        "脚本 {name} 逐字打印目标中给出的文字，输出如下：",
        "The script {name} prints the text of the goal literally. Its output:",
    ),
    # agent: faults of the model
    "model_auth": ("模型 {model} 的服务拒绝了密钥：{reason}", "The server of model {model} refused the key: {reason}"),
    "model_auth_hint": (
        "请检查提供商的密钥或 BERAY_MODEL_API_KEY，然后重新启动服务。",
        "Check the provider's key or BERAY_MODEL_API_KEY, then restart the server.",
    ),
    "model_key_missing": (
        "模型 {model} 的服务要求密钥，但没有为它设置密钥：{reason}",
        "The server of model {model} wants a key, and none is set for it: {reason}",
    ),
    "model_key_missing_remedy": (
        "请设置 {keys}，然后重新启动服务。",
        "Set {keys}, then restart the server.",
    ),
    "model_quota": ("模型 {model} 的额度已用完：{reason}", "The quota of model {model} is used up: {reason}"),
    "model_quota_hint": (
        "请为该提供商充值，或用 BERAY_MODEL 换一个模型。",
        "Top up the account with the provider, or choose another model with BERAY_MODEL.",
    ),
    "model_not_found": ("服务器上没有模型 {model}：{reason}", "The model {model} is not there on its server: {reason}"),
    "model_not_found_hint": (
        "请检查 BERAY_MODEL（或列出该模型的设置）和 BERAY_MODEL_BASE_URL 的拼写。",
        "Check the spelling of BERAY_MODEL (or the setting that lists the model) and BERAY_MODEL_BASE_URL.",
    ),
    "context_exceeded": (
        "对话超出了模型 {model} 的上下文长度：{reason}",
        "The conversation is longer than the context of model {model}: {reason}",
    ),
    "context_exceeded_hint": (
        "请把任务拆小，或使用上下文更长的模型。",
        "Split the task, or use a model with a longer context.",
    ),
    "model_rate_limited": (
        "模型 {model} 的服务一直限流：{reason}",
        "The server of model {model} kept limiting the rate: {reason}",
    ),
    "model_rate_limited_hint": ("请稍后重新提交。", "Submit the task again later."),
    "model_rate_limited_check": ("请稍后再试。", "Try again later."),
    "model_unavailable": (
        "模型 {model} 的服务暂时不可用：{reason}",
        "The server of model {model} is not available: {reason}",
    ),
    "model_unavailable_hint": (
        "请稍后重新提交，或用 BERAY_MODEL 换一个模型；BERAY_MODEL_FALLBACK 可指定接替的模型。",
        (
            "Submit the task again later, or choose another model with BERAY_MODEL; BERAY_MODEL_FALLBACK names those "
            "that take over."
        ),
    ),
    "model_unavailable_check": (
        "请稍后再试，或用 BERAY_MODEL 换一个模型。",
        "Try again later, or choose another model with BERAY_MODEL.",
    ),
    "model_unreachable": (
        "无法与模型 {model} 通信，或回答中断：{reason}",
        "Model {model} could not be reached, or its answer was cut: {reason}",
    ),
    "model_unreachable_hint": (
        "请检查模型服务是否在运行、能否访问（地址见服务器日志），然后重新提交。",
        "Check that the model's server runs and can be reached (the log has its address), then submit the task again.",
    ),
    "model_unreachable_check": (
        "请检查该地址（BERAY_MODEL_BASE_URL）能否访问、模型服务是否在运行。",
        "Check that the address (BERAY_MODEL_BASE_URL) can be reached and the model server runs.",
    ),
    "reason_refused": ("连接被拒绝，该端口上没有服务", "connection refused, nothing listens there"),
    "reason_unknown_host": ("找不到该主机（{reason}）", "unknown host ({reason})"),
    "reason_timed_out": ("连接超时", "the connection timed out"),
    "reason_reset": ("连接被对方中断", "the connection was cut by the other side"),
    "reason_certificate": ("TLS 证书不被信任：{reason}", "its TLS certificate is not trusted: {reason}"),
    "reason_tls": ("TLS 握手失败：{reason}", "TLS failed: {reason}"),
    "model_refused": (
        "模型 {model} 的提供商拦截了回答：{reason}",
        "The provider of {model} withheld the answer: {reason}",
    ),
    "model_refused_hint": ("请修改目标的措辞。", "Put the goal in other words."),
    "model_output_cut": (
        "模型 {model} 的回答达到长度上限而被截断：{reason}",
        "The answer of model {model} was cut at its length limit: {reason}",
    ),
    "model_output_cut_hint": ("请把任务拆小，或换一个模型。", "Split the task, or choose another model."),
    "model_not_offered": (
        "这个任务的模型 {model} 在运行它的服务器上不可用。",
        "The task's model {model} is not offered by the server that was to run it.",
    ),
    "model_not_offered_hint": (
        "请用可用的模型重新提交；或把该模型加入每个服务器和 worker 的 BERAY_MODELS，然后重新启动。",
        (
            "Submit the task again with a model that is offered; or add the model to BERAY_MODELS of every server and "
            "worker, and restart."
        ),
    ),
    "model_empty": ("模型 {model} 连续返回空的回答。", "Model {model} kept giving empty answers."),
    "model_empty_hint": (
        "请换一个支持工具调用的模型。",
        "Choose another model that can call tools.",
    ),
    "model_error": ("模型 {model} 出错：{reason}", "Model {model} failed: {reason}"),
    "model_error_hint": (
        "请查看服务器日志；可用 BERAY_MODEL 换一个模型。",
        "Look at the server's log; BERAY_MODEL chooses another model.",
    ),
    # agent: limits of a run
    "budget_exceeded": (
        "任务用完了它的{name}（{limit}）：已用 {used}，上限 {most}。文件已保留。",
        "The task used up its {name} ({limit}): {used} used, {most} allowed. Its files are kept.",
    ),
    "budget_exceeded_hint": (
        "可以缩小任务，或用 {setting} 提高上限。",
        "Make the task smaller, or raise the limit with {setting}.",
    ),
    "budget_raise_own": (
        "该上限由任务自己的 limits.{limit} 设定；请以更高的值重新提交（不得超过服务器的 {setting}）。",
        "The task set this limit itself (limits.{limit}): submit it with a higher one, up to the server's {setting}.",
    ),
    "budget_exceeded_user_day": (
        "您的任务用完了今天的{name}（{limit}）：已用 {used}，上限 {most}。文件已保留。",
        "Your tasks used up today's {name} ({limit}): {used} used, {most} allowed. The files are kept.",
    ),
    "budget_exceeded_server_day": (
        "服务器用完了今天的{name}（{limit}）：已用 {used}，上限 {most}。文件已保留。",
        "The server used up today's {name} ({limit}): {used} used, {most} allowed. The files are kept.",
    ),
    "budget_raise_day": (
        "额度在 UTC 零点重新计算；运营者可用 {setting} 提高上限。",
        "It is counted anew at midnight UTC; the operator can raise the limit with {setting}.",
    ),
    "day_limit_reached": (
        (
            "今天的额度（{setting}）已用完：已用 {used}，上限 {most}，因此没有询问模型。"
            "额度在 UTC 零点重新计算，运营者可以提高。"
        ),
        (
            "Today's limit {setting} is reached ({used} of {most}), so the model was not asked. It is counted anew at"
            " midnight UTC; the operator can raise it."
        ),
    ),
    "cost_unknown": (
        "有费用限额（{limit}，{most} 美元），但模型的服务器没有告知回答的费用，无法继续核算。文件已保留。",
        (
            "Money is limited ({limit}, {most} dollars), but the model's server did not tell what its answer took, so"
            " the limit can't be kept. The files are kept."
        ),
    ),
    "cost_unknown_hint": (
        (
            "请让模型的服务器返回用量（usage）并在 BERAY_PRICES 中给出价格（免费的模型写 0），"
            "或取消 {setting} 而改用词元限额。"
        ),
        (
            "Have the model's server send its usage and put its price into BERAY_PRICES (0 for a model that costs"
            " nothing), or unset {setting} and limit tokens."
        ),
    ),
    "limit_requests": ("模型请求次数", "model requests"),
    "limit_tool_calls": ("工具调用次数", "tool calls"),
    "limit_tokens": ("词元额度", "tokens"),
    "limit_wall_seconds": ("运行时间（秒）", "running time in seconds"),
    "limit_cost_usd": ("费用（美元）", "money in US dollars"),
    "cost_limit_unknown": (
        (
            "模型 {model} 的价格未知，无法按 limits.cost_usd 限制费用。"
            "请改用 limits.tokens，或请运营者在 BERAY_PRICES 中给出价格。"
        ),
        (
            "What the model {model} costs is not known, so limits.cost_usd can't be kept. Use limits.tokens, or have"
            " the operator put its price into BERAY_PRICES."
        ),
    ),
    # agent: runs that go round in circles
    "stuck": (
        "模型以同样的结果重复调用 {tool} {times} 次，没有进展，任务已结束。文件已保留。",
        (
            "The model called {tool} {times} times with the same result and without progress; the task was ended, its"
            " files are kept."
        ),
    ),
    "stuck_monologue": (
        "模型连续 {times} 次回答，既没有调用工具，也没有结束任务。文件已保留。",
        "The model answered {times} times in a row without calling a tool or ending the task. Its files are kept.",
    ),
    "stuck_hint": (
        "请把目标说得更具体、拆小任务，或换一个能力更强的模型。",
        "Say more exactly what is wanted, split the task, or use a more capable model.",
    ),
    # agent: how a tool call ended, in one line
    "tool_shell": ("运行 bash 命令", "runs a bash command"),
    "tool_background": ("照看在后台运行的命令", "looks after commands that run in the background"),
    "tool_python": ("运行 Python 代码", "runs Python code"),
    "tool_read_file": ("读取工作目录中的文件", "reads a file of the work_dir"),
    "tool_write_file": ("写入工作目录中的文件", "writes a file in the work_dir"),
    "tool_edit_file": ("替换文件中的一段文字", "replaces one passage of a file"),
    "tool_list_files": ("列出工作目录中的文件", "lists the files of the work_dir"),
    "tool_search_files": ("在文件中搜索", "searches in files"),
    "tool_update_plan": ("向用户展示计划及进度", "shows the user the plan and how far it is done"),
    "tool_ask_user": ("向用户提问并等待回答", "asks the user and waits for the answer"),
    "tool_finish": ("结束任务并给出总结", "ends the task with a summary"),
    "agent_tool_silent": ("完成，没有返回内容", "done; it gave nothing back"),
    "tool_mcp_command": ("MCP 服务器的工具，在沙箱中运行", "tools of an MCP server that runs in the sandbox"),
    "tool_mcp_endpoint": ("MCP 服务器的工具，通过 HTTP 连接", "tools of an MCP server that is reached by HTTP"),
    "tool_web_fetch": ("读取允许访问的主机上的网页", "reads a page of a host that is allowed"),
    "agent_mcp_answered": ("{server} 答复：{said}", "{server} answered: {said}"),
    "agent_mcp_failed": ("{server} 报告错误：{said}", "{server} reports an error: {said}"),
    "agent_web_fetched": ("已读取 {url}", "read {url}"),
    "agent_command_exit": ("退出码 {code}", "exit code {code}"),
    "agent_command_timeout": ("超过 {seconds} 秒，已终止", "killed after {seconds} s"),
    "agent_command_signal": ("被信号 {signal} 终止", "ended by signal {signal}"),
    "agent_command_memory": ("内存超过 {size}，已终止", "killed: over {size} of memory"),
    "agent_command_disk": (
        "磁盘占用超过 {size} 或磁盘将满，已终止",
        "killed: over {size} on disk, or the disk is full",
    ),
    "agent_command_lost": ("沙箱意外消失，结果未知", "the sandbox vanished; the outcome is unknown"),
    "agent_background_running": ("在后台运行：{id}", "running in the background as {id}"),
    "agent_background_listed": ("{count} 个后台进程正在运行", "{count} running in the background"),
    "agent_background_output": ("{id} 输出了 {count} 字节", "{id} has printed {count} bytes"),
    "agent_background_ended": ("{id} 已终止", "{id} has been ended"),
    "agent_lines_read": ("读取了 {count} 行", "{count} lines read"),
    "agent_picture_read": ("图片，{width}×{height} 像素", "a picture of {width} x {height} pixels"),
    "agent_unchanged": ("内容相同，没有改动", "unchanged: it held this already"),
    "agent_bytes_written": ("写入了 {count} 字节", "{count} bytes written"),
    "agent_edited": ("已修改", "edited"),
    "agent_files_found": ("{count} 个文件", "{count} files"),
    "agent_matches_found": ("{count} 处匹配", "{count} matches"),
    "agent_plan": ("计划已完成 {done}/{count}", "plan: {done} of {count} done"),
    "agent_answered": ("用户已回答", "answered"),
    "agent_unanswered": ("{seconds} 秒内无人回答", "nobody answered within {seconds} s"),
    "agent_overtaken": ("用户此前已发来消息", "the user had sent a message before"),
    "agent_finished": ("任务结束", "the task has ended"),
    "agent_call_refused": ("调用有误，未执行；已告知模型", "not run: the call was wrong; the model was told"),
    "agent_call_interrupted": (
        "服务中断时正在执行，结果未知；不会自动重做",
        "interrupted when the server stopped; the outcome is unknown, and it is not repeated",
    ),
    "agent_call_ended": ("任务达到上限，已终止", "ended: the task reached a limit"),
    # files
    "output_not_found": (
        "任务 {task_id} 的调用 {call_id} 没有保存的输出。",
        "There is no kept output of call {call_id} of task {task_id}.",
    ),
    "file_not_found": ("工作目录中没有 {path}。", "There is no {path} in the work_dir."),
    "invalid_path": (
        "路径 {path} 无效：须为工作目录内的相对路径（{reason}）。",
        "The path {path} is not valid: it must be relative and inside the work_dir ({reason}).",
    ),
    "path_empty": ("路径为空", "it is empty"),
    "path_not_utf8": ("不是 UTF-8 文本", "it is not UTF-8 text"),
    "path_nul": ("含有 NUL 字符", "it has a NUL character"),
    "path_absolute": ("是绝对路径", "it is absolute"),
    "path_dots": ("含有 ..", "it has a .. in it"),
    "path_too_long": ("路径或文件名过长", "it, or a name in it, is too long"),
    "path_too_deep": ("层级过深", "it is too deep"),
    "path_leaves": ("经过的链接指向工作目录之外", "it goes through a link that leaves the work_dir"),
    "path_hard_link": ("是与别处共享的硬链接", "it is a hard link to a file kept elsewhere"),
    "path_names_no_file": ("没有指明文件名", "it names no file"),
    "path_not_portable": (
        "含有反斜杠、控制字符或编码的 ..",
        "it has a backslash, a control character or an encoded .. in it",
    ),
    "not_a_file": ("{path} 不是普通文件。", "{path} is not a regular file."),
    "not_a_directory": ("{path} 不是文件夹。", "{path} is not a directory."),
    "path_is_directory": (
        "{path} 是文件夹，不能作为文件写入。",
        "{path} is a directory and cannot be written as a file.",
    ),
    "file_not_permitted": (
        "{path} 的权限不允许此操作。请先用命令更改其权限（chmod）。",
        "The permissions of {path} do not allow this. Change them with a command first (chmod).",
    ),
    "file_busy": (
        "{path} 正被一个命令占用，请稍后重试。",
        "{path} is held by a running command; try again shortly.",
    ),
    "too_many_files": ("文件超过 {most} 个的上限。", "There are more than {most} files."),
    "storage_full": (
        "您的文件已占用 {used} 字节，上限为 {limit} 字节，放不下更多内容。请先删除一些任务或文件。",
        (
            "Your files take {used} bytes of the {limit} you may store, which leaves no room for more. Delete tasks or"
            " files first."
        ),
    ),
    "upload_too_large": ("文件超过 {limit} 字节的上限。", "The file is over the limit of {limit} bytes."),
    "upload_cut": (
        "上传在完成前中断，旧内容保持不变。",
        "The upload was cut before its end; the old content is unchanged.",
    ),
    "precondition_failed": (
        "{path} 已被修改，If-Match 不符。请重新读取后再写入。",
        "{path} has changed and does not match If-Match. Read it again before writing.",
    ),
    "range_not_satisfiable": ("请求的范围超出文件大小 {size}。", "The range lies outside the file of {size} bytes."),
    "disk_full": (
        "服务器的磁盘已满，没有做任何更改。请删除一些任务或文件，或扩大磁盘空间，然后重试。",
        "The server's disk is full, so nothing was changed. Delete tasks or files or give it more room, then retry.",
    ),
    "disk_unavailable": (
        "服务器的磁盘目前无法读写，没有做任何更改。请稍后重试。",
        "The server's disk cannot be read or written at the moment, so nothing was changed; try again shortly.",
    ),
    "database_unavailable": (
        "数据库目前无法连接或写入，请稍后重试。",
        "The database cannot be reached or written at the moment; try again shortly.",
    ),
    "outcome_unknown": (
        "保存时与数据库的连接中断，无法确定是否已完成；重复之前请先查看。",
        "The database was lost while this was stored; whether it was done is not known. Look before you repeat it.",
    ),
    "file_uploaded": ("文件 {path} 已上传。", "{path} has been uploaded."),
    "file_deleted": ("{path} 已删除。", "{path} has been deleted."),
}
