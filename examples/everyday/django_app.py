"""A Django view that submits a task: `python django_app.py runserver`."""

import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path
from jobs import greeting

import galley

client = galley.Client()


def greet(request: HttpRequest) -> JsonResponse:
    handle = client.submit(greeting.call(name=str(request.POST["name"])))
    return JsonResponse({"task": handle.id, "greeting": handle.result(within=30)})


urlpatterns = [path("greet", greet)]

if __name__ == "__main__":
    settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="of an example")
    django.setup()
    execute_from_command_line(sys.argv)
