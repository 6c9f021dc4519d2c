import ssl
import subprocess
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest

from beray.server.auth.mailer import (
    Letterhead,
    Mail,
    MailNotSent,
    OutboxMailer,
    SmtpMailer,
    SmtpServer,
    make_mailer,
    parse_smtp_url,
)
from beray.server.settings import SettingError, Settings
from tests.server.auth.auth_server import FakeClock
from tests.support.smtp_server import SmtpTestServer

MAIL = Mail(to="user@example.com", subject="BeRay 验证码", text="验证码：\n\n123456\n", gist="code: 123456")
LETTERHEAD = Letterhead("BeRay <beray@example.org>", FakeClock())


def parse(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=policy.SMTPUTF8)
    assert isinstance(message, EmailMessage)
    return message


def check_mail(message: EmailMessage) -> None:
    """It is `MAIL`, with all a mail should have."""
    assert message["From"] == "BeRay <beray@example.org>"
    assert message["To"] == "user@example.com"
    assert message["Subject"] == "BeRay 验证码"
    assert message["Date"] == "Fri, 15 Jan 2027 08:00:00 +0000"
    assert message["Message-ID"].endswith("@example.org>")
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content().split() == ["验证码：", "123456"]


def smtp_server(port: int, *, start_tls: bool | None = None, username: str | None = None) -> SmtpServer:
    password = None if username is None else "p@ss:w%rd"
    return SmtpServer("127.0.0.1", port, username, password, use_tls=False, start_tls=start_tls)


async def test_outbox_keeps_the_mail_and_announces_it(tmp_path):
    announced: list[str] = []
    mailer = make_mailer(
        Settings(data_dir=tmp_path, mail_from="BeRay <beray@example.org>"), FakeClock(), announced.append
    )

    await mailer.send(MAIL)

    [path] = (tmp_path / "outbox").iterdir()
    check_mail(parse(path.read_bytes()))
    assert "验证码：" in path.read_bytes().decode()  # readable without a mail program
    assert announced == [f"code: 123456  ({path})"]


async def test_outbox_forgets_the_oldest(tmp_path, monkeypatch):
    monkeypatch.setattr("beray.server.auth.mailer.KEPT_MAILS", 3)
    mailer = OutboxMailer(tmp_path, LETTERHEAD, clock=FakeClock(), announce=lambda line: None)

    for number in range(5):
        await mailer.send(Mail(to="user@example.com", subject=str(number), text="x", gist="x"))

    subjects = [parse(path.read_bytes())["Subject"] for path in sorted(tmp_path.iterdir())]
    assert subjects == ["2", "3", "4"]


async def test_outbox_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "outbox").write_text("a file is in the way")
    mailer = OutboxMailer(tmp_path / "outbox", LETTERHEAD, clock=FakeClock(), announce=lambda line: None)

    with pytest.raises(MailNotSent, match="outbox"):
        await mailer.send(MAIL)


async def test_smtp_hands_the_mail_over():
    async with SmtpTestServer() as server:
        await SmtpMailer(smtp_server(server.port), LETTERHEAD).send(MAIL)

    [received] = server.mails
    assert received.recipients == ["user@example.com"]
    check_mail(parse(received.content))


async def test_smtp_takes_international_addresses():
    async with SmtpTestServer() as server:
        for to in ("user@例子.com", "用户@例子.com"):
            mail = Mail(to=to, subject=MAIL.subject, text=MAIL.text, gist=MAIL.gist)
            await SmtpMailer(smtp_server(server.port), LETTERHEAD).send(mail)

    assert [mail.recipients for mail in server.mails] == [["user@xn--fsqu00a.com"], ["用户@例子.com"]]


@pytest.mark.needs("openssl")
async def test_smtp_logs_in_over_tls(tmp_path):
    server_context, client_context = make_tls(tmp_path)
    async with SmtpTestServer(tls=server_context) as server:
        where = smtp_server(server.port, start_tls=True, username="user")
        await SmtpMailer(where, LETTERHEAD, tls_context=client_context).send(MAIL)

    assert server.logins == [("user", "p@ss:w%rd")]
    assert len(server.mails) == 1
    verbs = [command.split()[0].upper() for command in server.commands]
    assert verbs.index("STARTTLS") < verbs.index("AUTH")


