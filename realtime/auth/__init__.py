"""Who connects and who subscribes, by token. No Django, and no rules about channels: those are the session's."""
