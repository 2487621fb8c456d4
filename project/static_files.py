"""Static files from the process itself, under every ASGI server and without a build step."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile


class StaticFilesMiddleware(WhiteNoiseMiddleware):
    """
    WhiteNoise that answers with whole bodies.

    WhiteNoise streams from a file object, which Django cannot iterate asynchronously: under ASGI it warns on
    every request and reads the file into memory all the same.
    """

    @staticmethod
    def serve(  # type: ignore[override]  # Django's middleware takes a request where the WSGI base takes an environ
        static_file: StaticFile, request: HttpRequest
    ) -> HttpResponse:
        """Answer one request for a file, ranges and conditional requests included."""
        answer = static_file.get_response(request.method, request.META)
        body = b""
        if answer.file is not None:
            with answer.file:
                body = answer.file.read()
        response = HttpResponse(body, status=int(answer.status))
        # A 304 carries none, and a file's own type is among the headers below.
        del response["content-type"]
        for name, value in answer.headers:
            response[name] = value
        return response