@pytest.mark.needs("openssl")
async def test_smtps_speaks_tls_from_the_first_byte(tmp_path):
    server_context, client_context = make_tls(tmp_path)
    async with SmtpTestServer(tls=server_context, is_tls_at_once=True) as server:
        where = SmtpServer("127.0.0.1", server.port, "user", "secret", use_tls=True, start_tls=False)
        await SmtpMailer(where, LETTERHEAD, tls_context=client_context).send(MAIL)

    assert server.logins == [("user", "secret")]
    check_mail(parse(server.mails[0].content))


@pytest.mark.needs("openssl")
async def test_smtp_server_with_a_strange_certificate_gets_no_mail(tmp_path):
    server_context, _ = make_tls(tmp_path)
    async with SmtpTestServer(tls=server_context) as server:
        with pytest.raises(MailNotSent, match="certificate"):
            await SmtpMailer(smtp_server(server.port, start_tls=True), LETTERHEAD).send(MAIL)

    assert server.mails == []


async def test_smtp_sends_no_password_to_a_server_without_tls():
    async with SmtpTestServer() as server:
        where = smtp_server(server.port, start_tls=True, username="user")
        with pytest.raises(MailNotSent):
            await SmtpMailer(where, LETTERHEAD).send(MAIL)

    assert server.logins == []
    assert server.mails == []


async def test_smtp_refusing_the_mailbox_is_said_with_its_answer():
    async with SmtpTestServer(refuse_recipients=True) as server:
        with pytest.raises(MailNotSent, match="no such mailbox"):
            await SmtpMailer(smtp_server(server.port), LETTERHEAD).send(MAIL)


async def test_smtp_that_says_nothing_is_given_up():
    async with SmtpTestServer(is_silent=True) as server:
        with pytest.raises(MailNotSent, match="TimeoutError"):
            await SmtpMailer(smtp_server(server.port), LETTERHEAD, deadline_seconds=0.05).send(MAIL)


async def test_smtp_that_is_not_there_is_said():
    async with SmtpTestServer() as server:
        port = server.port

    with pytest.raises(MailNotSent, match=rf"127\.0\.0\.1:{port} did not take the mail"):
        await SmtpMailer(smtp_server(port), LETTERHEAD).send(MAIL)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.com", ("mail.example.com", 25, None, None, False, None)),
        ("smtp://mail.example.com:2525", ("mail.example.com", 2525, None, None, False, None)),
        ("smtp://u:p%40s@mail.example.com", ("mail.example.com", 587, "u", "p@s", False, True)),
        ("smtp://u%40example.com:p@mail.example.com:25", ("mail.example.com", 25, "u@example.com", "p", False, True)),
        ("smtps://u:p@mail.example.com", ("mail.example.com", 465, "u", "p", True, False)),
        ("smtp://localhost:25", ("localhost", 25, None, None, False, False)),
        ("smtp://u:p@[::1]:25", ("::1", 25, "u", "p", False, False)),
    ],
)
def test_smtp_url_is_read(url, server):
    assert parse_smtp_url(url) == SmtpServer(*server)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example.com",
        "http://secret:secret@mail.example.com",
        "smtp://",
        "smtp://u:secret@mail.example.com:port",
        "smtp://u:secret@mail.example.com/path",
        "smtp://u:secret@mail.example.com?starttls=no",
        "smtp://u:secret@[::1",
    ],
)
def test_smtp_url_that_is_none_stops_the_start_and_is_not_shown(tmp_path, url):
    with pytest.raises(SettingError, match="BERAY_SMTP_URL") as error:
        make_mailer(Settings(data_dir=tmp_path, smtp_url=url), FakeClock(), print)

    assert "secret" not in str(error.value)


@pytest.mark.parametrize("mail_from", ["", "BeRay", "BeRay <beray@example.com>\nBcc: x@example.com"])
def test_sender_that_is_none_stops_the_start(tmp_path, mail_from):
    with pytest.raises(SettingError, match="BERAY_MAIL_FROM"):
        make_mailer(Settings(data_dir=tmp_path, mail_from=mail_from), FakeClock(), print)


def make_tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate made for this test, and of a client that trusts it alone."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
