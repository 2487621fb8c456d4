"""How the application is asked: the requests, what it answers, and who carries them there."""
