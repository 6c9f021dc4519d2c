"""The whole story by a client that knows only the wire contract: plain `requests`, reading only `data:` lines."""

import io
import json
import zipfile

import requests


def test_a_client_of_the_contract_does_the_whole_story(server):
    api = f"{server.base_url}/api/v1"
    email, password = "wire-client@example.com", "password"
    session = requests.Session()

    sent = session.post(f"{api}/auth/request-verification-code", json={"email": email})
    assert (sent.status_code, sent.json()) == (200, {"message": "验证码已发送到您的邮箱。请查收。"})
    registered = session.post(
        f"{api}/auth/register",
        json={"email": email, "verification_code": server.code_for(email), "password": password},
    )
    assert registered.status_code == 201
    assert set(registered.json()) == {"access_token", "token_type", "expires_in", "user"}
    assert session.post(f"{api}/auth/request-verification-code", json={"email": email}).status_code == 409

    login = session.post(f"{api}/auth/login", json={"email": email, "password": password})
    assert login.status_code == 200
    form = session.post(f"{api}/auth/token", data={"username": email, "password": password})
    assert form.status_code == 200
    assert form.json()["token_type"] == "bearer"
    wrong = session.post(f"{api}/auth/login", json={"email": email, "password": "wrong password"})
    assert wrong.status_code == 401

    session.headers["Authorization"] = f"Bearer {form.json()['access_token']}"
    assert session.get(f"{api}/users/me").json()["email"] == email

    first = session.post(f"{api}/tasks/", json={"goal": "1.帮我写一个简单的python脚本打印hello world", "tools": None})
    second = session.post(f"{api}/tasks", json={"goal": "写一首关于宇宙的诗。"}, allow_redirects=False)
    assert (first.status_code, second.status_code) == (201, 201)
    task = f"{api}/tasks/{first.json()['id']}"

    with session.get(f"{task}/stream", stream=True, timeout=60) as stream:
        events = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith(b"data:")]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "task.finished"
    assert "hello world" in "".join(event.get("delta", "") for event in events if event["type"] == "tool.output")
    shown = session.get(f"{task}/").json()
    assert (shown["status"], shown["events"]) == ("completed", events)
    assert [each["id"] for each in session.get(f"{api}/tasks/").json()] == [second.json()["id"], first.json()["id"]]

    tree = session.get(f"{task}/files/tree").json()
    script = next(node for node in tree if node["name"].endswith(".py"))
    content = session.get(f"{task}/files/content", params={"path": script["path"]})
    assert b"hello world" in content.content
    assert content.headers["content-disposition"].startswith("attachment")
    put = session.put(f"{task}/files/content", params={"path": "注释/笔记 1.txt"}, data="你好".encode())
    assert put.status_code == 201
    assert set(put.json()) == {"message", "path", "size", "sha256"}
    archive = session.post(f"{task}/files/download", json={"paths": [script["path"], "注释/"]})
    with zipfile.ZipFile(io.BytesIO(archive.content)) as unpacked:
        names = {name for name in unpacked.namelist() if not name.endswith("/")}
        assert names == {script["path"], "注释/笔记 1.txt"}
    assert session.post(f"{task}/files/download", json={"paths": ["nothing"]}).status_code == 404

    running = session.post(f"{api}/tasks/", json={"goal": "```bash\nsleep 300\n```"}).json()
    stopped = session.post(f"{api}/tasks/{running['id']}/stop")
    assert (stopped.status_code, stopped.json()["status"]) == (200, "stopped")
    assert session.post(f"{task}/stop").status_code == 409
    assert session.delete(task).status_code == 200
    assert session.get(task).status_code == 404

    assert session.post(f"{api}/auth/logout").json() == {"message": "已成功登出"}
    assert session.get(f"{api}/users/me").status_code == 401
    session.close()
