"""
How the application is asked: the requests, what it answers, and who carries them there.

``registry`` has the proxies of the configuration in force, ``proxy`` asks one of them within its time, ``http_caller`` and
``python_caller`` carry a request to it. An event (``event``, ``shared_poll_event``) says what is asked and how an answer
is read. No Django: what needs it, TLS contexts and threads with database connections, comes in constructors.
"""
