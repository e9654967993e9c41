"""A Flask view that submits a task: `flask --app flask_app run`."""

from flask import Flask, request
from jobs import greeting

import galley

app = Flask(__name__)
client = galley.Client()


@app.post("/greet")
def greet() -> dict[str, str]:
    handle = client.submit(greeting.call(name=request.form["name"]))
    return {"task": handle.id, "greeting": handle.result(within=30)}
