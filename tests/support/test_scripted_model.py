"""The scripted model as a process, as end-to-end tests use it."""

import json
import subprocess
import sys
import urllib.request


def test_the_process_says_where_it_is_and_streams_its_script():
    command = [sys.executable, "-m", "tests.support.scripted_model", "--port", "0", "--script", "text"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        base_url = process.stdout.readline().strip()
        body = json.dumps({"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "hi"}]})
        request = urllib.request.Request(f"{base_url}/chat/completions", body.encode())

        with urllib.request.urlopen(request, timeout=10) as answer:
            lines = answer.read().decode().split("\n\n")

        process.kill()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line not in {"", "data: [DONE]"}]
    deltas = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas) == "Just text."
